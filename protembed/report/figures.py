"""Figures as PNG or SVG, drawn by matplotlib without a display."""

import hashlib
import io
import re
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cycler import cycler
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from protembed.io.writing import atomic_path
from protembed.report.design import COLOURS, TYPE
from protembed.text import printable

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


def drawable(text: str) -> str:
    r"""Escape dollar signs, which would begin a formula, and characters that matplotlib's font lacks.

    >>> print(drawable("Größe, 5 $, 膜"))
    Größe, 5 \$, \u819c
    """
    escaped = printable(text)
    if not escaped.isascii():
        letters = _font_letters()
        escaped = "".join(letter if ord(letter) in letters else ascii(letter)[1:-1] for letter in escaped)
    return escaped.replace("$", r"\$")


@cache
def _font_letters() -> Set[int]:
    """List the code points of the letters in matplotlib's own font."""
    return get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap().keys()


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
    svg = re.sub(r'.*?<svg [^>]*?width="([\d.]+)pt"', _with_least_width, svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    tags = re.compile(r"<[^>]*>")  # a name that is drawn stands between tags, and may look like style
    referenced = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', "".join(tags.findall(svg))))
    svg = tags.sub(lambda tag: _with_properties(tag[0], referenced), svg)
    # Figures of one page have the same ticks; each names its own, because an id must be unique on a page.
    own = f"s{hashlib.sha256(svg.encode()).hexdigest()[:8]}-"
    svg = tags.sub(lambda tag: re.sub(r'( id="|url\(#|href="#)', rf"\1{own}", tag[0]), svg)
    return re.sub(r"\n\s*", "\n", svg)


def _with_properties(tag: str, referenced: Set[str]) -> str:
    """Give a tag the colours and the font of the page, and its id only if another tag refers to it."""
    tag = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in referenced else "", tag)
    tag = re.sub(r"#[0-9a-f]{6}\b", lambda match: _VARIABLES.get(match[0], match[0]), tag)
    return re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", tag)


def _with_least_width(start: re.Match[str]) -> str:
    """Let a figure shrink to four fifths of its width at most, so that its text can be read on a phone."""
    return f'{start[0][start[0].index("<svg") :]} style="min-width: {0.8 * float(start[1]):g}pt"'


def _new_figure(width: float, height: float, dots_per_inch: int = _DOTS_PER_INCH) -> Figure:
    figure = Figure(figsize=(width, height), dpi=dots_per_inch, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
