"""Figures as PNG or SVG, drawn by matplotlib without a display."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cycler import cycler
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import ArrayLike, NDArray

from protembed.evaluation.metrics import confusion_matrix
from protembed.io.writing import atomic_path
from protembed.report.design import COLOURS, TYPE
from protembed.text import printable

_BLUE, _ORANGE, _GREY, _DARK_GREY = (COLOURS[name].light for name in ("accent", "contrast", "grey", "muted"))
# Sharp on a screen of high resolution.
_DOTS_PER_INCH = 192
# Without the version of matplotlib in its metadata, a figure has the same bytes on every machine.
_METADATA = {"Software": None}
_SVG_METADATA = {"Creator": None, "Date": None}
_STYLE: dict[Any, Any] = {
    "font.size": TYPE["label"],
    "axes.titlesize": TYPE["title"],
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": TYPE["label"],
    "axes.labelcolor": COLOURS["muted"].light,
    "axes.edgecolor": COLOURS["grey"].light,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=[COLOURS[name].light for name in ("accent", "contrast", "third", "fourth")]),
    "grid.color": COLOURS["rule"].light,
    "legend.edgecolor": "none",
    "legend.fontsize": TYPE["small"],
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "protembed",
    "text.color": COLOURS["ink"].light,
    "xtick.color": COLOURS["grey"].light,
    "xtick.labelcolor": COLOURS["muted"].light,
    "xtick.labelsize": TYPE["small"],
    "ytick.color": COLOURS["grey"].light,
    "ytick.labelcolor": COLOURS["muted"].light,
    "ytick.labelsize": TYPE["small"],
}
# In a page, the colours of the light theme become custom properties, which a dark page sets otherwise.
_VARIABLES = {colour.light: f"var(--{name})" for name, colour in COLOURS.items()}
_MAX_CLASSES_WITH_NUMBERS = 12
# The loss of a diverging run is cut off here; a uniform prediction has a loss of 3.
_MAX_LOSS = 20.0


def draw_training(
    path: Path,
    reports: Sequence[Mapping[str, Any]],
    gains: Mapping[str, Mapping[str, float | None]] | None = None,
    *,
    title: str = "",
) -> None:
    """Draw loss, perplexity and learning rate against residues seen, with the validation sets and the baselines.

    The loss of the training is that over the targets behind `<mask>`, as in validation. The loss over all targets is
    lower, because some of them remain visible, and would look like overfitting beside that of the validation.

    Args:
        path: PNG file to write.
        reports: Lines of `metrics.jsonl`; those of earlier versions have the loss over all targets alone.
        gains: Gain of the best model over each baseline, nats per masked residue: `value`, `low` and `high`, the last
            two None without an interval.
        title: What was trained on what.
    """
    with figure_file(path, width=7, height=5, dots_per_inch=_DOTS_PER_INCH) as figure:
        losses, rates = figure.subplots(2, sharex=True, height_ratios=(4, 1))
        residues, of_steps = _curve(reports, "residues", _training_key(reports))
        _draw_training_loss(losses, residues, np.minimum(of_steps, _MAX_LOSS))
        validated = [report for report in reports if "valid_loss" in report]
        if validated:
            _draw_validations(losses, validated, gains or {})
        losses.set_title(drawable(title), loc="left", fontsize="medium")
        losses.set_ylabel("loss (nats per masked residue)")
        losses.secondary_yaxis("right", functions=(_exp, _log)).set_ylabel("perplexity")
        if losses.get_legend_handles_labels()[0]:
            losses.legend(edgecolor="none", framealpha=0.9)  # opaque enough that lines behind do not cross the text
        rates.plot(*_curve(reports, "residues", "learning_rate"), color=_GREY, linewidth=1)
        rates.set(xlabel="residues seen", ylim=(0, None))
        rates.set_ylabel("learning rate", fontsize="small")
        rates.xaxis.set_major_formatter(EngFormatter())
        figure.supxlabel(_caption(reports), fontsize="x-small", color=_DARK_GREY, wrap=True)


def _draw_training_loss(axes: Axes, x: NDArray[np.float64], losses: NDArray[np.float64]) -> None:
    """Draw the loss of each step (thin), and its running mean, both (steps,)."""
    axes.plot(x, losses, color=_BLUE, alpha=0.25, linewidth=0.8)
    if len(losses):
        axes.plot(x, _smooth(losses), color=_BLUE, label="training (running mean)")


def _training_key(reports: Sequence[Mapping[str, Any]]) -> str:
    is_known = any(report.get("mask_token_loss") is not None for report in reports)
    return "mask_token_loss" if is_known else "train_loss"


def _caption(reports: Sequence[Mapping[str, Any]]) -> str:
    if _training_key(reports) == "mask_token_loss":
        return (
            "Both losses are over residues that the model sees as <mask>, so they can be compared. The validation "
            "proteins are never trained on. The unigram model knows only how frequent each amino acid is."
        )
    return (
        "The training loss is over all targets, of which the model sees some as residues, and is therefore lower than "
        "the validation loss, in which all are behind <mask>. A gap between the two does not mean overfitting."
    )


def _draw_validations(
    axes: Axes, validated: Sequence[Mapping[str, Any]], gains: Mapping[str, Mapping[str, float | None]]
) -> None:
    """Draw a curve for each validation set, and a line for each baseline on the first.

    The bigram model has none, because it would lie on that of the unigram model.
    """
    last = validated[-1]
    for key, marker in zip((key for key in last if key.endswith("valid_loss")), "osD^v", strict=False):
        label = key.removesuffix("valid_loss").rstrip("/") or "validation"
        axes.plot(*_curve(validated, "residues", key), f"{marker}-", color=_ORANGE, label=drawable(label))
    for name, style in (("unigram", "--"), ("compared", "-.")):
        if f"{name}_perplexity" in last:
            loss = float(np.log(last[f"{name}_perplexity"]))
            label = f"{name} model{_format_gain(gains.get(name, {}))}"
            axes.axhline(loss, color=_GREY, linestyle=style, linewidth=1, label=label)


def _format_gain(gain: Mapping[str, float | None]) -> str:
    value, low, high = (gain.get(name) for name in ("value", "low", "high"))
    return "" if value is None or low is None else f", gain {value:.3f} [{low:.3f}, {high:.3f}]"


def draw_learning(reports: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw the loss of fine-tuning against its steps, from the lines of `metrics.jsonl`, as PNG.

    A ring marks the lowest validation loss.
    """
    figure = _new_figure(width=6, height=3.2)
    axes = figure.subplots()
    _draw_training_loss(axes, *_curve(reports, "step", "train_loss"))
    steps, losses = _curve(reports, "step", "valid_loss")
    axes.plot(steps, losses, "o-", color=_ORANGE, label="validation")
    if len(losses):
        best = losses.argmin()
        axes.plot(steps[best], losses[best], "o", color=_ORANGE, fillstyle="none", markersize=13, label="lowest")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend(edgecolor="none", framealpha=0.9)
    return _as_png(figure)


