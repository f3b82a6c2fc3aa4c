"""The picture of a map, for those who do not open pages."""

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from protembed.report.design import CLASS_COLOURS, COLOURS, TYPE, colour_scale
from protembed.report.figures import drawable, figure_file
from protembed.search.annotations import Annotation
from protembed.search.protein_map import Points, ProteinMap

_WIDTH, _HEIGHT = 7.6, 6.0
_MAX_NAME = 28
# Areas in square points: of a point among a few hundred, and the least.
_AREA, _MIN_AREA, _FEW = 26.0, 1.5, 300
_COLOURED = (0.02, 0.98)


def draw_map(path: Path, protein_map: ProteinMap) -> None:
    """Draw the points of the first projection in their first colours, and write the picture as PNG."""
    name = protein_map.first_projection
    points, colour = protein_map.points[name], protein_map.colours[0]
    with figure_file(path, _WIDTH, _HEIGHT) as figure:
        axes = figure.subplots()
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_axis_off()
        axes.set_title(f"{len(points):,} proteins, {protein_map.title(name)}", loc="left")
        if colour.values is None:
            _draw_classes(axes, points, colour)
        else:
            _draw_values(axes, points, colour)


def _area(number: int) -> float:
    share: float = _FEW / max(number, _FEW)
    return max(_MIN_AREA, _AREA * math.pow(share, 0.6))


def _draw_classes(axes: Axes, points: Points, colour: Annotation) -> None:
    codes = np.array([-1 if code is None else code for code in colour.codes])
    area, grey = _area(len(points)), COLOURS["grey"].light
    is_other = (codes < 0) | (codes >= len(CLASS_COLOURS))
    if is_other.any():
        axes.scatter(points[is_other, 0], points[is_other, 1], s=area, c=grey, alpha=0.5, linewidths=0, label="others")
    for code in reversed(range(min(len(colour.classes), len(CLASS_COLOURS)))):
        label = f"{drawable(colour.classes[code][:_MAX_NAME])} ({(codes == code).sum():,})"
        axes.scatter(
            points[codes == code, 0],
            points[codes == code, 1],
            s=area,
            c=CLASS_COLOURS[code].light,
            linewidths=0,
            label=label,
        )
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],
        labels[::-1],
        title=drawable(colour.name[:_MAX_NAME]),
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        markerscale=max(1.0, (20 / area) ** 0.5),
    )


def _draw_values(axes: Axes, points: Points, colour: Annotation) -> None:
    values = np.array([np.nan if value is None else value for value in colour.values or ()])
    area, is_known = _area(len(points)), np.isfinite(values)
    axes.scatter(points[~is_known, 0], points[~is_known, 1], s=area, c=COLOURS["grey"].light, alpha=0.5, linewidths=0)
    if not is_known.any():
        return
    low, high = np.quantile(values[is_known], _COLOURED)
    drawn = axes.scatter(
        points[is_known, 0],
        points[is_known, 1],
        s=area,
        c=values[is_known],
        cmap=colour_scale("point"),
        vmin=low,
        vmax=high,
        linewidths=0,
    )
    bar = axes.figure.colorbar(drawn, ax=axes, shrink=0.6)
    bar.set_label(drawable(colour.name[:_MAX_NAME]), fontsize=TYPE["label"])
