"""Figures of a pretraining, from the lines of its `metrics.jsonl`: losses, learning rate, gradients and speed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from protembed.evaluation.intervals import MetricWithInterval
from protembed.report.curves import Values, curve, evenly, running_mean, thinned
from protembed.report.design import COLOURS, TYPE
from protembed.report.figures import drawable, figure_file, inline_svg
from protembed.text import format_decimals

Reports = Sequence[Mapping[str, Any]]
Gains = Mapping[str, MetricWithInterval]

_BLUE, _GREY, _MUTED = (COLOURS[name].light for name in ("accent", "grey", "muted"))
# Colours and markers of the validation sets, in their order.
_SETS = tuple(
    (COLOURS[name].light, marker) for name, marker in zip(("contrast", "third", "fourth"), "osD", strict=True)
)
_WIDTH = 7.5  # inches; as wide as the text of a page
_LOSS_LABEL = "loss (nats per masked residue)"
# The loss of a diverging run is cut off here; a uniform prediction has a loss of 3.
_MAX_LOSS = 20.0
# The first steps, in which the loss falls from that of a random model, do not decide what is shown of the rest.
_LEFT_OUT_FRACTION = 0.02
_MIN_LOSS_SPAN = 0.1
# Where losses span more, the perplexities beside them are powers of ten.
_WIDE_LOSS_SPAN = 4.0


def draw_training(
    path: Path, reports: Reports, gains: Gains | None = None, *, title: str = "", kept_step: int | None = None
) -> None:
    """Draw losses, perplexity and learning rate against residues seen, with validation sets and baselines, as a file.

    Args:
        path: PNG or SVG file to write.
        reports: Lines of `metrics.jsonl`; those of earlier versions have the loss over all targets alone.
        gains: Gain of the best model over each baseline, nats per masked residue.
        title: What was trained on what.
        kept_step: Step whose model was kept, which has a ring; None for none.
    """
    with figure_file(path, width=_WIDTH, height=5) as figure:
        losses, rates = figure.subplots(2, sharex=True, height_ratios=(4, 1))
        _draw_losses(losses, reports, gains or {}, kept_step)
        figure.suptitle(drawable(title), x=0.01, ha="left", size=TYPE["title"], weight="bold")
        _draw_rates(rates, reports)
        rates.set_xlabel("residues seen")
        figure.supxlabel(losses_caption(reports), x=0.01, ha="left", size=TYPE["small"], color=_MUTED, wrap=True)


def losses_svg(reports: Reports, gains: Gains, kept_step: int | None) -> Markup:
    """Draw losses and perplexity against residues seen for a page; the arguments are those of `draw_training`."""
    with inline_svg(_WIDTH, 3.7) as inline:
        axes = inline.figure.subplots()
        _draw_losses(axes, reports, gains, kept_step)
        axes.set_xlabel("residues seen")
    return inline.markup


def rates_svg(reports: Reports, clip_norm: float | None) -> Markup:
    """Draw the learning rate and the norm of the gradient, which is clipped at a norm unless that is None."""
    with inline_svg(_WIDTH, 3.3) as inline:
        rates, norms = inline.figure.subplots(2, sharex=True)
        _draw_rates(rates, reports)
        _draw_noisy(norms, curve(reports, "residues", "grad_norm"))
        if clip_norm is not None:
            norms.axhline(clip_norm, color=_GREY, linestyle="--", linewidth=1, label=f"clipped to {clip_norm:g}")
            norms.legend()
        norms.set(ylabel="gradient norm", xlabel="residues seen", ylim=(0, None))
    return inline.markup


def speed_svg(reports: Reports) -> Markup:
    """Draw how many residues were processed per second."""
    with inline_svg(_WIDTH, 1.9) as inline:
        axes = inline.figure.subplots()
        _draw_noisy(axes, curve(reports, "residues", "residues_per_second"))
        axes.set(ylabel="residues per second", xlabel="residues seen", ylim=(0, None))
        axes.yaxis.set_major_formatter(EngFormatter())
    return inline.markup


def has_mask_token_loss(reports: Reports) -> bool:
    """Return whether the training loss is that behind `<mask>`, which earlier versions did not log."""
    return any(report.get("mask_token_loss") is not None for report in reports)


def losses_caption(reports: Reports) -> str:
    """Explain how the losses compare."""
    if has_mask_token_loss(reports):
        return (
            "Both losses are over residues that the model sees as <mask>, so they can be compared. The validation "
            "proteins are never trained on. The unigram model knows only how frequent each amino acid is."
        )
    return (
        "The training loss is over all targets, of which the model sees some as residues, and is therefore lower than "
        "the validation loss, in which all are behind <mask>. A gap between the two does not mean overfitting."
    )


def draw_training_loss(axes: Axes, points: Values) -> None:
    """Draw the loss of each step (thin), and its running mean; the points are (2, steps)."""
    _draw_noisy(axes, points, label="training (running mean)")


def _draw_noisy(axes: Axes, points: Values, label: str | None = None) -> None:
    axes.plot(*thinned(points), color=_BLUE, alpha=0.25, linewidth=0.8)
    if points.shape[1]:
        marker = "o" if points.shape[1] == 1 else ""  # one step alone is no line
        smooth = np.stack([points[0], running_mean(points[1])])
        axes.plot(*evenly(smooth), color=_BLUE, marker=marker, label=label)
    axes.xaxis.set_major_formatter(EngFormatter())


def _draw_rates(axes: Axes, reports: Reports) -> None:
    axes.plot(*evenly(curve(reports, "residues", "learning_rate")), color=_BLUE, linewidth=1.2)
    axes.set(ylabel="learning rate", ylim=(0, None))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(EngFormatter())


def _draw_losses(axes: Axes, reports: Reports, gains: Gains, kept_step: int | None) -> None:
    key = "mask_token_loss" if has_mask_token_loss(reports) else "train_loss"
    training = np.minimum(curve(reports, "residues", key), [[np.inf], [_MAX_LOSS]])
    draw_training_loss(axes, training)
    validated = [report for report in reports if "valid_loss" in report]
    shown = [running_mean(training[1])[int(_LEFT_OUT_FRACTION * training.shape[1]) :]]
    if validated:
        shown += [*_draw_validations(axes, validated, kept_step), _draw_baselines(axes, validated[-1], gains)]
    _limit_losses(axes, np.concatenate(shown))
    axes.set_ylabel(_LOSS_LABEL)
    right = axes.secondary_yaxis("right", functions=(_exp, _log))
    right.set_ylabel("perplexity")
    if np.ptp(axes.get_ylim()) > _WIDE_LOSS_SPAN:
        right.yaxis.set_major_locator(LogLocator())
        right.yaxis.set_major_formatter("{x:g}")
    if axes.get_legend_handles_labels()[0]:
        # Above the axes, where no line crosses the text.
        legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, markerscale=0.7, borderaxespad=0.2)
        legend.set_frame_on(False)


def _draw_validations(axes: Axes, validated: Reports, kept_step: int | None) -> list[NDArray[np.float64]]:
    """Draw a curve for each validation set, and a ring around the model that was kept; return the losses."""
    keys = [key for key in validated[-1] if key.endswith("valid_loss")]
    drawn = []
    for number, key in enumerate(keys):
        color, marker = _SETS[number % len(_SETS)]
        points = np.minimum(curve(validated, "residues", key), [[np.inf], [_MAX_LOSS]])
        name = key.removesuffix("valid_loss").rstrip("/")
        label = f"validation on {name}" if name else "validation"
        size = 5 if points.shape[1] <= 50 else 0
        axes.plot(*points, color=color, marker=marker, markersize=size, label=drawable(label))
        drawn.append(points[1])
    kept = next((report for report in validated if report["step"] == kept_step), None)
    if kept is not None:
        point = (kept["residues"], min(kept["valid_loss"], _MAX_LOSS))
        axes.plot(
            *point, "o", color=_SETS[0][0], fillstyle="none", markersize=13, label=f"kept model, step {kept_step:,}"
        )
    return drawn


def _draw_baselines(axes: Axes, last: Mapping[str, Any], gains: Gains) -> NDArray[np.float64]:
    """Draw a line for each baseline on the first validation set, and return the losses.

    The bigram model has none, because it would lie on that of the unigram model.
    """
    losses = []
    for name, style in (("unigram", "--"), ("compared", "-.")):
        if f"{name}_perplexity" in last:
            losses.append(float(np.log(last[f"{name}_perplexity"])))
            label = f"{name} model{_format_gain(gains.get(name))}"
            axes.axhline(losses[-1], color=_GREY, linestyle=style, linewidth=1.2, label=label)
    return np.array(losses, np.float64)


def _limit_losses(axes: Axes, losses: NDArray[np.float64]) -> None:
    """Show all of these losses, and only a part of the noise of single steps."""
    if not len(losses):
        return
    low, high = float(losses.min()), float(losses.max())
    margin = max(0.25 * (high - low), (_MIN_LOSS_SPAN - (high - low)) / 2)
    axes.set_ylim(low - margin, high + margin)


def _format_gain(gain: MetricWithInterval | None) -> str:
    if gain is None or gain.value is None or gain.low is None or gain.high is None:
        return ""
    value, low, high = (format_decimals(number, 3) for number in (gain.value, gain.low, gain.high))
    return f", gain {value} ({low} to {high})"


def _exp(loss: ArrayLike) -> NDArray[np.float64]:
    # matplotlib converts values in the margins too.
    return np.exp(np.minimum(np.asarray(loss, dtype=np.float64), 10 * _MAX_LOSS))


def _log(perplexity: ArrayLike) -> NDArray[np.float64]:
    return np.log(np.maximum(np.asarray(perplexity, dtype=np.float64), 1e-9))
