"""HTML pages of one file each, which open from disk without a network. The text in them is untrusted."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from protembed._version import __version__
from protembed.report.design import COLOURS
from protembed.report.table import Prose, Table
from protembed.text import printable

TEMPLATES = Path(__file__).with_name("templates")
# The script of every page; its functions are also those that further scripts use.
_PAGE_SCRIPT = "page.js"


@dataclass(frozen=True, kw_only=True)
class Card:
    """One of the three or four numbers that matter most on a page."""

    name: str
    value: str
    note: Prose = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture with its caption.

    Attributes:
        picture: Inline SVG of `inline_svg`, or an image element.
        caption: Explanation for a reader who is no specialist.
        description: What the picture shows, with the finding, for readers who cannot see it.
        title: Title above the picture.
    """

    picture: Markup
    caption: Prose
    description: str
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Details:
    """A part of a section that is shown on request, and printed."""

    title: str
    body: Sequence["Element"]


@dataclass(frozen=True, kw_only=True)
class Widget:
    """An interactive part of a page: a template of `report/templates`; the scripts that move it are those of the page.

    Attributes:
        values: Values that the template uses.
    """

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)


Element = Prose | Figure | Table | Details | Widget


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page that its table of contents lists."""

    title: str
    body: Sequence[Element]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page: what was done, what was found in two sentences, the numbers that matter, and the sections.

    Attributes:
        title: Title of the page and of its tab.
        command: Command of protembed that made the page, such as `finetune`.
        facts: What was run on what, by name, such as the command line, the model and the input.
        summary: Sentences that say what can be seen, without any term of the trade.
        notes: Notes and warnings about the data, at the end.
        scripts: Scripts of `report/templates`, in their order.
        data: What the scripts read, as JSON can hold it.
    """

    title: str
    command: str
    facts: Mapping[str, str]
    summary: Sequence[Prose]
    cards: Sequence[Card]
    sections: Sequence[Section]
    notes: Sequence[Prose] = ()
    scripts: Sequence[str] = ()
    data: Any = None


def render_page(page: Page) -> str:
    """Render a page as HTML that needs no other file and no network; the same bytes for the same page."""
    script = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in (_PAGE_SCRIPT, *page.scripts))
    return _ENVIRONMENT.get_template("page.html").render(
        page=page,
        version=__version__,
        colours=COLOURS,
        data=None if page.data is None else script_data(page.data),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def script_data(value: object) -> Markup:
    r"""Format a value as JSON that is safe inside a script element: nothing in it can end the element or begin another.

    >>> print(script_data({"id": "</script>&"}))
    {"id":"\u003c/script\u003e\u0026"}
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII, so U+2028 and U+2029 are escaped too
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


# Templates


def _escape_controls(value: Any) -> Any:
    """Escape characters that reverse the reading direction or control a terminal; Markup is trusted and unchanged."""
    return printable(value) if type(value) is str else value


def _prose(text: Prose) -> Markup:
    """Escape sentences, show what stands between backticks as code, and break no line before a percent sign.

    >>> print(_prose("Use `--region` & look"))
    Use <code>--region</code> &amp; look
    """
    escaped = re.sub(r"(?<=\d) %", "&nbsp;%", str(escape(printable(text))))
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped))


def _slug(text: str) -> str:
    """Make an anchor or a file name of a title.

    >>> _slug("Where it fails: by length (residues)")
    'where-it-fails-by-length-residues'
    """
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def _number_data(number: float | None) -> str:
    return "" if number is None else f"{number:.9g}"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_escape_controls,
)
_ENVIRONMENT.filters |= {"prose": _prose, "slug": _slug, "number_data": _number_data}
_ENVIRONMENT.tests |= {
    kind.__name__.lower(): lambda value, kind=kind: isinstance(value, kind) for kind in (Figure, Table, Details, Widget)
}
