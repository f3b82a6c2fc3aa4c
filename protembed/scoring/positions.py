"""The mutated positions of a table of variants, all of whose rows are checked before anything is computed. No torch."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protembed.config.score import ScoreOptions
from protembed.data.fasta import ReadStatistics
from protembed.io.faults import Faults
from protembed.scoring.variants import Variant, VariantTable, read_wild_types


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
    """

    table: VariantTable
    mutated: MutatedPositions
    statistics: ReadStatistics

    @classmethod
    def read(cls, paths: Sequence[Path], options: ScoreOptions) -> "CheckedVariants":
        """Read the first of the files, with the wild types of the second if there is one.

        Raises:
            FaultyRowsError: Several rows are invalid.
            DataError: A row, the header or the file of wild types is invalid.
        """
        statistics, wild_types = ReadStatistics(), None
        if len(paths) > 1:
            wild_types = read_wild_types(paths[1], reader=options.reader, statistics=statistics)
        table, mutated = VariantTable(paths[0], options.table, wild_types, options.reader), MutatedPositions()
        with Faults() as faults:
            mutated.add(table.read(statistics, faults))
        return cls(table=table, mutated=mutated, statistics=statistics)
