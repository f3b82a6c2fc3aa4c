"""Variants of proteins: CSV or TSV with mutations, mutated sequences or both, and the wild types they belong to."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from protembed.config.score import VariantTableConfig
from protembed.data.fasta import (
    OnIllegal,
    ReadStatistics,
    SkippedRecord,
    accept_sequence,
    clean_sequence,
    open_records,
    read_fasta,
)
from protembed.errors import (
    DataError,
    IllegalResidueError,
    MismatchedResidueError,
    RecordError,
    TableError,
    UnsupportedVariantError,
)
from protembed.io.reading import display_name
from protembed.io.sniffing import ONE_LETTER_ADVICE, detect_notation
from protembed.io.tables import Row, check_unique_columns, column_names, find_column, is_stand_in, reading_table
from protembed.io.text import pluralize
from protembed.scoring.mutations import (
    Mutations,
    check_mutations,
    find_mutations,
    matching_offsets,
    mutate,
    parse_mutations,
    revert_mutations,
)

_USUAL_NAMES: Mapping[str, Sequence[str]] = {
    "mutations": ("mutant", "mutants", "mutation", "mutations", "variant", "variants", "substitutions", "hgvs_pro"),
    "sequence": ("sequence", "wild_type", "wildtype", "wild_type_sequence", "wildtype_sequence", "target_seq"),
    "mutated_sequence": ("mutated_sequence", "mutant_sequence", "variant_sequence", "mutated"),
    "id": ("id", "protein", "protein_id", "accession"),
}
# Enough rows to tell how a table counts, and mutations without which any shift might fit by chance.
_SHIFTED_ROWS, _MIN_SHIFTED_MUTATIONS = 1000, 3


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of a table of variants.

    Attributes:
        wild_type: residues of the alphabet.
        mutations: what is different, without silent ones such as A42A; none in the wild type itself.
        cells: of the row, as they were read.
    """

    wild_type: str
    mutations: Mutations
    cells: Sequence[str]

    @property
    def sequence(self) -> str:
        """The mutated sequence."""
        return mutate(self.wild_type, self.mutations)


def read_wild_types(path: Path, *, on_illegal: OnIllegal, statistics: ReadStatistics) -> Mapping[str, str]:
    """Read wild types by their identifiers.

    Args:
        path: FASTA, plain or compressed; `-` is stdin.
        on_illegal: what to do about a character that is no amino acid.
        statistics: counts what was met.

    Raises:
        RecordError: two different ones have the same identifier.
        ProtembedError: as `read_fasta`.
    """
    wild_types: dict[str, str] = {}
    for record in read_fasta([path], on_illegal=on_illegal, statistics=statistics):
        if wild_types.setdefault(record.id, record.sequence) != record.sequence:
            found = f"({record.id!r}) is another protein than an earlier one of that name"
            raise RecordError(record.path, record.line, record.row + 1, found, "rename one")
    return wild_types


