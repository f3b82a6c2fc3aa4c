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
# The scale has this many inches, or the width of the figure if that is smaller.
_SCALE_INCHES = 4.0
# Of the height of the type; some letters are wider.
_WIDTH_OF_LETTER = 0.6


def draw_attention(
    path: Path, maps: NDArray[np.floating], title: str, layers: Sequence[int], heads: Sequence[int]
) -> None:
    """Draw maps, (layer, head, residues, residues), as a grid with a row per layer and a column per head.

    Most weights are small, so that the square root of a weight gives its colour. Each map has its own maximum.
    """
    num_layers, num_heads = maps.shape[:2]
    size = {"width": _MAP_INCHES * num_heads + 1, "height": _MAP_INCHES * num_layers + 1.6}
    with figure_file(path, **size, dots_per_inch=_DOTS_PER_INCH) as figure:
        grid: NDArray[Any] = figure.subplots(num_layers, num_heads, squeeze=False)
        for (row, column), axes in np.ndenumerate(grid):
            _draw_map(axes, maps[row, column])
            if row == 0:
                axes.set_title(f"head {heads[column]}", loc="center", fontsize=TYPE["tiny"], fontweight="normal")
            if column == 0:
                axes.set_ylabel(f"layer {layers[row]}", fontsize=TYPE["tiny"])
        heading = _wrap(title, size["width"], TYPE["title"])
        figure.suptitle(heading, fontsize=TYPE["title"], fontweight="bold", x=0.01, ha="left")
        _draw_scale(figure, grid, size["width"])


def _draw_map(axes: Axes, weights: NDArray[np.floating]) -> None:
    weights = weights.astype(np.float32)
    norm = PowerNorm(0.5, 0, float(weights.max()) or 1.0)
    axes.imshow(weights, cmap=SCALES["attention"][0], norm=norm, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=COLOURS["rule"].light)


def _draw_scale(figure: Figure, grid: NDArray[Any], width: float) -> None:
    """Draw the scale of all maps below them."""
    colours = ScalarMappable(PowerNorm(0.5, 0, 100), SCALES["attention"][0])
    bar = figure.colorbar(
        colours, ax=grid, location="bottom", aspect=40, shrink=min(1.0, _SCALE_INCHES / width), pad=0.02
    )
    bar.outline.set_visible(False)
    bar.set_ticks([0, 5, 25, 100], labels=["0", "5", "25", "100 %"], fontsize=TYPE["tiny"])
    label = "attention that a row's residue gives to a column's, in percent of the highest in its own map"
    bar.set_label(_wrap(label, 0.9 * width, TYPE["tiny"]), fontsize=TYPE["tiny"])


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
