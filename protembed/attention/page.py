"""The page of `inspect-attention`: the map of every head, what each head does, contacts and tables, in one file."""

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from protembed.io.text import pluralize, printable
from protembed.report.page import TEMPLATES, render_page

# Of a picture of a map, on a side.
LEAST_PIXELS, MOST_PIXELS = 32, 128
# Of all maps of a page, which is 10 MB large then, and 18 if the maps are noise: ten proteins and 120 heads are shown
# at their best, and of fewer proteins more heads.
_PIXELS_OF_A_PAGE = 20 << 20


def map_resolution(num_proteins: int, num_heads: int) -> int:
    """Choose how finely maps are shown, so that a page of many stays small enough to be sent and opened.

    >>> map_resolution(10, 120), map_resolution(10, 660), map_resolution(1, 660)
    (128, 56, 128)
    """
    side = math.isqrt(_PIXELS_OF_A_PAGE // max(1, num_proteins * num_heads))
    return min(MOST_PIXELS, max(LEAST_PIXELS, side))


def block_size(num_residues: int, most_pixels: int) -> int:
    """Count the residues on a side of a block, so that a map has at most so many blocks on a side.

    >>> block_size(128, 128), block_size(129, 128), block_size(1500, 128)
    (1, 2, 12)
    """
    return -(-num_residues // most_pixels)


def max_pool_blocks(matrix: NDArray[np.floating], block: int) -> NDArray[np.float32]:
    """Take the highest value of each block of a map; a mean would hide a single strong pair.

    What is looked for in a map, a contact or a column that all residues attend to, is a few cells among many: it stays
    to be seen, at the place where it is, whatever the length. A part of the protein in full would show less of it.

    Args:
        matrix: (residues, residues).
        block: residues on a side; the last block may be smaller.

    Returns:
        (blocks, blocks), a copy.
    """
    if block == 1:
        return matrix.astype(np.float32)
    starts = np.arange(0, len(matrix), block)
    highest = np.maximum.reduceat(np.maximum.reduceat(matrix, starts, axis=0), starts, axis=1)
    return np.asarray(highest, np.float32)


_MOST_CONTACT_PIXELS = 400
# A protein whose maps are larger than this is shown with the fewer levels.
_BYTES_PER_PROTEIN = 600_000
# Levels of a map on the scale of square roots. The page gives values as intervals, the span of a level.
_LEVELS = (64, 48)
_CONTACT_LEVELS = 64
_COLOURS = {"attention": "magma_r", "statistic": "viridis", "contact": "Blues"}
_NUM_STOPS = 17
_SCRIPTS = ("attention_drawing.js", "attention_view.js", "attention.js")

Cell = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class ShownProtein:
    """One protein, or a region of it, to be looked at.

    Attributes:
        id: of its record; it may hold anything.
        sequence: a letter for each residue that is shown.
        maps: (layer, head, blocks, blocks), the highest attention of a row's residues to a column's, in blocks of
            `block` residues.
        contacts: (residues, residues), predicted scores from 0 to 1; None where nothing predicts any.
        truth: (residues, residues), whether two residues touch in the structure; None where there is no structure.
        first_residue: number of the first residue that is shown.
        block: residues on a side of a block of the maps.
        sites: Labelled residues among those shown, from 0, by label.
    """

    id: str
    sequence: str
    maps: NDArray[np.floating]
    contacts: NDArray[np.floating] | None = None
    truth: NDArray[np.bool_] | None = None
    first_residue: int = 1
    block: int = 1
    sites: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Figures that a reader may sort.

    Attributes:
        title: above the table.
        header: the name of each column.
        rows: a cell for each column; None leaves one empty.
        note: a sentence or two below the title.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


class AttentionPage:
    """Collects proteins one at a time, and holds only what the page will show of each.

    Attributes:
        layers: numbers of the layers that are shown, from 1.
        heads: numbers of the heads that are shown, from 1.
    """

    def __init__(self, layers: Sequence[int], heads: Sequence[int]) -> None:
        self.layers, self.heads = list(layers), list(heads)
        self._proteins: list[dict[str, Any]] = []

    @property
    def num_bytes(self) -> int:
        """What the pictures of the proteins so far take of the page, bytes."""
        contacts = sum(len(protein["contacts"]["pixels"]) for protein in self._proteins if protein["contacts"])
        return contacts + sum(len(one["pixels"]) for protein in self._proteins for one in protein["maps"])

    def add(self, protein: ShownProtein) -> None:
        """Take a protein into the page; its arrays are not held."""
        num_blocks = -(-len(protein.sequence) // protein.block)
        assert protein.maps.shape == (len(self.layers), len(self.heads), num_blocks, num_blocks)
        num_bytes = _BYTES_PER_PROTEIN // (len(self.layers) * len(self.heads))
        maps = [_encode_map(weights, num_bytes) for layer in protein.maps for weights in layer]
        self._proteins.append(
            {
                # A letter that turns the direction of reading would make one identifier look like another.
                "id": printable(protein.id),
                "sequence": protein.sequence,
                "first": protein.first_residue,
                "block": protein.block,
                "maps": maps,
                "contacts": _encode_contacts(protein.contacts, protein.truth),
                "sites": [{"label": printable(label), "at": list(at)} for label, at in protein.sites.items() if at],
            }
        )

    def render(self, statistics: Mapping[str, NDArray[np.floating]], tables: Sequence[Table], version: str) -> str:
        """Make the page of at least one protein.

        Args:
            statistics: (layers, heads) of the layers and heads shown, by the name that the page gives it; NaN where it
                is not defined.
            tables: below the pictures, in this order.
            version: of protembed.

        Returns:
            HTML that needs no other file and no network; the same bytes for the same values.
        """
        assert self._proteins, "a page shows at least one protein"
        data = {
            "layers": self.layers,
            "heads": self.heads,
            "proteins": self._proteins,
            "statistics": [{"name": name, "values": _plain(values)} for name, values in statistics.items()],
            "colours": {use: _stops(name) for use, name in _COLOURS.items()},
        }
        numbers = {"protein": len(self._proteins), "layer": len(self.layers), "head": len(self.heads)}
        sizes = [pluralize(number, noun) for noun, number in numbers.items()]
        script = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in _SCRIPTS)
        return render_page(
            "attention.html",
            version=version,
            summary=", ".join(sizes),
            has_contacts=any(protein["contacts"] for protein in self._proteins),
            data=script_data(data),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            tables=[_spell_table(table) for table in tables],
        )


def script_data(value: object) -> Markup:
    r"""Spell a value as JSON that may stand in a script element: nothing in it can end the element or begin another.

    >>> print(script_data({"id": "</script>&"}))
    {"id":"\u003c/script\u003e\u0026"}
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII, so U+2028 and U+2029 are escaped too
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _encode_map(weights: NDArray[np.floating], num_bytes: int) -> dict[str, Any]:
    """Round a map (pixels, pixels) to 64 levels of its square root, or 48 where these exceed about `num_bytes`.

    Level k stands for values from peak · ((k - 0.5) / (levels - 1))² to peak · ((k + 0.5) / (levels - 1))².
    """
    peak = float(weights.max())
    roots = np.sqrt(weights.astype(np.float64) / peak) if peak > 0 else np.zeros_like(weights)
    for levels in _LEVELS:
        steps = np.rint(roots * (levels - 1)).astype(np.uint8)
        if levels == _LEVELS[-1] or _entropy(steps) * steps.size / 8 <= num_bytes:
            break
    return {"peak": float(f"{peak:.9g}"), "levels": levels, "pixels": _deflate(steps)}


def _entropy(steps: NDArray[np.uint8]) -> float:
    """Bits for each value; deflate comes within a few percent of it, or below."""
    counts = np.bincount(steps.ravel())
    shares = counts[counts > 0] / steps.size
    return float(-(shares * np.log2(shares)).sum())


def _encode_contacts(contacts: NDArray[np.floating] | None, truth: NDArray[np.bool_] | None) -> dict[str, Any] | None:
    """Lay prediction (upper triangle, in levels) and structure (lower triangle, 0 or 1) into one matrix."""
    shown = contacts if contacts is not None else truth
    if shown is None:
        return None
    block = block_size(len(shown), _MOST_CONTACT_PIXELS)
    num_pixels = -(-len(shown) // block)
    pixels = np.zeros((num_pixels, num_pixels), np.uint8)
    if contacts is not None:
        scores = np.clip(max_pool_blocks(np.triu(contacts, 1), block), 0, 1)
        pixels += np.triu(np.rint(scores * (_CONTACT_LEVELS - 1)).astype(np.uint8), 1)
    if truth is not None:
        pixels += np.tril(max_pool_blocks(np.tril(truth, -1).astype(np.float32), block).astype(np.uint8), -1)
    return {
        "block": block,
        "levels": _CONTACT_LEVELS,
        "predicted": contacts is not None,
        "known": truth is not None,
        "pixels": _deflate(pixels),
    }


def _deflate(pixels: NDArray[np.uint8]) -> str:
    return base64.b64encode(min(_compressions(pixels.tobytes()), key=len)).decode()


def _compressions(content: bytes) -> Iterator[bytes]:
    # Where a map is noise, short repetitions cost more than they save: 23 % in trials.
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY):
        compressor = zlib.compressobj(9, strategy=strategy)
        yield compressor.compress(content) + compressor.flush()


def _plain(values: NDArray[np.floating]) -> list[list[float | None]]:
    return [[float(f"{value:.6g}") if np.isfinite(value) else None for value in row] for row in values]


def _stops(name: str) -> list[str]:
    return [to_hex(colour) for colour in colormaps[name](np.linspace(0, 1, _NUM_STOPS))]


def _spell_table(table: Table) -> dict[str, Any]:
    """Turn each cell into its text and, for a number, the value that it is sorted by."""
    rows = [[_spell_cell(cell) for cell in row] for row in table.rows]
    is_text = [any(isinstance(row[column], str) for row in table.rows) for column in range(len(table.header))]
    return {"title": table.title, "note": table.note, "header": table.header, "is_text": is_text, "rows": rows}


def _spell_cell(cell: Cell) -> tuple[str, float | None]:
    if cell is None:
        return "", None
    if isinstance(cell, str):
        return printable(cell), None
    if not np.isfinite(cell):
        return "undefined", None
    return (f"{cell:,}" if isinstance(cell, (int, np.integer)) else f"{cell:.4g}"), float(cell)