class VariantTable:
    """A table of variants, which can be read more than once.

    Args:
        path: CSV or TSV with a header, plain or compressed; no pipe.
        config: the columns that the user named, and how positions count.
        wild_types: by identifier; None: the table has them.
        on_illegal: what to do about a character that is no amino acid; `skip` leaves out what cannot be scored, too.

    Attributes:
        path: its name, for messages.
        header: the names of its columns.

    Raises:
        InputNotFoundError: the file cannot be opened.
        TableError: it has no header, or a column is missing.
    """

    def __init__(
        self, path: Path, config: VariantTableConfig, wild_types: Mapping[str, str] | None, on_illegal: OnIllegal
    ) -> None:
        self.path, self._file, self._config = display_name(path), path, config
        self._wild_types, self._on_illegal = wild_types, on_illegal
        self._cleaned: dict[str, str] = {}
        self._has_named = False
        with open_records(path, ReadStatistics()) as stream, reading_table(stream, self.path) as table:
            self.header = table.header
        check_unique_columns(self.header, self.path)
        named = {meaning: getattr(config, meaning) for meaning in _USUAL_NAMES}
        taken = [name for name in named.values() if name is not None]
        found = {
            meaning: find_column(self.header, self.path, meaning, usual, named[meaning], taken)
            for meaning, usual in _USUAL_NAMES.items()
        }
        self._places = {meaning: place for meaning, place in found.items() if place is not None}
        self._check_columns()

    def read(self, statistics: ReadStatistics | None = None) -> Iterator[Variant]:
        """Read the variants, in the table's order.

        Args:
            statistics: counts what was met.

        Raises:
            MismatchedResidueError: a mutation does not fit its wild type.
            UnscorableVariantError: a variant is no substitution of amino acids.
            IllegalResidueError: a character is no amino acid.
            TableError: a value is missing or makes no sense, or there is no row.
        """
        statistics = ReadStatistics() if statistics is None else statistics
        with closing(self._rows(statistics)) as rows:
            for row in rows:
                try:
                    variant = self._variant(row, statistics)
                except (IllegalResidueError, UnsupportedVariantError) as error:
                    if self._on_illegal != "skip":
                        raise
                    found = SkippedRecord(id=str(row.number), path=self.path, line=row.line, reason=error.found)
                    statistics.skipped.append(found)
                    continue
                except MismatchedResidueError as error:
                    shift = self._suggest_offset()
                    raise (
                        error.with_suggested_offset(self._config.position_offset + shift) if shift else error
                    ) from None
                statistics.num_records += 1
                yield variant
        if statistics.num_records == 0:
            reasons = [f"every row was left out, the first for {row.reason}" for row in statistics.skipped]
            raise TableError(self.path, [*reasons, "the table has no rows"][0], "give at least one variant")

    def _rows(self, statistics: ReadStatistics) -> Generator[Row]:
        with open_records(self._file, statistics) as stream, reading_table(stream, self.path) as table:
            yield from table.rows

    def _variant(self, row: Row, statistics: ReadStatistics) -> Variant:
        named, mutated = self._mutations(row), self._mutated_sequence(row)
        wild_type = self._wild_type(row, statistics)
        if wild_type is None:
            if named is None:
                found = "this row has no mutations, without which its wild type is not known"
                raise TableError(self.path, found, "complete or remove it", line=row.line)
            assert mutated is not None
            wild_type = revert_mutations(mutated, named, self.path, row.line)
        if named is None:
            assert mutated is not None
            named = find_mutations(wild_type, mutated, self.path, row.line)
        check_mutations(named, wild_type, self.path, row.line)
        if mutated is not None and mutate(wild_type, named) != mutated:
            found = "the mutated sequence is not the wild type with these mutations"
            raise TableError(self.path, found, "correct the row, or take one of the two columns out", line=row.line)
        mutations = tuple(one for one in named if one.wild_type != one.mutant)
        return Variant(wild_type=wild_type, mutations=mutations, cells=row.cells)

    def _cell(self, row: Row, meaning: str) -> str | None:
        return row.cells[self._places[meaning]] if meaning in self._places else None

    def _mutations(self, row: Row) -> Mutations | None:
        """Read the mutations of a row; None where its mutated sequence alone says what they are."""
        cell = self._cell(row, "mutations")
        if not cell and self._cell(row, "mutated_sequence"):
            return None
        return None if cell is None else parse_mutations(cell, self._config.position_offset, self.path, row.line)

    def _mutated_sequence(self, row: Row) -> str | None:
        cell = self._cell(row, "mutated_sequence")
        # What is odd in it is odd in the wild type, and counted there.
        return None if cell is None else self._accept(cell, row, "mutated sequence", ReadStatistics())

    def _wild_type(self, row: Row, statistics: ReadStatistics) -> str | None:
        """Find the wild type of a row; None where it has to follow from the mutated sequence."""
        cell = self._cell(row, "sequence")
        if self._wild_types is not None:
            wild_type = self._named_wild_type(row, self._wild_types)
            if cell and len(cell) > 1:  # one letter is the residue of the wild type, beside a column of positions
                self._compare_wild_types(wild_type, cell, row)
            return wild_type
        if cell is None:
            return None
        if cell not in self._cleaned:
            self._cleaned[cell] = self._accept(cell, row, "wild type", statistics)
        return self._cleaned[cell]

    def _compare_wild_types(self, wild_type: str, cell: str, row: Row) -> None:
        if wild_type != self._accept(cell, row, "wild type", ReadStatistics()):
            name = self.header[self._places["sequence"]]
            found = f"the column {name!r} has another wild type than --wild-type"
            advice = "leave --wild-type out, or say --mutated-sequence if these are mutated sequences"
            raise TableError(self.path, found, advice, line=row.line)

    def _named_wild_type(self, row: Row, wild_types: Mapping[str, str]) -> str:
        name = self._cell(row, "id") or ""
        if len(wild_types) == 1 and not self._names_wild_types(name, *wild_types):
            return next(iter(wild_types.values()))
        if name not in wild_types:
            found = f"--wild-type has {pluralize(len(wild_types), 'record')}, and none of them is {name!r}"
            raise TableError(self.path, found, "name the record in each row, by its header's first word", line=row.line)
        return wild_types[name]

    def _names_wild_types(self, name: str, wild_type: str) -> bool:
        """Tell whether the id column names the only wild type; where the user did not say so, one row tells for all."""
        if self._config.id is not None:
            return True
        self._has_named |= name == wild_type
        return self._has_named

    def _accept(self, cell: str, row: Row, what: str, statistics: ReadStatistics) -> str:
        raw, name = clean_sequence(cell), str(row.number)
        if not raw:
            raise TableError(self.path, f"this row has no {what}", "complete or remove it", line=row.line)
        if notation := detect_notation(cell):
            raise TableError(self.path, f"the {what} is {notation}", ONE_LETTER_ADVICE, line=row.line)
        if is_stand_in(raw):
            found = f"the {what} is {cell!r}, which seems to stand for a missing one"
            raise UnsupportedVariantError(self.path, row.line, found)
        # The whole row is left out by `read`, whatever in it is illegal.
        on_illegal: OnIllegal = "mask" if self._on_illegal == "mask" else "error"
        illegal = partial(_illegal_residue, self.path, row.line, name, raw)
        sequence = accept_sequence(raw, on_illegal, statistics, illegal)
        assert sequence is not None
        return sequence

    def _check_columns(self) -> None:
        has = self._places.keys()
        names = column_names(self.header)
        if not has & {"mutations", "mutated_sequence"}:
            advice = "begin with a header, and name the column by --mutations (such as A42G) or --mutated-sequence"
            raise TableError(self.path, f"no column of variants among {names}", advice, line=1)
        if self._wild_types is not None:
            if len(self._wild_types) > 1 and "id" not in has:
                found = f"no id column among {names}, and --wild-type has {pluralize(len(self._wild_types), 'record')}"
                raise TableError(self.path, found, "name the column that says which by --id", line=1)
            return
        if "sequence" not in has and not has >= {"mutations", "mutated_sequence"}:
            advice = "give it by --wild-type FASTA, or name its column by --sequence"
            raise TableError(self.path, f"no wild type among {names}", advice, line=1)

    def _suggest_offset(self) -> int | None:
        """Find the smallest shift of all positions by which the first rows would fit; None if there is none."""
        shifts: set[int] | None = None
        seen = set[tuple[str, int]]()
        with closing(self._rows(ReadStatistics())) as rows:
            for row in islice(rows, _SHIFTED_ROWS):
                try:
                    named, mutated = self._mutations(row), self._mutated_sequence(row)
                    sequence = self._wild_type(row, ReadStatistics())
                except DataError:
                    continue
                # Of a wild type that follows from the mutated sequence, only the mutant residues can be looked for.
                expected = [(one.position, one.mutant if sequence is None else one.wild_type) for one in named or ()]
                if expected:
                    shifts = matching_offsets(shifts, expected, sequence or mutated or "")
                    seen.update((letter, position) for position, letter in expected)
        return min(shifts, key=abs) if shifts and len(seen) >= _MIN_SHIFTED_MUTATIONS else None


def _illegal_residue(path: str, line: int, row_name: str, sequence: str, residue: int) -> IllegalResidueError:
    return IllegalResidueError(path, line, row_name, residue + 1, sequence[residue])
