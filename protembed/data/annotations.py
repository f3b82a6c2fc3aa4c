"""Annotated sites: binding sites, secondary structure or anything else that is known of single residues."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from protembed.errors import TableError
from protembed.inputs import display_name, open_input

_COLUMNS = ("protein", "position", "label")
# Up to nine digits: longer than any protein, and shorter than what Python refuses to convert.
_POSITION = re.compile("[1-9][0-9]{0,8}")


@dataclass(frozen=True, kw_only=True)
class Site:
    """One residue and what is known of it.

    Attributes:
        protein: the identifier of its record.
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
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
        try:
            sites = [_read_site(row, name, line) for line, row in _read_rows(text, name)]
        finally:
            text.detach()
    if not sites:
        raise TableError(name, "the table has no rows", "give at least one site")
    return sites


def _read_rows(text: TextIO, name: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Give the rows that are not blank, by column, each with its line."""
    header_line = text.readline()
    delimiter = "\t" if "\t" in header_line else ","
    columns = [column.strip().lower() for column in next(csv.reader([header_line], delimiter=delimiter), [])]
    for column in _COLUMNS:
        if columns.count(column) != 1:
            found = f"the header has {columns.count(column) or 'no'} columns named {column!r}"
            raise TableError(name, found, f"begin the table with the names {', '.join(_COLUMNS)}", line=1)
    reader = csv.reader(text, delimiter=delimiter)
    try:
        for cells in reader:
            line = reader.line_num + 1  # the header is line 1
            if any(cell.strip() for cell in cells):
                if len(cells) != len(columns):
                    found = f"this row has {len(cells)} cells, the header {len(columns)}"
                    raise TableError(name, found, "correct the row", line=line)
                yield line, dict(zip(columns, map(str.strip, cells), strict=True))
    except csv.Error as error:
        advice = "look for a quotation mark that is never closed"
        raise TableError(name, f"this is no readable table ({error})", advice, line=reader.line_num + 1) from error


def _read_site(row: Mapping[str, str], name: str, line: int) -> Site:
    for column in _COLUMNS:
        if not row[column]:
            raise TableError(name, f"this row has no {column}", "complete or remove it", line=line)
    position = row["position"]
    if not _POSITION.fullmatch(position):
        advice = "write whole numbers, and count residues from 1"
        raise TableError(name, f"the position {position[:20]!r} is no residue's number", advice, line=line)
    return Site(protein=row["protein"], position=int(position), label=row["label"], line=line)
