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
from numpy.typing import NDArray

from protembed.evaluation.metrics import confusion_matrix
from protembed.io.writing import atomic_path
from protembed.report.curves import curve, running_mean
from protembed.report.design import COLOURS, TYPE
from protembed.text import printable

_BLUE, _ORANGE, _GREY = (COLOURS[name].light for name in ("accent", "contrast", "grey"))
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


def _draw_training_loss(axes: Axes, x: NDArray[np.float64], losses: NDArray[np.float64]) -> None:
    """Draw the loss of each step (thin), and its running mean, both (steps,)."""
    axes.plot(x, losses, color=_BLUE, alpha=0.25, linewidth=0.8)
    if len(losses):
        axes.plot(x, running_mean(losses), color=_BLUE, label="training (running mean)")


def draw_learning(reports: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw the loss of fine-tuning against its steps, from the lines of `metrics.jsonl`, as PNG.

    A ring marks the lowest validation loss.
    """
    figure = _new_figure(width=6, height=3.2)
    axes = figure.subplots()
    _draw_training_loss(axes, *curve(reports, "step", "train_loss"))
    steps, losses = curve(reports, "step", "valid_loss")
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
