"""Figures of attention: the maps of one protein, and the statistics of all heads."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from protembed.report.design import COLOURS, SCALES, TYPE
from protembed.report.figures import drawable, figure_file

_MAX_TICKS = 12
# A map of 128 blocks, the most that are drawn, has a pixel for each; more would only take memory and space.
_MAP_INCHES, _DOTS_PER_INCH = 1.1, 120
# Few maps are larger, so that the title and the scale have room.
_MIN_GRID_INCHES = 2.6
_GAP_INCHES, _LEFT_INCHES, _RIGHT_INCHES = 0.09, 0.32, 0.08
_SCALE_INCHES = 4.0
_SCALE_LABEL = "attention that a row's residue gives to a column's, in percent of the highest in its own map"
# Of the height of the type.
_WIDTH_OF_LETTER, _HEIGHT_OF_LINE = 0.6, 1.35


def draw_attention(
    path: Path, maps: NDArray[np.floating], title: str, layers: Sequence[int], heads: Sequence[int]
) -> None:
    """Draw maps, (layer, head, residues, residues), as a grid with a row per layer and a column per head.

    Most weights are small, so that the square root of a weight gives its colour. Each map has its own maximum.
    """
    num_layers, num_heads = maps.shape[:2]
    side = max(_MAP_INCHES, _MIN_GRID_INCHES / num_heads)
    width = _LEFT_INCHES + num_heads * (side + _GAP_INCHES) - _GAP_INCHES + _RIGHT_INCHES
    heading, label = _wrap(title, 0.85 * width, TYPE["title"]), _wrap(_SCALE_LABEL, width, TYPE["tiny"])
    top, bottom = 0.3 + _inches_high(heading, TYPE["title"]), 0.4 + _inches_high(label, TYPE["tiny"])
    height = top + num_layers * (side + _GAP_INCHES) - _GAP_INCHES + bottom
    with figure_file(path, width=width, height=height, dots_per_inch=_DOTS_PER_INCH) as figure:
        # The places are known: finding them took 19 of 33 seconds for 660 maps.
        figure.set_layout_engine("none")
        gaps = {"wspace": _GAP_INCHES / side, "hspace": _GAP_INCHES / side}
        sides = {"left": _LEFT_INCHES / width, "right": 1 - _RIGHT_INCHES / width}
        ends = {"top": 1 - top / height, "bottom": bottom / height}
        grid: NDArray[Any] = figure.subplots(num_layers, num_heads, squeeze=False, gridspec_kw=gaps | sides | ends)
        for (row, column), axes in np.ndenumerate(grid):
            _draw_map(axes, maps[row, column])
            if row == 0:
                axes.set_title(f"head {heads[column]}", loc="center", fontsize=TYPE["tiny"], fontweight="normal", pad=3)
            if column == 0:
                axes.set_ylabel(f"layer {layers[row]}", fontsize=TYPE["tiny"], labelpad=3)
        at = {"x": _RIGHT_INCHES / width, "y": 1 - 0.06 / height, "ha": "left", "va": "top"}
        figure.suptitle(heading, fontsize=TYPE["title"], fontweight="bold", **at)
        _draw_scale(figure, label, bottom)


def _draw_map(axes: Axes, weights: NDArray[np.floating]) -> None:
    weights = weights.astype(np.float32)
    norm = PowerNorm(0.5, 0, float(weights.max()) or 1.0)
    axes.imshow(weights, cmap=SCALES["attention"][0], norm=norm, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=COLOURS["rule"].light)


def _draw_scale(figure: Figure, label: str, room: float) -> None:
    """Draw the scale of all maps below them, in the lowest inches of the figure."""
    width, height = figure.get_size_inches()
    length = min(_SCALE_INCHES, width - 0.6) / width
    place = figure.add_axes(((1 - length) / 2, (room - 0.2) / height, length, 0.09 / height))
    colours = ScalarMappable(PowerNorm(0.5, 0, 100), SCALES["attention"][0])
    bar = figure.colorbar(colours, cax=place, orientation="horizontal")
    bar.outline.set_visible(False)
    bar.set_ticks([0, 5, 25, 100], labels=["0", "5", "25", "100 %"], fontsize=TYPE["tiny"])
    bar.ax.tick_params(length=2, pad=1)
    bar.set_label(label, fontsize=TYPE["tiny"], labelpad=2)


def _inches_high(lines: str, size: float) -> float:
    return _HEIGHT_OF_LINE * size / 72 * (lines.count("\n") + 1)


def _wrap(text: str, inches: float, size: float) -> str:
    """Divide a text into lines of some width in inches, four at most, at a size of type in points."""
    num_letters = int(72 * inches / (_WIDTH_OF_LETTER * size))
    return "\n".join(map(drawable, textwrap.wrap(text, num_letters, max_lines=4, placeholder=" ...")))


def draw_heads(path: Path, statistics: Mapping[str, NDArray[np.floating]]) -> None:
    """Draw statistics of all heads by name, each (layer, head), as grids with a row per layer and a column per head."""
    num_columns = 3
    num_rows = -(-len(statistics) // num_columns)
    with figure_file(path, width=3.4 * num_columns, height=2.5 * num_rows) as figure:
        grid: NDArray[Any] = figure.subplots(num_rows, num_columns, squeeze=False)
        for number, (axes, (name, values)) in enumerate(zip(grid.ravel(), statistics.items(), strict=False)):
            _draw_statistic(axes, name, values)
            axes.set_xlabel("head" if number + num_columns >= len(statistics) else "")
            axes.set_ylabel("" if number % num_columns else "layer")
        for axes in grid.ravel()[len(statistics) :]:
            axes.set_axis_off()


def _draw_statistic(axes: Axes, name: str, values: NDArray[np.floating]) -> None:
    axes.set_title(name, fontsize=TYPE["label"])
    axes.spines[:].set_visible(False)
    if values.size:
        num_layers, num_heads = values.shape
        extent = (0.5, num_heads + 0.5, num_layers + 0.5, 0.5)
        image = axes.imshow(values, cmap=SCALES["statistic"][0], interpolation="nearest", aspect="auto", extent=extent)
        bar = axes.figure.colorbar(image, ax=axes)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=TYPE["tiny"])
        bar.ax.locator_params(nbins=5)
        axes.set(xticks=_ticks(num_heads), yticks=_ticks(num_layers))
        axes.tick_params(labelsize=TYPE["tiny"], length=0)


def _ticks(count: int) -> range:
    """Choose the layers or heads to number, from 1: all of them where there is room."""
    return range(1, count + 1, -(-count // _MAX_TICKS))
