"""The figure of a scan: its heat map, in lines that can be read and printed."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from protembed.report.design import COLOURS, TYPE, colour_scale
from protembed.report.figures import drawable, figure_file
from protembed.scoring.displayed_scan import ROW_COLUMNS, ROWS, DisplayedScan, Scale
from protembed.text import printable

_RESIDUES_PER_LINE = 100
# Sizes in inches.
_CELL, _LEFT, _RIGHT, _TOP, _BOTTOM, _GAP = 0.095, 0.45, 0.2, 0.62, 0.85, 0.4
_MIN_WIDTH = 4.5
_DOTS_PER_INCH = 144
_MAX_NAME = 60
# The row of the mean and an empty one are above those of the amino acids.
_ROWS_ABOVE = 2
_MAPS_GAP = 0.32


def draw_scan(path: Path, scan: DisplayedScan) -> None:
    """Draw a heat map with the positions along, the 20 amino acids down, and the mean of each position above.

    Long proteins are drawn in lines of 100 residues. Measured values are drawn below the scores of each line.
    """
    scales = [("score (nats); 0 is the wild type", scan.scores, scan.means, scan.scale)]
    if scan.measured is not None and scan.measured_scale is not None:
        label = f"measured; white is the {scan.measured_centre}"
        scales.append((label, scan.measured, _means(scan.measured), scan.measured_scale))
    num_lines = -(-len(scan.sequence) // _RESIDUES_PER_LINE)
    map_height = (len(ROWS) + _ROWS_ABOVE) * _CELL
    line_height = len(scales) * map_height + (len(scales) - 1) * _MAPS_GAP + _GAP
    width = max(_MIN_WIDTH, _LEFT + min(len(scan.sequence), _RESIDUES_PER_LINE) * _CELL + _RIGHT)
    height = _TOP + num_lines * line_height + _BOTTOM
    # The places are known: finding them takes longer than drawing.
    with figure_file(path, width=width, height=height, dots_per_inch=_DOTS_PER_INCH) as figure:
        figure.set_layout_engine("none")
        figure.suptitle(_title(scan), x=_LEFT / width, y=1 - 0.1 / height, ha="left", va="top", fontsize=TYPE["title"])
        for line in range(num_lines):
            for number, (_, values, means, scale) in enumerate(scales):
                top = height - _TOP - line * line_height - number * (map_height + _MAPS_GAP)
                _draw_line(figure, scan, line * _RESIDUES_PER_LINE, values, means, scale, top)
        for number, (label, _, _, scale) in enumerate(scales):
            _draw_scale(figure, label, scale, number, len(scales))


def _means(measured: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = np.isfinite(measured).sum(1)
    means: NDArray[np.float64] = np.nansum(measured, axis=1) / np.where(counts > 0, counts, np.nan)
    return means


def _title(scan: DisplayedScan) -> str:
    name = printable(scan.id)
    name = name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}..."
    last = scan.first + len(scan.sequence) - 1
    return drawable(f"{name}: single mutants at residues {scan.first} to {last}")


def _draw_line(
    figure: Figure,
    scan: DisplayedScan,
    start: int,
    values: NDArray[np.float64],
    means: NDArray[np.float64],
    scale: Scale,
    top: float,
) -> None:
    """Draw the residues of one line, whose upper edge is `top` inches above the lower end of the figure."""
    part = slice(start, start + _RESIDUES_PER_LINE)
    columns = values[part][:, ROW_COLUMNS].T  # (20, residues)
    picture = np.vstack([means[None, part], np.full((1, columns.shape[1]), scale.centre), columns])
    width, height = figure.get_size_inches()
    num_rows, num_columns = picture.shape
    place = (_LEFT / width, (top - num_rows * _CELL) / height, num_columns * _CELL / width, num_rows * _CELL / height)
    axes = figure.add_axes(place)
    axes.imshow(
        picture,
        cmap=colour_scale("effect").with_extremes(bad=COLOURS["rule"].light),
        norm=CenteredNorm(scale.centre, scale.limit),
        interpolation="nearest",
        aspect="auto",
    )
    _mark(axes, scan, part)


def _mark(axes: Axes, scan: DisplayedScan, part: slice) -> None:
    """Mark the wild type, number residues and name amino acids."""
    residues, rows = scan.wild_type_cells()
    inside = (residues >= part.start) & (residues < part.stop)
    axes.plot(residues[inside] - part.start, rows[inside] + _ROWS_ABOVE, ".", color=COLOURS["ink"].light, markersize=2)
    letters = scan.sequence[part]
    numbers = [scan.first + part.start + column for column in range(len(letters))]
    ticks = [column for column, number in enumerate(numbers) if number % 10 == 0 or column == 0]
    labels = [f"{letters[column]}{numbers[column]}" for column in ticks]
    axes.set_xticks(ticks, labels, fontsize=TYPE["tiny"])
    axes.set_yticks([0, *range(_ROWS_ABOVE, _ROWS_ABOVE + len(ROWS))], ["mean", *ROWS], fontsize=5.5)
    axes.tick_params(length=1.5, pad=1.5)
    axes.spines[:].set_visible(False)


def _draw_scale(figure: Figure, label: str, scale: Scale, number: int, count: int) -> None:
    """Draw one of the scales, side by side in the lowest inches of the figure."""
    width, height = figure.get_size_inches()
    step = (width - _LEFT - _RIGHT) / count
    length = min(2.0, step - 0.3)
    place = figure.add_axes(((_LEFT + number * step) / width, 0.42 / height, length / width, 0.09 / height))
    colours = ScalarMappable(CenteredNorm(scale.centre, scale.limit), colour_scale("effect"))
    bar = figure.colorbar(colours, cax=place, orientation="horizontal", extend="both")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, pad=1, labelsize=TYPE["tiny"])
    bar.ax.locator_params(nbins=5)
    bar.set_label(label, fontsize=TYPE["tiny"], labelpad=2)
