"""What every score of proteins needs before the model is loaded: the model, its window, what makes results the same."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protembed.config.base import as_plain_values
from protembed.config.score import ScoreOptions
from protembed.errors import ConfigError
from protembed.inference.precision import resolve_precision
from protembed.io.fingerprint import make_fingerprint
from protembed.io.result import Result
from protembed.model.catalog import ResolvedModel, locate_model
from protembed.model.formats import format_of
from protembed.model.hf_format import check_vocabulary
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
        return cls._with_model(options, locate_model(options.model.only))

    @classmethod
    def make_each(cls, options: ScoreOptions) -> "list[ScoringRequest]":
        """Find one model or several, which all give probabilities of the same amino acids.

        Raises:
            ConfigError: A model is given twice, or cannot compute windows of the length requested.
            InputNotFoundError: There is no such model.
            ModelFormatError: The vocabulary of one of several models is not that of its architecture.
        """
        requests = [cls._with_model(options, locate_model(name)) for name in options.model.names]
        if len(requests) > 1:
            seen = set[str]()
            for request in requests:
                check_vocabulary(request.model.directory, format_of(request.model.shape))
                if request.model.sha256() in seen:
                    raise ConfigError("model", request.model.name, "the same model is given twice")
                seen.add(request.model.sha256())
        return requests

    @classmethod
    def _with_model(cls, options: ScoreOptions, model: ResolvedModel) -> "ScoringRequest":
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

    def warnings(self) -> Iterator[str]:
        """Warn of a model that the user did not name, if it was measured to rank variants worse than BLOSUM62."""
        measured = self.model.metadata.metrics.get("variants", {})
        worse = [
            f"{values['model']:.2f} against {values['BLOSUM62']:.2f} with {name}"
            for name, values in measured.items()
            if values["model"] < values["BLOSUM62"]
        ]
        if worse and self.options.model.names == [None]:
            yield (
                f"the bundled model ranks variants worse than BLOSUM62 does (Spearman {', '.join(worse)}); name "
                "another, such as --model esm2_t33_650M"
            )


def describe_models(requests: Sequence[ScoringRequest]) -> dict[str, Any]:
    """Return what a record holds of several models beside the first: nothing for one, whose settings suffice."""
    if len(requests) == 1:
        return {}
    models = [request.model for request in requests]
    names = [f"{model.name}@{model.revision}" if model.revision else model.name for model in models]
    hashes = "".join(model.sha256() for model in models)
    return {"models": names, "models_sha256": hashlib.sha256(hashes.encode()).hexdigest()}
