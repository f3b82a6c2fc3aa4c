"""HTML pages of one file each, which open from disk without a network. The text in them is untrusted."""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from protembed.text import format_number, printable

TEMPLATES = Path(__file__).with_name("templates")


def _escape_controls(value: Any) -> Any:
    """Escape characters that reverse the reading direction or control a terminal; Markup is trusted and unchanged."""
    return printable(value) if type(value) is str else value


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_escape_controls,
)
_ENVIRONMENT.filters["number"] = format_number


def render_page(template: str, **values: Any) -> str:
    """Render a template of `report/templates`; all values are inserted as text, never as markup."""
    return _ENVIRONMENT.get_template(template).render(**values)


def inline_png(png: bytes) -> Markup:
    """Encode a PNG as a data URL, which embeds it in the page."""
    return Markup("data:image/png;base64,") + base64.b64encode(png).decode()
