"""Figures of how good predictions are: points with intervals, confusions, measured against predicted values, losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from protembed.evaluation.intervals import MetricWithInterval
from protembed.report.curves import curve, running_mean, thinned
from protembed.report.design import COLOURS, TYPE
from protembed.report.figures import drawable, inline_svg
from protembed.text import format_difference, format_number, format_percent

_INK, _MUTED, _GREY, _RULE, _ACCENT, _TINT, _CONTRAST, _RIGHT, _WRONG = (
    COLOURS[name].light for name in ("ink", "muted", "grey", "rule", "accent", "tint", "contrast", "more", "less")
)
# Inches.
_WIDTH, _ROW_HEIGHT, _MARGIN = 7.6, 0.33, 0.75
_MAX_LETTERS = 26
_LETTER_WIDTH = 0.085
# A page enlarges narrower figures.
_MIN_WIDTH = 4.7
# More points than these are drawn as their density.
_MAX_POINTS = 2_000
_NUM_CELLS, _NUM_LEVELS = 40, 8


def shorten(name: str, max_letters: int = _MAX_LETTERS) -> str:
    """Shorten a name for a figure, whose table has it in full, and escape what a figure cannot show.

    >>> shorten("Cytoplasm and cytosol (soluble)", 12)
    'Cytoplasm a…'
    """
    drawn, num_letters = [drawable(letter) for letter in name], 0
    if sum(map(len, drawn)) <= max_letters:
        return "".join(drawn)
    for number, letter in enumerate(drawn):
        num_letters += len(letter)
        if num_letters >= max_letters:
            return "".join(drawn[:number]) + "…"
    return "".join(drawn)


@dataclass(frozen=True, kw_only=True)
class IntervalRow:
    """One row of a figure of points with intervals.

    Attributes:
        metric: Value with its interval; it may have none.
        difference: The model's value minus this one, where the figure shows it; None for the model itself.
        chance: Value that guessing reaches; None where it is not shown.
        note: Few words beside the name, such as a number of proteins.
    """

    name: str
    metric: MetricWithInterval
    difference: MetricWithInterval | None = None
    chance: float | None = None
    note: str = ""
    is_model: bool = False


def draw_intervals(rows: Sequence[IntervalRow], label: str, *, overall: float | None = None) -> Markup:
    """Draw a point with its interval for each row, from top to bottom, and the value beside it.

    Args:
        rows: Rows whose metrics are defined.
        label: Name of the metric.
        overall: Value of all proteins together, a dashed line; None for no line.
    """
    with inline_svg(_WIDTH, _MARGIN + _ROW_HEIGHT * len(rows)) as inline:
        axes = inline.figure.subplots()
        _draw_rows(axes, [row.metric for row in rows], [row.is_model for row in rows])
        _name_rows(axes, rows)
        for y, row in enumerate(rows):
            if row.chance is not None:
                axes.plot(row.chance, y, "|", color=_GREY, markersize=11, markeredgewidth=1.6)
        if overall is not None:
            axes.axvline(overall, color=_GREY, linestyle="--", linewidth=1, zorder=0)
        axes.set_xlabel(label)
    return inline.markup


def draw_comparison(rows: Sequence[IntervalRow], label: str, model: str) -> Markup:
    """Draw the metric of each baseline and of the model, and beside it the difference of the model from each baseline.

    Args:
        rows: Rows whose metrics are defined, the model last.
        label: Name of the metric.
        model: Name of the model.
    """
    with inline_svg(_WIDTH, _MARGIN + _ROW_HEIGHT * len(rows)) as inline:
        values, differences = inline.figure.subplots(ncols=2, sharey=True, width_ratios=(3, 2))
        _draw_rows(values, [row.metric for row in rows], [row.is_model for row in rows])
        _name_rows(values, rows)
        values.set_xlabel(label)
        empty = MetricWithInterval(value=None)
        _draw_rows(differences, [row.difference or empty for row in rows], [False] * len(rows), sign="+")
        differences.axvline(0, color=_INK, linewidth=0.8, zorder=0)
        differences.tick_params(left=False)
        differences.set_xlabel(f"{drawable(model)} minus baseline")
    return inline.markup


def _draw_rows(
    axes: Axes, metrics: Sequence[MetricWithInterval], are_models: Sequence[bool], *, sign: str = ""
) -> None:
    """Draw each metric in its row, with the number at the right margin."""
    for y, (metric, is_model) in enumerate(zip(metrics, are_models, strict=True)):
        if metric.value is None:
            continue
        colour = _ACCENT if is_model else _MUTED
        if is_model:
            axes.axhspan(y - 0.5, y + 0.5, color=_TINT, linewidth=0, zorder=-1)
        if metric.low is not None and metric.high is not None:
            axes.plot([metric.low, metric.high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
        is_certain = metric.low is not None
        axes.plot(metric.value, y, "o", color=colour, markersize=7, markerfacecolor=colour if is_certain else "none")
        number = format_difference(metric.value) if sign else format_number(metric.value)
        position = axes.get_yaxis_transform()
        axes.text(1.02, y, number, transform=position, va="center", color=colour, fontsize=TYPE["small"])
    axes.set_ylim(len(metrics) - 0.5, -0.5)
    axes.grid(axis="x", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.06)


def _name_rows(axes: Axes, rows: Sequence[IntervalRow]) -> None:
    names = [shorten(row.name) + (f"  {row.note}" if row.note else "") for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for text, row in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_color(_INK)
        text.set_fontweight("bold" if row.is_model else "normal")


# Confusions


class _CellStyle(NamedTuple):
    """How the cells of a confusion matrix look: their size in inches, and what is written in them."""

    size: float
    type: str
    has_share: bool


# By the number of classes up to which they have that style.
_CELL_STYLES = {
    3: _CellStyle(0.95, "label", has_share=True),
    6: _CellStyle(0.75, "label", has_share=True),
    10: _CellStyle(0.62, "small", has_share=True),
    16: _CellStyle(0.45, "small", has_share=False),
    30: _CellStyle(0.3, "tiny", has_share=False),
}


def draw_confusion(counts: NDArray[np.int64], classes: Sequence[str]) -> Markup:
    """Draw a confusion matrix: counts, on shades of their share of the true class.

    Args:
        counts: How often each class was predicted for each true class, (true, predicted).
        classes: Names of the classes, at most 30.
    """
    style = next(style for most, style in _CELL_STYLES.items() if len(classes) <= most)
    side, longest = len(classes) * style.size, max(len(shorten(name)) for name in classes) * _LETTER_WIDTH
    width, height = side + longest + 1.2, side + (0.7 * longest if _is_narrow(classes) else 0) + 0.6
    with inline_svg(max(width, _MIN_WIDTH), height) as inline:
        axes = inline.figure.subplots()
        axes.set_anchor("W")
        for (row, column), count in np.ndenumerate(counts):
            if count or row == column:
                _draw_cell(axes, (row, column), int(count), int(counts[row].sum()), style)
        _frame_matrix(axes, classes, counts.sum(1))
    return inline.markup


def _is_narrow(classes: Sequence[str]) -> bool:
    """Return whether the names of the columns have no room beside one another."""
    return max(map(len, classes)) * len(classes) > 40


def _draw_cell(axes: Axes, place: tuple[int, int], count: int, total: int, style: _CellStyle) -> None:
    (row, column), share = place, count / max(total, 1)
    colour = _RIGHT if row == column else _WRONG
    if count:
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=share, linewidth=0))
    text = f"{count:,}" if count < 10_000 else f"{count / 1000:,.0f}k"
    if style.has_share and count:
        text += f"\n{format_percent(share)}"
    ink = _INK if count else _MUTED
    label = axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=TYPE[style.type])
    label.set_in_layout(False)  # nine hundred of them took most of the time of a figure


def _frame_matrix(axes: Axes, classes: Sequence[str], totals: NDArray[np.int64]) -> None:
    num = len(classes)
    names = [shorten(name) for name in classes]
    axes.set(xlim=(-0.5, num - 0.5), ylim=(num - 0.5, -0.5), aspect="equal")
    axes.set_xticks(range(num), names)
    axes.set_yticks(range(num), [f"{name} (n = {total:,})" for name, total in zip(names, totals, strict=True)])
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    if _is_narrow(classes):
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="left", rotation_mode="anchor")
    axes.xaxis.set_label_position("top")
    axes.set(xlabel="predicted class", ylabel="true class")
    for text, total in zip(axes.get_yticklabels(), totals, strict=True):
        text.set_color(_INK if total else _MUTED)
    for side in axes.spines.values():
        side.set_visible(False)
    for edge in np.arange(num + 1) - 0.5:
        axes.plot([edge, edge], [-0.5, num - 0.5], color=_RULE, linewidth=0.6, zorder=0, clip_on=False)
        axes.plot([-0.5, num - 0.5], [edge, edge], color=_RULE, linewidth=0.6, zorder=0, clip_on=False)


# Values


def draw_scatter(
    predicted: NDArray[np.floating],
    measured: NDArray[np.floating],
    means: Sequence[tuple[float, MetricWithInterval]] = (),
) -> Markup:
    """Draw measured against predicted values, (n,) each and in the same units; many as their density.

    Some predicted values, `means`, have the mean of the measured ones beside them, with its interval.
    """
    with inline_svg(5.4, 4.9) as inline:
        axes = inline.figure.subplots()
        if len(predicted) > _MAX_POINTS:
            _draw_density(axes, predicted, measured)
        else:
            axes.plot(predicted, measured, "o", color=_ACCENT, alpha=0.45, markersize=4, markeredgewidth=0)
        ends = [float(min(measured.min(), predicted.min())), float(max(measured.max(), predicted.max()))]
        axes.plot(ends, ends, color=_GREY, linewidth=1, linestyle="--", label="prediction = measurement")
        if means:
            _draw_means(axes, means)
        axes.set(xlabel="predicted", ylabel="measured")
        axes.legend(loc="upper left")
    return inline.markup


def _draw_density(axes: Axes, x: NDArray[np.floating], y: NDArray[np.floating]) -> None:
    """Shade the cells of a grid by how many points are in them, on a logarithmic scale."""
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=_NUM_CELLS)
    levels = np.ceil(np.log1p(counts) / np.log1p(counts.max()) * _NUM_LEVELS)
    for level in range(1, _NUM_LEVELS + 1):
        cells = [
            Path([(x_edges[i + a], y_edges[j + b]) for a, b in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))], closed=True)
            for i, j in np.argwhere(levels == level)
        ]
        if cells:
            outline = Path.make_compound_path(*cells)
            axes.add_patch(PathPatch(outline, facecolor=_ACCENT, alpha=level / _NUM_LEVELS, linewidth=0))


def _draw_means(axes: Axes, means: Sequence[tuple[float, MetricWithInterval]]) -> None:
    for predicted, mean in means:
        if mean.low is not None and mean.high is not None:
            axes.plot([predicted] * 2, [mean.low, mean.high], color=_CONTRAST, linewidth=2, solid_capstyle="butt")
    points = np.array([(predicted, mean.value) for predicted, mean in means], float).T
    axes.plot(*points, "o", color=_CONTRAST, markersize=6, label="mean, with 95 % interval")


# Training


def draw_learning(
    reports: Sequence[Mapping[str, Any]], *, frozen_loss: float | None = None, kept_step: int | None = None
) -> Markup:
    """Draw the loss of fine-tuning against its steps, from the lines of `metrics.jsonl`.

    Args:
        reports: Lines of `metrics.jsonl`.
        frozen_loss: Validation loss of the frozen encoder, a dashed line; None for no line.
        kept_step: Step whose weights were kept, which has a ring; None for no ring.
    """
    with inline_svg(_WIDTH, 3.5) as inline:
        axes = inline.figure.subplots()
        trained = curve(reports, "step", "train_loss")
        axes.plot(*thinned(trained), color=_ACCENT, alpha=0.25, linewidth=0.8)
        if trained.size:
            smooth = np.stack([trained[0], running_mean(trained[1])])
            axes.plot(*thinned(smooth), color=_ACCENT, label="training (running mean)")
        steps, losses = curve(reports, "step", "valid_loss")
        axes.plot(steps, losses, "o-", color=_CONTRAST, markersize=5, label="validation, after each epoch")
        if frozen_loss is not None:
            axes.axhline(frozen_loss, color=_GREY, linestyle="--", linewidth=1.2, label="validation, frozen encoder")
        kept = {**dict(zip(steps, losses, strict=True)), **({} if frozen_loss is None else {0: frozen_loss})}
        if kept_step is not None and kept_step in kept:
            ring = axes.plot(kept_step, kept[kept_step], "o", color=_CONTRAST, fillstyle="none", label="kept")
            ring[0].set(markersize=13, linestyle="none", clip_on=False)
        axes.set(xlabel="step of the training", ylabel="loss")
        axes.grid(axis="y", linewidth=0.6)
        axes.legend()
    return inline.markup
