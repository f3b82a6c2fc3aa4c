"""Annotated sites: binding sites, secondary structure or anything else that is known of single residues."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from protembed.errors import TableError
from protembed.io.reading import display_name, open_input
from protembed.io.tables import Row, reading_table, same_name

_COLUMNS = ("protein", "position", "label")
# Up to nine digits: longer than any protein, and shorter than what Python refuses to convert.
_POSITION = re.compile("[1-9][0-9]{0,8}")


# What pandas and spreadsheets write for a missing cell. `NA` is sodium too, and may be bound.
_MISSING = ("nan", "NaN", "<NA>", "None", "null", "NULL", "N/A", "#N/A")


@dataclass(frozen=True, kw_only=True)
class Site:
    """One residue and what is known of it.

    Attributes:
        protein: The identifier of its record, or the accession or the entry name in a UniProt header.
        position: in the protein, from 1.
        label: what it is, such as `binding` or `helix`.
        line: in the file, from 1.
    """

    protein: str
    position: int
    label: str
    line: int


def read_sites(path: Path) -> list[Site]:
    """Read a table of sites, plain or compressed.

    Whether the proteins exist and are long enough is for the caller to say, who knows them.

    Args:
        path: TSV or CSV with a header that names `protein`, `position` (from 1) and `label`, in any order and among
            others; `-` is stdin.

    Returns:
        The sites, in the table's order; one that is there twice is given twice.

    Raises:
        InputNotFoundError: the file cannot be opened.
        FormatError: the archive is damaged.
        TableError: a column or a value is missing or makes no sense.
    """
    name = display_name(path)
    with open_input(path) as stream:
        with reading_table(stream, name) as table:
            places = _find_columns(table.header, name)
            sites = [_read_site(row, places, name) for row in table.rows]
    if not sites:
        raise TableError(name, "the table has no rows", "give at least one site")
    return sites


def _find_columns(header: Sequence[str], name: str) -> dict[str, int]:
    """Find the place of each column."""
    columns = [same_name(column) for column in header]
    for column in _COLUMNS:
        if columns.count(column) != 1:
            found = f"the header has {columns.count(column) or 'no'} columns named {column!r}"
            raise TableError(name, found, f"begin the table with the names {', '.join(_COLUMNS)}", line=1)
    return {column: columns.index(column) for column in _COLUMNS}


def _read_site(row: Row, places: Mapping[str, int], name: str) -> Site:
    cells = {column: row.cells[place] for column, place in places.items()}
    for column, cell in cells.items():
        if not cell or cell in _MISSING:
            raise TableError(name, f"this row has no {column}", "complete or remove it", line=row.line)
    position = cells["position"]
    if not _POSITION.fullmatch(position):
        advice = "write whole numbers, and count residues from 1"
        raise TableError(name, f"the position {position[:20]!r} is no residue's number", advice, line=row.line)
    return Site(protein=cells["protein"], position=int(position), label=cells["label"], line=row.line)
