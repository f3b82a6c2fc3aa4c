"""What every score of proteins needs before the model is loaded: the model, its window, what makes results the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protembed.config.base import as_plain_values
from protembed.config.score import ScoreOptions
from protembed.inference.precision import resolve_precision
from protembed.io.fingerprint import make_fingerprint
from protembed.io.result import Result
from protembed.model.catalog import ResolvedModel, locate_model
from protembed.model.longest import check_max_residues


@dataclass(frozen=True, kw_only=True)
class ScoringRequest:
    """The model and the options with which proteins are scored.

    Attributes:
        window_residues: Longest window, in residues: as requested, else as recorded in the model.
    """

    options: ScoreOptions
    model: ResolvedModel
    window_residues: int

    @classmethod
    def make(cls, options: ScoreOptions) -> "ScoringRequest":
        """Find the model.

        Raises:
            ConfigError: The model cannot compute windows of the length requested.
            InputNotFoundError: There is no such model.
        """
        model = locate_model(options.model.model)
        window = options.scoring.window_residues or model.metadata.window_residues
        window = check_max_residues(model.shape, "window_residues", window)
        return cls(options=options, model=model, window_residues=window)

    def fingerprint(self, result: Result, paths: Sequence[Path], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Collect what makes two results the same.

        Args:
            result: The result, of which an earlier process may have recorded the precision.
            paths: Paths of the input, which can be read more than once.
            settings: Settings beside those of `ScoreConfig` and `InputConfig`.
        """
        scoring = self.options.scoring
        values = as_plain_values(scoring, self.options.reader) | {"window_residues": self.window_residues}
        inputs = paths if result.output else None
        fingerprint = make_fingerprint(self.options, values | dict(settings), self.model, inputs)
        # After the input was read, because a GPU can decide this, and torch, which finds it, takes seconds to import.
        return fingerprint | {"precision": resolve_precision(scoring.precision, result, self.options.compute)}
