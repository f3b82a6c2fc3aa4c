"""Tables of variants: CSV or TSV with mutations, mutated sequences or both, and the wild types of the variants."""

import math
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from protembed.config.common import InputConfig
from protembed.config.score import VariantTableConfig
from protembed.data.fasta import ReadStatistics, accept_sequence, clean_sequence, open_records, read_fasta
from protembed.errors import (
    DataError,
    IllegalResidueError,
    MismatchedResidueError,
    RecordError,
    TableError,
    UnsupportedVariantError,
)
from protembed.io.faults import Faults, RaisedFaults
from protembed.io.reading import display_name
from protembed.io.sniffing import ONE_LETTER_ADVICE, detect_notation
from protembed.io.tables import (
    Row,
    Table,
    column_names,
    describe_traits,
    find_columns,
    is_stand_in,
    reading_table,
)
from protembed.scoring.mutations import (
    Indel,
    Mutation,
    Mutations,
    Place,
    check_indels,
    check_mutations,
    find_mutations,
    is_residue,
    is_wild_type,
    keeps_positions,
    matching_offsets,
    mutate,
    named_residues,
    parse_mutations,
    revert_mutations,
)
from protembed.text import pluralize

_USUAL_NAMES: Mapping[str, Sequence[str]] = {
    "mutations": (
        *("mutant", "mutants", "mutation", "mutations", "variant", "variants", "substitutions", "hgvs_pro"),
        *("substitution", "hgvsp", "hgvsp_short", "hgvs_p", "aa_substitution", "aa_substitutions", "aa_change"),
        *("amino_acid_change", "protein_change", "protein_variant"),
    ),
    "sequence": ("sequence", "wild_type", "wildtype", "wild_type_sequence", "wildtype_sequence", "target_seq"),
    "mutated_sequence": ("mutated_sequence", "mutant_sequence", "variant_sequence", "mutated"),
    "id": ("id", "protein", "protein_id", "accession"),
    # A mutation in three cells, such as K, 2 and R. The third may also be in the column of mutations.
    "wild_type_residue": (
        *("wt", "wt_aa", "aa_wt", "wt_residue", "wild_type_aa", "wild_type_residue", "ref_aa", "aa_ref"),
        *("reference_aa", "wild_type"),
    ),
    "position": (
        *("position", "pos", "site", "residue_number", "aa_position", "aa_pos", "mutation_position", "mut_pos"),
        *("protein_position", "resi", "resid", "resnum"),
    ),
    "mutant_residue": (
        *("mut", "mt", "mut_aa", "aa_mut", "mutant_aa", "aa_mutant", "mt_aa", "mut_residue", "mutant_residue"),
        *("mutated_residue", "alt_aa", "aa_alt"),
    ),
    "measured": ("dms_score",),
}
_WILD_TYPE_ADVICE = "give it with `wild_type` FASTA, or name its column with `sequence`"
_IN_THREE_COLUMNS = ("wild_type_residue", "position", "mutant_residue")
# A whole number as pandas writes it in a column with a missing value.
_ZERO_DECIMALS = re.compile(r"\.0+$")
# An offset of positions is suggested from the first rows, and only if enough different mutations agree, because any
# offset fits one or two by chance.
_MAX_OFFSET_ROWS, _MIN_OFFSET_MUTATIONS = 1000, 3


