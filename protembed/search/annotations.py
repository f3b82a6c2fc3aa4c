"""Columns of a table that say something about proteins: classes or values, found by identifier."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from protembed.data.clusters import parse_accession
from protembed.data.fasta import ReadStatistics, open_records
from protembed.errors import TableError
from protembed.io.reading import display_name
from protembed.io.tables import (
    IDENTIFIER_COLUMNS,
    find_columns,
    is_missing,
    missing_column,
    read_number,
    reading_table,
)

_USUAL_NAMES = {"id": IDENTIFIER_COLUMNS}
# A column of numbers has classes if there are so few, all of them whole; a column of text has too many
# classes for a legend if there are more than half as many as proteins, as with descriptions and sequences.
_MAX_NUMBERED_CLASSES, _MAX_CLASS_FRACTION = 10, 0.5
# Classes that are listed; the rarest of more become one.
MAX_CLASSES = 100
OTHER_CLASSES = "other"


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """A column of a table, with a cell for each protein.

    Attributes:
        name: Name of the column.
        values: Numbers, (proteins,), None where there is none; or None if the column has classes.
        classes: Names of the classes, the most frequent first; empty if the column has values.
        codes: Indices of the proteins' classes, None where there is none; empty if the column has values.
    """

    name: str
    values: Sequence[float | None] | None
    classes: Sequence[str] = ()
    codes: Sequence[int | None] = ()

    @classmethod
    def make(cls, name: str, cells: Sequence[str]) -> "Annotation | None":
        """Find out what a column holds; None if it is neither classes nor values, or the same in all cells.

        >>> Annotation.make("kind", ["b", "a", "", "a"]).codes
        [1, 0, None, 0]
        """
        present = [cell for cell in cells if not is_missing(cell)]
        numbers = [read_number(cell) for cell in present]
        if present and None not in numbers:
            distinct = set(numbers)
            is_numbered = len(distinct) <= _MAX_NUMBERED_CLASSES and all(float(x or 0).is_integer() for x in distinct)
            if not is_numbered:
                return cls(name=name, values=[None if is_missing(cell) else read_number(cell) for cell in cells])
        counts = Counter(present)
        is_constant = len(counts) == 1 and len(present) == len(cells)
        if not counts or is_constant or len(counts) > max(2.0, _MAX_CLASS_FRACTION * len(present)):
            return None
        ranked = sorted(counts, key=lambda label: (-counts[label], label))
        classes = ranked if len(ranked) <= MAX_CLASSES else [*ranked[: MAX_CLASSES - 1], OTHER_CLASSES]
        index = {label: min(rank, len(classes) - 1) for rank, label in enumerate(ranked)}
        return cls(name=name, values=None, classes=classes, codes=[index.get(cell) for cell in cells])


@dataclass(frozen=True, kw_only=True)
class AnnotationTable:
    """A table whose rows are found by the identifiers of proteins.

    Attributes:
        path: Name of the table, for messages.
        names: Names of the columns, without that of the identifiers.
        rows: Cells of the other columns, by identifier.
    """

    path: str
    names: Sequence[str]
    rows: dict[str, Sequence[str]]

    @classmethod
    def read(cls, path: Path, id_column: str | None = None) -> "AnnotationTable":
        """Read a table.

        Args:
            path: CSV, TSV or Excel file, plain or compressed.
            id_column: Column of the identifiers; None for the first with a usual name.

        Raises:
            TableError: There is no column of identifiers, no other column, or an identifier has two different rows.
            ProtembedError: The file cannot be read.
        """
        name, rows = display_name(path), dict[str, Sequence[str]]()
        known = (id_column, *IDENTIFIER_COLUMNS)
        with open_records(path, ReadStatistics()) as stream, reading_table(stream, name, known=known) as table:
            index = find_columns(table.header, name, _USUAL_NAMES, {"id": id_column}, table.line).get("id")
            if index is None:
                raise missing_column(table.header, name, "id", "name it with `id`", table.line)
            for row in table.rows:
                cells = [cell for column, cell in enumerate(row.cells) if column != index]
                if rows.setdefault(row.cells[index], cells) != cells:
                    found = f"{row.cells[index]!r:.80} has an earlier row with other cells"
                    raise TableError(name, found, "keep one of them", line=row.line)
            names = [column for number, column in enumerate(table.header) if number != index]
        if not names:
            raise TableError(name, "it has no column beside the identifiers", "add one", line=table.line)
        return cls(path=name, names=names, rows=rows)

    def annotations(self, ids: Sequence[str]) -> Iterator[Annotation]:
        """Yield the columns with classes or values, with a cell for each of some proteins."""
        empty = [""] * len(self.names)
        cells = [self._row(record_id) or empty for record_id in ids]
        for column, name in enumerate(self.names):
            annotation = Annotation.make(name, [row[column] for row in cells])
            if annotation is not None:
                yield annotation

    def count(self, ids: Sequence[str]) -> int:
        """Count the proteins that the table has."""
        return sum(self._row(record_id) is not None for record_id in ids)

    def _row(self, record_id: str) -> Sequence[str] | None:
        """Return the cells of a protein, whose row may be named by the accession in its identifier."""
        return self.rows.get(record_id) or self.rows.get(parse_accession(record_id))
