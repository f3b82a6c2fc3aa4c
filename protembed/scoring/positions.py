"""The mutated positions of a table of variants, all of whose rows are checked before anything is computed. No torch."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protembed.config.score import ScoreOptions
from protembed.data.fasta import ReadStatistics
from protembed.errors import TableError
from protembed.io.faults import Faults
from protembed.scoring.variants import Variant, VariantTable, read_wild_types
from protembed.text import pluralize


@dataclass(kw_only=True)
class MutatedPositions:
    """The mutated positions of each wild type; complete once `add` has read all variants.

    Attributes:
        positions: Mutated positions of each wild type, from 1.
        num_variants: Number of variants of each wild type that have substitutions alone.
        shifted_lengths: Number of variants with insertions or deletions, by wild type and number of residues.
    """

    positions: dict[str, set[int]] = field(default_factory=dict)
    num_variants: Counter[str] = field(default_factory=Counter)
    shifted_lengths: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self, variants: Iterable[Variant]) -> None:
        """Collect the positions of variants; only wild types, positions and lengths are kept in memory."""
        for variant in variants:
            positions = self.positions.setdefault(variant.wild_type, set())
            if variant.has_indels:
                self.shifted_lengths[variant.wild_type, len(variant.sequence)] += 1
                continue
            positions.update(mutation.position for mutation in variant.substitutions)
            self.num_variants[variant.wild_type] += bool(variant.mutations)

    @property
    def num_positions(self) -> int:
        """Number of mutated positions of all wild types."""
        return sum(map(len, self.positions.values()))

    @property
    def num_with_indels(self) -> int:
        """Number of variants with insertions or deletions."""
        return self.shifted_lengths.total()


@dataclass(frozen=True, kw_only=True)
class CheckedVariants:
    """A table of variants that was read once.

    Attributes:
        table: The table, which can be read again.
        mutated: Mutated positions of its variants.
        statistics: Counts of its rows, and of the unusual residues in the file of wild types.
        num_measured: Number of variants with a measured value.
        num_unreadable: Number of variants whose measured value is not a number.
    """

    table: VariantTable
    mutated: MutatedPositions
    statistics: ReadStatistics
    num_measured: int
    num_unreadable: int

    @classmethod
    def read(cls, paths: Sequence[Path], options: ScoreOptions) -> "CheckedVariants":
        """Read the first of the files, with the wild types of the second if there is one.

        Raises:
            FaultyRowsError: Several rows are invalid.
            DataError: A row, the header or the file of wild types is invalid, or the column of measurements that the
                user named has no number.
        """
        statistics, wild_types = ReadStatistics(), None
        if len(paths) > 1:
            wild_types = read_wild_types(paths[1], reader=options.reader, statistics=statistics)
        table, mutated = VariantTable(paths[0], options.table, wild_types, options.reader), MutatedPositions()
        values: Counter[str] = Counter()
        with Faults() as faults:
            mutated.add(_counted(table, table.read(statistics, faults), values))
        num_measured, num_unreadable = values["number"], values["text"]
        if options.table.measured_column is not None and not num_measured:
            found = f"the column {table.measurement!r} has no number"
            raise TableError(table.path, found, "name a column of measured values with `measured_column`")
        return cls(
            table=table,
            mutated=mutated,
            statistics=statistics,
            num_measured=num_measured,
            num_unreadable=num_unreadable,
        )

    def warnings(self) -> Iterator[str]:
        """Yield what the user should know about the measurements."""
        name, num_wild_types = self.table.measurement, len(self.mutated.positions)
        if name is None or not self.num_measured:
            return
        if self.num_unreadable:
            values = pluralize(self.num_unreadable, "value")
            yield f"{values} of {name!r} cannot be read as a number, and the variants are not compared with them"
        if num_wild_types > 1:
            yield (
                f"the measurements of {num_wild_types:,} wild types are compared together: if their scales differ, "
                "score each wild type's table by itself"
            )


def _counted(table: VariantTable, variants: Iterable[Variant], values: Counter[str]) -> Iterator[Variant]:
    """Count the measured values of variants while they are read."""
    for variant in variants:
        measured = table.measured(variant)
        values["text" if measured is None else "none" if math.isnan(measured) else "number"] += 1
        yield variant
