"""Figures of the vectors of proteins: their norms, the cosines of pairs, and the directions in which they vary."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from numpy.typing import NDArray

from protembed.report.comparison_figures import shorten
from protembed.report.design import COLOURS, SCALES, TYPE
from protembed.report.figures import inline_svg
from protembed.text import format_percent

_ACCENT, _CONTRAST, _GREY, _INK, _SURFACE = (
    COLOURS[name].light for name in ("accent", "contrast", "grey", "ink", "surface")
)
_WIDTH = 6.8
# Amino acids by their side chains, and the colour of each kind.
_KINDS = {
    "hydrophobic": ("AVILMCFWY", COLOURS["third"].light),
    "polar, glycine, proline": ("STNQGP", COLOURS["grey"].light),
    "positive": ("KRH", COLOURS["accent"].light),
    "negative": ("DE", COLOURS["contrast"].light),
    "non-standard": ("XBZUO", COLOURS["fourth"].light),
}
# More points would lie on one another, and make the page heavy.
_MAX_POINTS = 1000
_MAX_NAME = 24
_NUM_BINS = 40
# An axis of lengths is logarithmic if the longest is this many times the shortest.
_MIN_LOG_RATIO = 10
_LOG_TICKS = (1, 2, 5)
# The factor by which an axis of lengths goes beyond them.
_MARGIN = 1.1
# Quantiles of the lengths between which the colour changes.
_COLOURED = (0.02, 0.98)


def draw_lengths(num_residues: NDArray[np.int64], window: int) -> Markup:
    """Draw how many proteins have which length, and the length of the model's window where some are close to it.

    Args:
        num_residues: Residues of each protein, (proteins,), int64.
        window: Length of the window, in residues.
    """
    with inline_svg(_WIDTH, 2.5) as inline:
        axes = inline.figure.subplots()
        is_close = num_residues.max() > window / 2
        _use_length_axis(axes, num_residues, at_least=window if is_close else 0)
        spaced = np.geomspace if axes.get_xscale() == "log" else np.linspace
        axes.hist(num_residues, spaced(*axes.get_xlim(), _NUM_BINS + 1).tolist(), histtype="stepfilled", color=_ACCENT)
        if is_close:
            axes.axvline(window, color=_CONTRAST, linestyle="--", linewidth=1.2)
            text, at = f"window: {window:,}", axes.get_xaxis_transform()
            axes.text(window, 1.02, text, transform=at, ha="center", color=_CONTRAST, fontsize=TYPE["small"])
        axes.set_ylabel("proteins")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return inline.markup


def draw_by_length(
    num_residues: NDArray[np.int64],
    values: NDArray[np.float64],
    names: Mapping[int, str],
    *,
    label: str,
    limits: Sequence[float],
) -> Markup:
    """Draw a value of each protein against its length, and how often each value occurs.

    Args:
        num_residues: Residues of each protein, (proteins,), int64.
        values: Value of each protein, (proteins,), float64; NaN where it has none.
        names: Identifiers of the proteins that are ringed, by their index.
        label: What the value is.
        limits: Values at which a line is drawn: beyond it a protein is unusual.
    """
    known = np.flatnonzero(np.isfinite(values))
    with inline_svg(_WIDTH, 3.2) as inline:
        axes, margin = inline.figure.subplots(1, 2, sharey=True, width_ratios=(4, 1))
        shown = np.union1d(known[_thinned(len(known))], np.fromiter(names, np.int64, len(names)))
        axes.plot(num_residues[shown], values[shown], "o", color=_ACCENT, alpha=0.5, ms=_point_size(len(shown)), mew=0)
        _use_length_axis(axes, num_residues[known])
        for index, name in names.items():
            _ring(axes, num_residues[index], values[index], name)
        margin.hist(values[known], _NUM_BINS, orientation="horizontal", histtype="stepfilled", color=_ACCENT)
        margin.set_xlabel("proteins")
        margin.tick_params(labelleft=False)
        bottom, top = axes.get_ylim()
        for limit in limits:
            if bottom < limit < top:
                for part in (axes, margin):
                    part.axhline(limit, color=_CONTRAST, linestyle="--", linewidth=1)
        axes.set_ylabel(label)
    return inline.markup


def draw_cosines(cosines: NDArray[np.float32], centred: NDArray[np.float32]) -> Markup:
    """Draw how often pairs of vectors have which cosine, (pairs,), as stored and after their mean was subtracted."""
    with inline_svg(_WIDTH, 2.6) as inline:
        axes = inline.figure.subplots()
        edges = np.linspace(-1, 1, 81)
        for values, colour, name in ((cosines, _ACCENT, "as stored"), (centred, _CONTRAST, "mean subtracted")):
            shares = np.histogram(values, edges)[0] / max(1, len(values))
            axes.stairs(shares, edges, color=colour, fill=True, alpha=0.25)
            axes.stairs(shares, edges, color=colour, linewidth=1.4, label=name)
        axes.set(xlabel="cosine of a pair", xlim=(-1, 1), ylim=(0, None))
        axes.set_ylabel("share of pairs")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.legend(loc="upper left")
    return inline.markup


def draw_variance(explained: NDArray[np.float64], marks: Mapping[float, int]) -> Markup:
    """Draw the share of the variance in the first components, (components,), float64; mark some shares.

    Args:
        explained: Share of the variance in the first components, ascending to 1.
        marks: Number of components that have a share, by the share.
    """
    with inline_svg(_WIDTH, 2.6) as inline:
        axes = inline.figure.subplots()
        numbers = np.arange(1, len(explained) + 1)
        axes.plot(numbers, np.round(explained, 6), color=_ACCENT)
        for share, number in marks.items():
            axes.plot([number, number, 0.9], [0, share, share], color=_GREY, linewidth=0.8, linestyle=":")
            axes.plot(number, explained[number - 1], "o", color=_ACCENT, markersize=5)
            at = (number, explained[number - 1])
            axes.annotate(f"{number:,}", at, (6, -11), textcoords="offset points", fontsize=TYPE["small"])
        axes.set_xscale("log")
        axes.set(xlabel="principal components", xlim=(0.9, len(explained) * 1.1), ylim=(0, 1.02))
        axes.set_ylabel("share of the variance")
        _use_plain_numbers(axes.xaxis)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return inline.markup


def draw_positions(
    positions: NDArray[np.float64], shares: Sequence[float], num_residues: NDArray[np.int64] | None
) -> Markup:
    """Draw vectors along their first two principal components.

    Args:
        positions: Positions along the two components, (vectors, 2), float64.
        shares: Share of the variance in each of the two.
        num_residues: Residues of the protein of each vector, (vectors,), int64, which colour it; None for one colour.
    """
    with inline_svg(_WIDTH, 4.2) as inline:
        axes = inline.figure.subplots()
        shown = _thinned(len(positions))
        (x, y), area = np.round(positions[shown].T, 6), _point_size(len(shown)) ** 2
        if num_residues is None:
            axes.scatter(x, y, s=area, color=_ACCENT, alpha=0.6, linewidths=0)
        else:
            lengths, colours = num_residues[shown], SCALES["statistic"][0]
            low, high = np.quantile(lengths, _COLOURED)  # so that one very long protein does not take all colours
            norm, clipped = _length_scale(low, high), np.clip(lengths, low, high)
            drawn = axes.scatter(x, y, s=area, c=clipped, cmap=colours, norm=norm, edgecolors=_GREY, linewidths=0.6)
            bar = inline.figure.colorbar(drawn, label="residues", fraction=0.04, pad=0.02, extend="both")
            bar.outline.set_visible(False)
            _use_plain_numbers(bar.ax.yaxis)
        _label_components(axes, shares)
    return inline.markup


def draw_residues(positions: NDArray[np.float64], shares: Sequence[float], letters: str) -> Markup:
    """Draw vectors of residues along their first two principal components, each as the letter of its amino acid.

    Args:
        positions: Positions along the two components, (vectors, 2), float64.
        shares: Share of the variance in each of the two.
        letters: Amino acid of each vector.
    """
    with inline_svg(_WIDTH, 4.6) as inline:
        axes = inline.figure.subplots()
        shown = _thinned(len(positions))
        x, y = np.round(positions[shown].T, 6)
        drawn = np.array(list(letters))[shown]
        for kind, (members, colour) in _KINDS.items():
            for number, letter in enumerate(sorted(set(members) & set(drawn.tolist()))):
                chosen = drawn == letter
                marker = rf"$\mathrm{{{letter}}}$"
                axes.plot(x[chosen], y[chosen], ls="", marker=marker, color=colour, ms=6, mew=0.2)
                if number == 0:
                    axes.plot([], [], "s", color=colour, label=kind)
        axes.legend(loc="best", title="side chain")
        _label_components(axes, shares)
    return inline.markup


def _point_size(number: int) -> float:
    """Choose the diameter of points, which a few must be large enough to be seen, and many small enough to differ.

    >>> _point_size(10), _point_size(5000)
    (7.0, 3.5)
    """
    return min(7.0, max(3.5, 60 / number**0.5)) if number else 7.0


def _label_components(axes: Axes, shares: Sequence[float]) -> None:
    for number, axis in enumerate((axes.xaxis, axes.yaxis)):
        axis.set_label_text(f"component {number + 1} ({format_percent(shares[number])} of the variance)")
    axes.set_aspect("equal", adjustable="datalim")


def _thinned(number: int) -> NDArray[np.int64]:
    """Choose the points that are drawn: all if there are few, else evenly spaced ones."""
    return np.linspace(0, number - 1, min(number, _MAX_POINTS)).astype(np.int64)


def _ring(axes: Axes, x: float, y: float, name: str) -> None:
    """Draw a ring round a point, and its name on the side that has more room."""
    axes.plot(x, y, "o", color=_CONTRAST, fillstyle="none", markersize=8, markeredgewidth=1.2)
    is_right = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[0] > 0.5
    axes.annotate(
        shorten(name, _MAX_NAME),
        (x, y),
        xytext=(-8 if is_right else 8, 0),
        textcoords="offset points",
        ha="right" if is_right else "left",
        va="center",
        fontsize=TYPE["small"],
        color=_INK,
        bbox={"facecolor": _SURFACE, "edgecolor": "none", "pad": 1},  # a line behind it would cross it out
    )


def _use_length_axis(axes: Axes, num_residues: NDArray[np.int64], at_least: int = 0) -> None:
    """Let the horizontal axis show lengths in residues, up to the longest one or further."""
    low, high = max(1, int(num_residues.min())), max(2, int(num_residues.max()), at_least)
    axes.set(xlabel="residues", xscale=_length_scale(low, high), xlim=(low / _MARGIN, high * _MARGIN))
    _use_plain_numbers(axes.xaxis)


def _length_scale(low: int, high: int) -> str:
    # A logarithmic axis that is short has no round numbers to label.
    return "log" if high > _MIN_LOG_RATIO * low else "linear"


def _use_plain_numbers(axis: Axis) -> None:
    """Label an axis with 100, 200 and 500 in place of powers of ten."""
    if axis.get_scale() == "log":
        axis.set_major_locator(LogLocator(subs=_LOG_TICKS, numticks=12))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
