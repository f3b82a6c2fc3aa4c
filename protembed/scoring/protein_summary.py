"""What the commands that score whole proteins report, whatever they write about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from protembed.config.score import ScoreMethod
from protembed.io.result import recorded_values


@dataclass(frozen=True, kw_only=True)
class ProteinSummary:
    """What was computed of the proteins of a FASTA file.

    Attributes:
        kind: Kind of the scores.
        output: File that was written; None for stdout.
        formula: Formula of the scores, for people.
        num_distinct: Different sequences, each of which was computed once.
        num_windowed: Proteins longer than the window.
        num_refused: Records that were left out on request.
        num_resumed: Proteins that an earlier process had computed.
        warnings: What the user should know about the input and the model, in sentences.
        was_done: Whether the same command had finished before.
    """

    kind: str
    output: Path | None
    method: ScoreMethod
    formula: str
    num_proteins: int
    num_residues: int
    num_distinct: int
    num_windowed: int
    window_residues: int
    num_refused: int
    num_resumed: int = 0
    warnings: Sequence[str] = ()
    was_done: bool = False

    @classmethod
    def from_record(cls, recorded: Mapping[str, Any], **facts: Any) -> Self:
        """Make a summary of what is recorded beside the result.

        Args:
            recorded: Content of the record.
            facts: Fields that the record does not hold.
        """
        return cls(**{**recorded_values(cls, recorded), **facts})
