"""The proteins of a FASTA file whose masked positions are to be filled in, checked before anything is computed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protembed.config.common import InputConfig
from protembed.data.alphabet import MASK_LETTER
from protembed.data.fasta import Record
from protembed.errors import NoProteinError
from protembed.scoring.protein_input import ProteinInput, Requirement
from protembed.text import format_percent, pluralize

# ESM's models were trained with 15 % of the residues masked; beyond twice that they have seen nothing alike.
_MAX_MASKED_FRACTION = 0.3


def check_masked(record: Record) -> None:
    """Check that a record has a masked position.

    Raises:
        NoProteinError: It has none.
    """
    if MASK_LETTER not in record.sequence:
        raise NoProteinError(record.path, record.line, record.id, "has no masked position, ? or <mask>")


@dataclass(frozen=True, kw_only=True)
class MaskedProteins:
    """The records of a FASTA file with masked positions, `?` in their sequences, that was read once.

    Attributes:
        num_positions: Number of masked positions.
        num_mostly_masked: Number of proteins with more masked positions than models know from their training.
    """

    input: ProteinInput
    num_positions: int
    num_mostly_masked: int

    @classmethod
    def scan(cls, path: Path, reader: InputConfig) -> "MaskedProteins":
        """Read all records of a file that can be read again.

        Raises:
            DataError: The file is not FASTA, or a record is invalid or has no masked position.
        """
        advice = "write ? or <mask> where residues are to be filled in"
        requirement = Requirement(check=check_masked, advice=advice, with_masks=True)
        proteins, num_positions, num_mostly_masked = ProteinInput.scan(path, reader, requirement), 0, 0
        for record in proteins.read():
            num_masked = record.sequence.count(MASK_LETTER)
            num_positions += num_masked
            num_mostly_masked += num_masked > _MAX_MASKED_FRACTION * len(record.sequence)
        return cls(input=proteins, num_positions=num_positions, num_mostly_masked=num_mostly_masked)

    def warnings(self) -> Iterator[str]:
        """Yield what the user should know about the masked positions, in sentences."""
        if self.num_mostly_masked:
            proteins = pluralize(self.num_mostly_masked, "protein")
            yield (
                f"more than {format_percent(_MAX_MASKED_FRACTION)} of the residues are masked in {proteins}: the "
                "models were trained with about 15 % masked, and are unreliable there"
            )
