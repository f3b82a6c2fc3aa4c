"""Predict with a fine-tuned model: from FASTA or a table to a table. Imports torch only to compute."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from protembed.callbacks import Callbacks
from protembed.config.common import DEFAULT_MODEL, choose_region
from protembed.config.finetune import PredictOptions
from protembed.data.sequence_tables import ProteinFiles, TableReading
from protembed.errors import NotFinetunedError
from protembed.io.fingerprint import make_fingerprint
from protembed.io.reading import Paths, as_paths, check_inputs, default_path, unchanged_inputs
from protembed.io.result import Result, recorded_values
from protembed.io.writing import seekable_inputs
from protembed.model.catalog import locate_model


@dataclass(frozen=True, kw_only=True)
class PredictSummary:
    """The result of a prediction.

    Attributes:
        output: The path of the table; None for stdout.
        num_refused: Records that were skipped on request.
        region: The residues of each protein that were used, as in `1-70`; None is the whole protein.
        sequence_column: The column that the sequences of a table were read from; None for FASTA.
        id_column: The column of identifiers; None for FASTA, and if there is none.
        notes: Sentences about how a table was read.
        warnings: Sentences about doubtful properties of the input.
        was_done: Whether the same command had finished before.
    """

    output: Path | None
    num_proteins: int
    num_refused: int
    target: str
    region: str | None
    sequence_column: str | None = None
    id_column: str | None = None
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    was_done: bool = False


def predict_fasta(
    fasta: Paths, options: PredictOptions | None = None, callbacks: Callbacks | None = None
) -> PredictSummary:
    """Predict labels of proteins with a fine-tuned model, in the order of the input.

    The result is a CSV if its name ends in .csv, else a TSV. The rows of a table keep all their columns.

    Args:
        fasta: The paths of FASTA files, or of tables with a column of sequences; `-` is stdin.
        options: All options of the command, the fine-tuned model among them.
        callbacks: Functions that receive the residues of each finished protein.

    Raises:
        NotFinetunedError: The model was not fine-tuned.
        TableError: A table has no column of sequences, or a row no sequence.
        OutputExistsError: The table exists, and another command made it.
        TooShortError: A protein ends before the region begins, and the options do not skip it.
        ChangedInputError: A file changed while it was read.
        NotFiniteError: The prediction for a protein is not a finite number.
        ProtembedError: The input, the model or the output does not allow it; see `protembed.errors`.
    """
    options, callbacks, files = options or PredictOptions(), callbacks or Callbacks(), as_paths("fasta", fasta)
    prediction, model = options.prediction, locate_model(options.model.model)
    output = prediction.output or default_path(files[0], ".predictions.tsv")
    result = Result.table(output, [*files, model.directory], force=prediction.force)
    if model.metadata.target is None:
        raise NotFinetunedError(str(options.model.model or f"{DEFAULT_MODEL} (the default)"))
    region = choose_region(prediction.region, model.metadata.region)
    reading = TableReading(
        sequence=prediction.sequence,
        id=prediction.id,
        on_illegal=options.reader.on_illegal,
        gaps=options.reader.gaps,
        on_missing=prediction.on_missing,
    )
    named = None if region is None else str(region)
    settings = {"region": named, "descriptions": prediction.descriptions, **asdict(reading)}
    with unchanged_inputs(), seekable_inputs(files, needed=result.output is not None) as paths:
        fingerprint = make_fingerprint(options, settings, model, paths if result.output else None)
        with result.claim(fingerprint, callbacks) as claim:
            if claim.recorded is not None:
                return _summary(result.output, claim.recorded, was_done=True)
            proteins = ProteinFiles(paths, reading)
            from protembed.finetuning.prediction import write_predictions  # which imports torch

            facts = write_predictions(claim.path, model, proteins, region, options, callbacks)
            check_inputs()
            return _summary(result.output, claim.publish({**fingerprint, **facts}))


def _summary(output: Path | None, recorded: Mapping[str, Any], *, was_done: bool = False) -> PredictSummary:
    facts = recorded_values(PredictSummary, recorded)
    return PredictSummary(output=output, was_done=was_done, **{"region": None, **facts})
