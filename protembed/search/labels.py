"""Labels of the proteins of a database, read from a table of identifiers or sequences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protembed.config.search import LabelsConfig
from protembed.data.clusters import parse_accession
from protembed.data.fasta import clean_sequence
from protembed.data.hashing import hash_texts
from protembed.errors import TableError
from protembed.io.reading import display_name, open_input
from protembed.io.tables import (
    LABEL_COLUMNS,
    PROTEIN_COLUMNS,
    Table,
    find_columns,
    is_missing,
    missing_column,
    reading_table,
)
from protembed.search.proteins import Proteins
from protembed.text import LabelText, format_cell, pluralize

_USUAL_NAMES: Mapping[str, Sequence[str]] = {**PROTEIN_COLUMNS, "label": LABEL_COLUMNS}


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels of the proteins of a database.

    Attributes:
        column: Name of their column.
        texts: Different labels, in the order of the table.
        codes: Index of each protein's label, (proteins,), int64; -1 without one.
        warnings: What the user should know about the table, in sentences.
    """

    column: str
    texts: Sequence[str]
    codes: NDArray[np.int64]
    warnings: Sequence[str] = ()

    @property
    def labelled(self) -> NDArray[np.int64]:
        """Rows of the proteins with a label, (labelled,), int64."""
        return np.flatnonzero(self.codes >= 0)

    @cached_property
    def _cells(self) -> list[str]:
        """Each label as a cell of a table, and an empty one at the end."""
        return [format_cell(LabelText(text)) for text in [*self.texts, ""]]

    def cell(self, row: int) -> str:
        """Return the label of a protein as a cell of a table; empty without one."""
        return self._cells[int(self.codes[row])]


class _LabelTable:
    """The labels of a table, by identifiers or by hashes of sequences."""

    def __init__(self, table: Table, path: str, config: LabelsConfig) -> None:
        named = {"id": config.id, "label": config.label_column}
        self._columns = find_columns(table.header, path, _USUAL_NAMES, named, table.line)
        self._path = path
        self._check_columns(table)
        self.column = table.header[self._columns["label"]]
        self.by_id = "id" in self._columns
        self.codes = dict[str | int, int]()
        self._code_of = dict[str, int]()
        for row in table.rows:
            self._add(row.cells, row.line)

    def _check_columns(self, table: Table) -> None:
        for meaning, advice in (
            ("label", "name it label, or name the column with `label_column`"),
            ("id", "name it id, or name the column with `id`"),
        ):
            if meaning not in self._columns and not (meaning == "id" and "sequence" in self._columns):
                raise missing_column(table.header, self._path, meaning, advice, table.line)

    @property
    def texts(self) -> list[str]:
        """Different labels."""
        return list(self._code_of)

    def _add(self, cells: Sequence[str], line: int) -> None:
        label = cells[self._columns["label"]]
        if is_missing(label):
            return
        code = self._code_of.setdefault(label, len(self._code_of))
        name = cells[self._columns["id" if self.by_id else "sequence"]]
        key = name if self.by_id else int(hash_texts([clean_sequence(name)])[0])
        if self.codes.setdefault(key, code) != code:
            found = f"{name[:40]!r} has the label {label!r}, and in a row before {self.texts[self.codes[key]]!r}"
            raise TableError(self._path, found, "give each protein one label", line=line)

    def look_up(self, proteins: Proteins) -> Iterator[int]:
        """Find the label of each protein; -1 without one."""
        if not self.by_id:
            yield from (self.codes.get(int(key), -1) for key in proteins.hashes)
            return
        for row in range(len(proteins)):
            record_id = proteins.record_id(row)
            code = self.codes.get(record_id)
            yield self.codes.get(parse_accession(record_id), -1) if code is None else code


def read_labels_of(proteins: Proteins, config: LabelsConfig, file: Path) -> Labels:
    """Read the table of labels, and find the label of each protein.

    Args:
        proteins: Proteins of the database.
        config: How the columns of the table are named.
        file: The table.

    Raises:
        TableError: A column is missing, a protein has two labels, or no protein of the database has one.
    """
    path = display_name(file)
    names = [config.id, config.label_column, *(name for names in _USUAL_NAMES.values() for name in names)]
    with open_input(file) as stream, reading_table(stream, path, known=names) as raw:
        table = _LabelTable(raw, path, config)
    codes = np.fromiter(table.look_up(proteins), np.int64, len(proteins))
    num_labelled = int((codes >= 0).sum())
    if not num_labelled:
        key = "identifier" if table.by_id else "sequence"
        found = f"none of {pluralize(len(table.codes), key)} with a label is that of a protein of the database"
        raise TableError(path, found, f"check the column of {key}s, or name it with `id`")
    missing = len(proteins) - num_labelled
    warnings = [f"{path} has no label for {missing:,} of {len(proteins):,} proteins of the database"] if missing else []
    return Labels(column=table.column, texts=table.texts, codes=codes, warnings=warnings)