def draw_confusion(truth: NDArray[np.int64], probabilities: NDArray[np.floating], classes: Sequence[str]) -> bytes:
    """Draw the confusion matrix, normalised over the predicted classes of each true class, as PNG.

    The first two arguments are those of `confusion_matrix`.
    """
    counts = confusion_matrix(truth, probabilities)
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(2.5 + 0.35 * len(classes), 12)
    figure = _new_figure(width=side + 0.6, height=side)
    axes = figure.subplots()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    names = [drawable(name)[:24] for name in classes]
    axes.set_xticks(range(len(classes)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(classes)), names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    if len(classes) <= _MAX_CLASSES_WITH_NUMBERS:
        for (row, column), fraction in np.ndenumerate(fractions):
            color = "white" if fraction > 0.5 else "black"
            axes.text(column, row, f"{fraction:.2f}", ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(image, shrink=0.8)
    return _as_png(figure)


def draw_scatter(truth: NDArray[np.floating], predicted: NDArray[np.floating]) -> bytes:
    """Draw predicted against measured values, (n,) each and in the same units, as PNG."""
    figure = _new_figure(width=4.6, height=4.4)
    axes = figure.subplots()
    axes.plot(truth, predicted, ".", color=_BLUE, alpha=0.35, markersize=3, rasterized=True)
    ends = [float(min(truth.min(), predicted.min())), float(max(truth.max(), predicted.max()))]
    axes.plot(ends, ends, color=_GREY, linewidth=1)
    axes.set(xlabel="measured", ylabel="predicted")
    return _as_png(figure)


def drawable(text: str) -> str:
    """Escape dollar signs, which would begin a formula, and characters that matplotlib's font lacks."""
    escaped = printable(text) if text.isascii() else ascii(text)[1:-1]
    return escaped.replace("$", r"\$")


@contextmanager
def figure_file(path: Path, width: float, height: float, *, dots_per_inch: int = _DOTS_PER_INCH) -> Iterator[Figure]:
    """Yield a figure of a size in inches, and write it as PNG or SVG unless an error occurs."""
    with rc_context(_STYLE):
        figure = _new_figure(width, height, dots_per_inch)
        yield figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, metadata=_SVG_METADATA if path.suffix == ".svg" else _METADATA)


@dataclass
class InlineFigure:
    """A figure whose SVG stands within a page: its colours follow the theme of the page, and its text is text.

    Attributes:
        figure: Figure to draw on, in the colours of the light theme.
        markup: SVG element of what was drawn; empty as long as the figure is being drawn.
    """

    figure: Figure
    markup: Markup = field(default_factory=Markup)


@contextmanager
def inline_svg(width: float, height: float) -> Iterator[InlineFigure]:
    """Yield a figure of a size in inches for a page; its `markup` is complete when the context ends.

    >>> with inline_svg(4, 3) as inline:
    ...     _ = inline.figure.subplots().plot([1, 2], color=COLOURS["accent"].light)
    >>> inline.markup.startswith("<svg"), "var(--accent)" in inline.markup
    (True, True)
    """
    with rc_context(_STYLE | {"legend.framealpha": 0}):
        inline, stream = InlineFigure(_new_figure(width, height)), io.StringIO()
        yield inline
        inline.figure.savefig(stream, format="svg", transparent=True, metadata=_SVG_METADATA)
    inline.markup = Markup(_as_inline(stream.getvalue()))


def _as_inline(svg: str) -> str:
    """Turn matplotlib's SVG document into an element that shares its page with others and takes its colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    referenced = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in referenced else "", svg)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda match: _VARIABLES.get(match[0], match[0]), svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", svg)
    return re.sub(r"\n\s*", "\n", svg)


def _new_figure(width: float, height: float, dots_per_inch: int = _DOTS_PER_INCH) -> Figure:
    figure = Figure(figsize=(width, height), dpi=dots_per_inch, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _as_png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata=_METADATA)
    return stream.getvalue()


def _curve(reports: Sequence[Mapping[str, Any]], x: str, y: str) -> NDArray[np.float64]:
    """Collect two values of the reports in which the second is known, (2, reports)."""
    points = [(report[x], report[y]) for report in reports if report.get(y) is not None]
    return np.array(points, np.float64).reshape(-1, 2).T


def _smooth(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    span = max(1, len(losses) // 20)
    sums = np.cumsum(np.concatenate([[0.0], losses]))
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(ends - span, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def _exp(loss: ArrayLike) -> NDArray[np.float64]:
    # matplotlib converts values in the margins too.
    return np.exp(np.minimum(np.asarray(loss, dtype=np.float64), 10 * _MAX_LOSS))


def _log(perplexity: ArrayLike) -> NDArray[np.float64]:
    return np.log(np.maximum(np.asarray(perplexity, dtype=np.float64), 1e-9))
