"""Predict with a fine-tuned model: from FASTA to a table. Imports torch only to compute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from protembed.callbacks import Callbacks
from protembed.config.common import DEFAULT_MODEL, choose_region
from protembed.config.finetune import PredictOptions
from protembed.errors import NotFinetunedError
from protembed.io.fingerprint import make_fingerprint
from protembed.io.reading import Paths, as_paths, check_inputs, default_path, unchanged_inputs
from protembed.io.result import Result
from protembed.io.writing import seekable_inputs
from protembed.model.catalog import locate_model


@dataclass(frozen=True, kw_only=True)
class PredictSummary:
    """The result of a prediction.

    Attributes:
        output: The path of the table; None for stdout.
        num_refused: Records that were skipped on request.
        region: The residues of each protein that were used, as in `1-70`; None is the whole protein.
        warnings: Sentences about doubtful properties of the input.
        was_done: Whether the same command had finished before.
    """

    output: Path | None
    num_proteins: int
    num_refused: int
    target: str
    region: str | None
    warnings: Sequence[str] = ()
    was_done: bool = False


def predict_fasta(
    fasta: Paths, options: PredictOptions | None = None, callbacks: Callbacks | None = None
) -> PredictSummary:
    """Predict labels of proteins with a fine-tuned model, in the order of the input.

    Args:
        fasta: The paths of FASTA files; `-` is stdin.
        options: All options of the command, the fine-tuned model among them.
        callbacks: Functions that receive the residues of each finished protein.

    Raises:
        NotFinetunedError: The model was not fine-tuned.
        OutputExistsError: The table exists, and another command made it.
        TooShortError: A protein ends before the region begins, and the options do not skip it.
        ChangedInputError: A file changed while it was read.
        NotFiniteError: The prediction for a protein is not a finite number.
        ProtembedError: The input, the model or the output does not allow it; see `protembed.errors`.
    """
    options, callbacks, files = options or PredictOptions(), callbacks or Callbacks(), as_paths("fasta", fasta)
    model = locate_model(options.model.model)
    output = options.prediction.output or default_path(files[0], ".predictions.tsv")
    result = Result.table(output, [*files, model.directory], force=options.prediction.force)
    if model.metadata.target is None:
        raise NotFinetunedError(str(options.model.model or f"{DEFAULT_MODEL} (the default)"))
    region = choose_region(options.prediction.region, model.metadata.region)
    settings = {"region": None if region is None else str(region), "on_illegal": options.reader.on_illegal}
    with unchanged_inputs(), seekable_inputs(files, needed=result.output is not None) as paths:
        fingerprint = make_fingerprint(options, settings, model, paths if result.output else None)
        with result.claim(fingerprint, callbacks) as claim:
            if claim.recorded is not None:
                return _summary(result.output, claim.recorded, was_done=True)
            from protembed.finetuning.prediction import write_predictions  # which imports torch

            facts = write_predictions(claim.path, model, paths, region, options, callbacks)
            check_inputs()
            return _summary(result.output, claim.publish({**fingerprint, **facts}))


def _summary(output: Path | None, recorded: Mapping[str, Any], *, was_done: bool = False) -> PredictSummary:
    facts: dict[str, Any] = {spec.name: recorded[spec.name] for spec in fields(PredictSummary) if spec.name in recorded}
    return PredictSummary(output=output, was_done=was_done, **{"region": None, **facts})
