"""The proteins of a FASTA file whose masked positions are to be filled in, checked before anything is computed."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from protembed.config.common import InputConfig
from protembed.data.alphabet import MASK_LETTER
from protembed.data.fasta import ReadStatistics, Record, read_fasta
from protembed.errors import NoProteinError
from protembed.text import format_percent, pluralize

# ESM's models were trained with 15 % of the residues masked; beyond twice that they have seen nothing alike.
_MAX_MASKED_FRACTION = 0.3


@dataclass(kw_only=True)
class MaskedProteins:
    """The records of a FASTA file with masked positions; the counts are complete once `check` has read them.

    Attributes:
        path: FASTA file, which can be read again.
        statistics: Counts of its records.
        num_positions: Number of masked positions.
        num_mostly_masked: Number of proteins with more masked positions than models know from their training.
    """

    path: Path
    reader: InputConfig
    statistics: ReadStatistics = field(default_factory=ReadStatistics)
    num_positions: int = 0
    num_mostly_masked: int = 0

    def check(self) -> None:
        """Read all records, and count them.

        Raises:
            DataError: The file is not FASTA, or a record is invalid or has no masked position.
        """
        for record in self._read(self.statistics):
            num_masked = record.sequence.count(MASK_LETTER)
            self.num_positions += num_masked
            self.num_mostly_masked += num_masked > _MAX_MASKED_FRACTION * len(record.sequence)

    def read(self) -> Iterator[Record]:
        """Read the records again, with `?` at masked positions."""
        return self._read(ReadStatistics())

    def _read(self, statistics: ReadStatistics) -> Iterator[Record]:
        reader = self.reader
        records = read_fasta(
            self.path, on_illegal=reader.on_illegal, gaps=reader.gaps, with_masks=True, statistics=statistics
        )
        for record in records:
            if MASK_LETTER in record.sequence:
                yield record
                continue
            statistics.num_records -= 1
            statistics.num_residues -= len(record.sequence)
            error = NoProteinError(record.path, record.line, record.id, "has no masked position, ? or <mask>")
            statistics.skip_or_raise(record.id, error, reader.on_illegal)
        if not statistics.num_records:
            statistics.check_not_all_skipped("write ? or <mask> where residues are to be filled in")

    def warnings(self) -> Iterator[str]:
        """Yield what the user should know about the masked positions, in sentences."""
        if self.num_mostly_masked:
            proteins = pluralize(self.num_mostly_masked, "protein")
            yield (
                f"more than {format_percent(_MAX_MASKED_FRACTION)} of the residues are masked in {proteins}: the "
                "models were trained with about 15 % masked, and are unreliable there"
            )
