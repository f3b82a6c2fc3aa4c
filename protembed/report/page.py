"""Pages to look at: one HTML file each, which opens from disk without a network. Identifiers in them are hostile."""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from protembed.io.text import format_number, printable


def _as_text(value: Any) -> Any:
    """Keep a text from turning the direction of a page's writing, or from acting on the terminal that shows its source.

    Markup is our own.
    """
    return printable(value) if type(value) is str else value


TEMPLATES = Path(__file__).with_name("templates")

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_as_text,
)
_ENVIRONMENT.filters["number"] = format_number


def render_page(template: str, **values: Any) -> str:
    """Fill a template; whatever a value holds is text, never markup.

    Args:
        template: its name among `report/templates`.
        values: by the names that the template gives them.
    """
    return _ENVIRONMENT.get_template(template).render(**values)


def inline_png(png: bytes) -> Markup:
    """Spell a picture so that it stands in the page itself."""
    return Markup("data:image/png;base64,") + base64.b64encode(png).decode()
