"""The page of `inspect-attention`: the maps and statistics of all heads, contacts and tables, in one HTML file."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from protembed.attention.pictures import BYTES_PER_PROTEIN, DisplayedProtein, encode_contacts, encode_map
from protembed.report.page import TEMPLATES, render_template, script_data
from protembed.text import pluralize, printable

_COLOURS = {"attention": "magma_r", "statistic": "viridis", "contact": "Blues"}
_NUM_STOPS = 17
_SCRIPTS = ("attention_drawing.js", "attention_view.js", "attention.js")

Cell = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that the reader of the page can sort.

    Attributes:
        rows: Cells of each row; None for an empty cell.
        note: Explanation below the title.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


class AttentionPage:
    """Collects proteins one at a time, holding only their encoded pictures, and renders the page.

    Attributes:
        layers: Numbers of the displayed layers, from 1.
        heads: Numbers of the displayed heads, from 1.
    """

    def __init__(self, layers: Sequence[int], heads: Sequence[int]) -> None:
        self.layers, self.heads = list(layers), list(heads)
        self._proteins: list[dict[str, Any]] = []

    @property
    def num_proteins(self) -> int:
        """Number of added proteins."""
        return len(self._proteins)

    def add(self, protein: DisplayedProtein) -> None:
        """Add a protein to the page; its arrays are not held."""
        num_blocks = -(-len(protein.sequence) // protein.block)
        assert protein.maps.shape == (len(self.layers), len(self.heads), num_blocks, num_blocks)
        num_bytes = BYTES_PER_PROTEIN // (len(self.layers) * len(self.heads))
        maps = [encode_map(weights, num_bytes) for layer in protein.maps for weights in layer]
        self._proteins.append(
            {
                # Characters that reverse the reading direction would make one identifier look like another.
                "id": printable(protein.id),
                "sequence": protein.sequence,
                "first": protein.first_residue,
                "block": protein.block,
                "maps": maps,
                "contacts": encode_contacts(protein.contacts, protein.truth),
                "sites": [
                    {"label": printable(label), "residues": list(residues)}
                    for label, residues in protein.sites.items()
                    if residues
                ],
            }
        )

    def render(self, statistics: Mapping[str, NDArray[np.floating]], tables: Sequence[Table], version: str) -> str:
        """Render the page of at least one protein.

        Args:
            statistics: Values for the displayed layers and heads by the name on the page, (layers, heads); NaN where a
                value is undefined.
            tables: Tables below the pictures, in this order.
            version: Version of protembed.

        Returns:
            HTML that needs no other file and no network; the same bytes for the same values.
        """
        assert self._proteins, "a page shows at least one protein"
        stops = np.linspace(0, 1, _NUM_STOPS)
        data = {
            "layers": self.layers,
            "heads": self.heads,
            "proteins": self._proteins,
            "statistics": [{"name": name, "values": _json_values(values)} for name, values in statistics.items()],
            "colours": {use: list(map(to_hex, colormaps[name](stops))) for use, name in _COLOURS.items()},
        }
        numbers = {"protein": len(self._proteins), "layer": len(self.layers), "head": len(self.heads)}
        sizes = [pluralize(number, noun) for noun, number in numbers.items()]
        script = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in _SCRIPTS)
        return render_template(
            "attention.html",
            version=version,
            summary=", ".join(sizes),
            has_contacts=any(protein["contacts"] for protein in self._proteins),
            data=script_data(data),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            tables=[_format_table(table) for table in tables],
        )


def _json_values(values: NDArray[np.floating]) -> list[list[float | None]]:
    return [[float(f"{value:.6g}") if np.isfinite(value) else None for value in row] for row in values]


def _format_table(table: Table) -> dict[str, Any]:
    """Format each cell as its text and, for a number, the value to sort by."""
    rows = [[_format_cell(cell) for cell in row] for row in table.rows]
    is_text = [any(isinstance(row[column], str) for row in table.rows) for column in range(len(table.header))]
    return {"title": table.title, "note": table.note, "header": table.header, "is_text": is_text, "rows": rows}


def _format_cell(cell: Cell) -> tuple[str, float | None]:
    if cell is None:
        return "", None
    if isinstance(cell, str):
        return printable(cell), None
    if not np.isfinite(cell):
        return "undefined", None
    return (f"{cell:,}" if isinstance(cell, (int, np.integer)) else f"{cell:.4g}"), float(cell)