def read_wild_types(path: Path, *, reader: InputConfig, statistics: ReadStatistics) -> Mapping[str, str]:
    """Read wild types by their identifiers from FASTA; see `read_fasta`.

    The statistics count what is unusual in their letters and list skipped records, but do not count the records.

    Raises:
        RecordError: Two different wild types have the same identifier.
        ProtembedError: The file cannot be read.
    """
    wild_types: dict[str, str] = {}
    counts = ReadStatistics(nonstandard=statistics.nonstandard, skipped=statistics.skipped)
    for record in read_fasta([path], on_illegal=reader.on_illegal, gaps=reader.gaps, statistics=counts):
        if wild_types.setdefault(record.id, record.sequence) != record.sequence:
            found = f"({record.id!r}) differs from an earlier record with the same identifier"
            raise RecordError(record.path, record.line, record.row + 1, found, "rename one")
    statistics.num_masked += counts.num_masked
    statistics.num_gaps += counts.num_gaps
    statistics.num_gapped += counts.num_gapped
    statistics.num_nucleotide_like += counts.num_nucleotide_like
    statistics.num_three_letter += counts.num_three_letter
    return wild_types


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of a table of variants.

    Attributes:
        wild_type: Sequence in upper case.
        mutations: Mutations, without silent ones such as A42A; empty for the wild type itself, and where a mutated
            sequence of another length does not say which they are.
        cells: Texts of all columns, as they were read.
        shifted: The mutated sequence if residues were inserted or deleted, so that others have new positions; else
            None.
    """

    wild_type: str
    mutations: Mutations
    cells: Sequence[str]
    shifted: str | None = None

    @property
    def sequence(self) -> str:
        """The mutated sequence."""
        return mutate(self.wild_type, self.mutations) if self.shifted is None else self.shifted

    @property
    def name(self) -> str:
        """The mutations in one text, for messages."""
        return ":".join(map(str, self.mutations)) or (f"{self.sequence[:20]}…" if self.has_indels else "WT")

    @property
    def has_indels(self) -> bool:
        """Whether residues were inserted or deleted."""
        return self.shifted is not None

    @property
    def substitutions(self) -> list[Mutation]:
        """The mutations of a variant without insertions and deletions."""
        return [mutation for mutation in self.mutations if isinstance(mutation, Mutation)]

    @property
    def num_mutations(self) -> int | None:
        """Number of mutations; None where they are unknown."""
        return None if self.has_indels and not self.mutations else len(self.mutations)


class VariantTable:
    """A table of variants, which can be read more than once.

    Args:
        path: CSV or TSV file with a header, plain or compressed; not a pipe.
        config: Columns that the user named, and the offset of positions.
        wild_types: Wild types by identifier; None if the table has them.
        reader: Policies for characters that are not amino acids; `skip` also skips variants that cannot be scored.
        source: Where the wild types are from, for messages.

    Attributes:
        path: Name of the table, for messages.
        header: Names of its columns.
        line: Line of the header, from 1.
        notes: Sentences about what is unusual in the table.

    Raises:
        InputNotFoundError: The file cannot be opened.
        TableError: The table has no header, or a column is missing.
    """

    def __init__(
        self,
        path: Path,
        config: VariantTableConfig,
        wild_types: Mapping[str, str] | None,
        reader: InputConfig,
        *,
        source: str = "`wild_type`",
    ) -> None:
        self._source = source
        self.path, self._file, self._config = display_name(path), path, config
        self._wild_types, self._reader = wild_types, reader
        self._cleaned: dict[str, str] = {}
        with open_records(path, ReadStatistics()) as stream, self._reading(stream, RaisedFaults()) as table:
            self.header, self.line, self.notes = table.header, table.line, describe_traits(table.traits)
        self._indices = self._find_columns()
        self._check_columns()

    def read(self, statistics: ReadStatistics | None = None, faults: Faults | None = None) -> Iterator[Variant]:
        """Read the variants, in the table's order.

        Args:
            statistics: Counts to which this reading is added; None if the caller does not need them.
            faults: Collection of the errors about single rows; without it, the first one is raised.

        Raises:
            MismatchedResidueError: A mutation does not fit its wild type.
            UnsupportedVariantError: A variant is neither a substitution of amino acids nor an insertion or deletion.
            IllegalResidueError: A character is not an amino acid.
            TableError: A value is missing or invalid, or there are no rows.
        """
        statistics, faults = statistics or ReadStatistics(), faults or RaisedFaults()
        with closing(self._rows(statistics, faults)) as rows:
            for row in rows:
                try:
                    variant = self._checked_variant(row, statistics)
                except DataError as error:
                    if isinstance(error, MismatchedResidueError) and self._offset:
                        offset = self._offset + self._config.position_offset
                        error.advice = f"the table's mutations would all fit with `position_offset` {offset}"
                        raise error from None
                    faults.add(error)
                    continue
                if variant is not None:
                    statistics.num_records += 1
                    yield variant
        if statistics.num_records == 0 and not faults.num_errors:
            found = "the table has no rows"
            if statistics.skipped:
                found = f"every row was left out, the first because {statistics.skipped[0].reason}"
            raise TableError(self.path, found, "give at least one variant")

    def _checked_variant(self, row: Row, statistics: ReadStatistics) -> Variant | None:
        """Read the variant of a row; None if it is skipped."""
        try:
            return self._variant(row, statistics)
        except (IllegalResidueError, UnsupportedVariantError) as error:
            statistics.skip_or_raise(str(row.number), error, self._reader.on_illegal)
            return None

    def _reading(self, stream: BinaryIO, faults: Faults) -> AbstractContextManager[Table]:
        known = (*_USUAL_NAMES["mutations"], *_USUAL_NAMES["mutated_sequence"], *_USUAL_NAMES["mutant_residue"])
        named = (self._config.mutations, self._config.mutated_sequence)
        return reading_table(stream, self.path, known=(*named, *known), faults=faults)

    @property
    def measurement(self) -> str | None:
        """Name of the column of measured values; None if there is none."""
        return self.header[self._indices["measured"]] if "measured" in self._indices else None

    def measured(self, variant: Variant) -> float | None:
        """Return the measured value of a variant.

        It is NaN where there is no value, or one that stands for a missing one, and None where it is not a number.
        """
        text = variant.cells[self._indices["measured"]].strip() if "measured" in self._indices else ""
        if not text or is_stand_in(text):
            return math.nan
        try:
            value = float(text)
        except ValueError:
            return None
        return value if math.isfinite(value) else math.nan

    def __iter__(self) -> Iterator[Variant]:
        """Read the variants, each time from the beginning."""
        return self.read()

    def _rows(self, statistics: ReadStatistics, faults: Faults) -> Generator[Row]:
        with open_records(self._file, statistics) as stream, self._reading(stream, faults) as table:
            yield from table.rows

    def _variant(self, row: Row, statistics: ReadStatistics) -> Variant:
        named, mutated, place = self._mutations(row), self._mutated_sequence(row), self._place(row)
        wild_type = self._wild_type(row, statistics)
        if wild_type is None:
            if named is None:
                raise self._error(row, "this row has no mutations, so its wild type is unknown")
            assert mutated is not None
            wild_type = revert_mutations(mutated, named, place)
        if named is None:
            assert mutated is not None
            if len(mutated) != len(wild_type):
                return self._shifted_variant(wild_type, None, mutated, row)
            named = find_mutations(wild_type, mutated, place)
        check_mutations(named, wild_type, place)
        if mutated is not None and mutate(wild_type, named) != mutated:
            found = "the mutated sequence is not the wild type with these mutations"
            raise self._error(row, found, "correct the row, or remove one of the two columns")
        if not keeps_positions(named):
            return self._shifted_variant(wild_type, named, mutate(wild_type, named), row)
        if any(isinstance(mutation, Indel) for mutation in named):
            named = find_mutations(wild_type, mutate(wild_type, named), place)
            check_mutations(named, wild_type, place)
        mutations = tuple(old for old in named if isinstance(old, Mutation) and not old.is_silent)
        return Variant(wild_type=wild_type, mutations=mutations, cells=row.cells)

    def _shifted_variant(self, wild_type: str, named: Mutations | None, mutated: str, row: Row) -> Variant:
        check_indels(wild_type, mutated, self._place(row))
        return Variant(wild_type=wild_type, mutations=named or (), cells=row.cells, shifted=mutated)

    def _place(self, row: Row) -> Place:
        return Place(self.path, row.line)

    def _error(self, row: Row, found: str, advice: str = "complete or remove it") -> TableError:
        return TableError(self.path, found, advice, line=row.line)

    def _cell(self, row: Row, meaning: str) -> str | None:
        return row.cells[self._indices[meaning]] if meaning in self._indices else None

    def _mutations_text(self, row: Row) -> str | None:
        """Return the mutations of a row as one text, though the table may have K, 2 and R in three columns."""
        cell = self._cell(row, "mutations")
        if not cell or not self._has_positions or any(letter.isdigit() for letter in cell) or is_wild_type(cell):
            return cell
        residue, position = self._cell(row, "wild_type_residue"), self._cell(row, "position") or ""
        if not residue or not position:
            missing = "position" if residue else "wild-type residue"
            raise UnsupportedVariantError(*self._place(row), f"the row of the mutation {cell!r} has no {missing}")
        return f"{residue}{_ZERO_DECIMALS.sub('', position)}{cell}"

    def _mutations(self, row: Row) -> Mutations | None:
        """Parse the mutations of a row; None if they follow from its mutated sequence alone."""
        cell = self._mutations_text(row)
        if not cell and self._cell(row, "mutated_sequence"):
            return None
        return None if cell is None else parse_mutations(cell, self._config.position_offset, self._place(row))

    def _mutated_sequence(self, row: Row) -> str | None:
        cell = self._cell(row, "mutated_sequence")
        # Unusual residues are counted in the wild type.
        return None if cell is None else self._accept(cell, row, "mutated sequence", ReadStatistics())

    def _wild_type(self, row: Row, statistics: ReadStatistics) -> str | None:
        """Return the wild type of a row; None if it follows from the mutated sequence."""
        cell = self._sequence_cell(row)
        if self._wild_types is not None:
            wild_type = self._named_wild_type(row, self._wild_types)
            if cell and wild_type != self._accept(cell, row, "wild type", ReadStatistics()):
                name = self.header[self._indices["sequence"]]
                found = f"the column {name!r} has another wild type than {self._source}"
                advice = "omit one of the two, or pass `mutated_sequence` if these are mutated sequences"
                raise self._error(row, found, advice)
            return wild_type
        if cell is None:
            return None
        if cell not in self._cleaned:
            self._cleaned[cell] = self._accept(cell, row, "wild type", statistics)
        return self._cleaned[cell]

    def _sequence_cell(self, row: Row) -> str | None:
        """Return the cell of the wild type's sequence; None if there is none, or its column has single residues."""
        cell = self._cell(row, "sequence")
        if cell is None or not (self._has_positions or self._wild_types is not None) or not is_residue(cell):
            return cell
        if self._wild_types is None and "mutated_sequence" not in self._indices:
            found = f"the column {self.header[self._indices['sequence']]!r} has residues, not sequences of wild types"
            raise self._error(row, found, _WILD_TYPE_ADVICE)
        return None

    def _named_wild_type(self, row: Row, wild_types: Mapping[str, str]) -> str:
        if not self._ids_name_wild_types:
            return next(iter(wild_types.values()))
        name = self._cell(row, "id") or ""
        if name not in wild_types:
            found = f"{self._source} has {pluralize(len(wild_types), 'record')}, and none of them is {name!r}"
            raise self._error(row, found, "give each row the identifier of its record")
        return wild_types[name]

    @cached_property
    def _ids_name_wild_types(self) -> bool:
        """Whether the id column names wild types: there are several, the user named it, or any row has the only one."""
        wild_types = self._wild_types or {}
        if len(wild_types) != 1 or self._config.id is not None:
            return True
        with closing(self._rows(ReadStatistics(), Faults())) as rows:
            return "id" in self._indices and any(self._cell(row, "id") in wild_types for row in rows)

    def _accept(self, cell: str, row: Row, what: str, statistics: ReadStatistics) -> str:
        raw = clean_sequence(cell)
        if not raw:
            raise self._error(row, f"this row has no {what}")
        if notation := detect_notation(cell):
            raise self._error(row, f"the {what} is {notation}", ONE_LETTER_ADVICE)
        if is_stand_in(raw):
            found = f"the {what} is {cell!r}, which seems to stand for a missing one"
            raise UnsupportedVariantError(*self._place(row), found)
        # `read` skips the whole row.
        reader = self._reader if self._reader.on_illegal == "mask" else replace(self._reader, on_illegal="error")
        place, name = self._place(row), str(row.number)
        sequence = accept_sequence(
            raw, reader, statistics, lambda index: IllegalResidueError(*place, name, index + 1, raw[index])
        )
        assert sequence is not None
        return sequence

    def _find_columns(self) -> dict[str, int]:
        named = {meaning: getattr(self._config, meaning, None) for meaning in _USUAL_NAMES}
        named["measured"] = self._config.measured_column
        indices = find_columns(self.header, self.path, _USUAL_NAMES, named, self.line)
        if indices.keys() >= set(_IN_THREE_COLUMNS):
            indices.setdefault("mutations", indices["mutant_residue"])
        return indices

    @property
    def _has_positions(self) -> bool:
        """Whether positions and wild-type residues are in columns of their own."""
        return self._indices.keys() >= {"position", "wild_type_residue"}

    def _check_columns(self) -> None:
        has = self._indices.keys()
        names = column_names(self.header)
        if not has & {"mutations", "mutated_sequence"}:
            advice = "begin with a header, and name the column with `mutations` (such as A42G) or `mutated_sequence`"
            raise TableError(self.path, f"no column of variants among {names}", advice, line=self.line)
        if self._wild_types is not None:
            if len(self._wild_types) > 1 and "id" not in has:
                records = pluralize(len(self._wild_types), "record")
                found = f"no id column among {names}, and {self._source} has {records}"
                raise TableError(self.path, found, "name the column of their identifiers with `id`", line=self.line)
            return
        if "sequence" not in has and not has >= {"mutations", "mutated_sequence"}:
            raise TableError(self.path, f"no wild type among {names}", _WILD_TYPE_ADVICE, line=self.line)

    @cached_property
    def _offset(self) -> int | None:
        """The smallest offset of all positions with which the first rows would fit; None if there is none."""
        offsets: set[int] | None = None
        seen = set[tuple[str, int]]()
        with closing(self._rows(ReadStatistics(), Faults())) as rows:
            for row in islice(rows, _MAX_OFFSET_ROWS):
                try:
                    named, mutated = self._mutations(row), self._mutated_sequence(row)
                    sequence = self._wild_type(row, ReadStatistics())
                except DataError:
                    continue
                # Without a wild type, the mutant residues are expected in the mutated sequence.
                residues = named_residues(named or ())
                expected = residues if sequence else [residue.reverse for residue in residues]
                if expected:
                    offsets = matching_offsets(offsets, expected, sequence or mutated or "")
                    seen.update((mutation.wild_type, mutation.position) for mutation in expected)
        return min(offsets, key=abs) if offsets and len(seen) >= _MIN_OFFSET_MUTATIONS else None
