"""Prediction: from FASTA and a fine-tuned model to a table."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protembed.config.common import DEFAULT_MODEL, DeviceConfig, InputConfig, ModelConfig, Region, Task, choose_region
from protembed.config.finetune import PredictConfig
from protembed.data.fasta import ReadStatistics, Record, read_fasta
from protembed.data.windows import cut_records
from protembed.device import choose_device
from protembed.errors import InputNotFoundError
from protembed.inference.applicability import InputComparison
from protembed.inference.embedding import Embedder, check_finite
from protembed.inference.engine import inference_engine
from protembed.io.reading import (
    STANDARD_STREAM,
    PathLike,
    as_paths,
    check_inputs,
    default_path,
    follow_link,
    unchanged_inputs,
)
from protembed.io.result import check_absent, check_not_an_input, check_table_suffix, result_lock
from protembed.io.text import LabelText, format_row
from protembed.io.writing import output_stream
from protembed.model.catalog import find_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint
from protembed.model.heads import TaskHead


def prediction_header(classes: Sequence[str] | None) -> list[str]:
    """Name the columns that describe a prediction.

    >>> prediction_header(["cytoplasm", "nucleus"])
    ['prediction', 'p_cytoplasm', 'p_nucleus']
    """
    return ["prediction", *(f"p_{name}" for name in classes or ())]


def prediction_cells(
    output: NDArray[np.floating], task: Task, classes: Sequence[str] | None, threshold: float = 0.5
) -> list[str]:
    """Spell one prediction.

    Args:
        output: (classes,) or (labels,) probabilities, or () a value; with a first dimension of residues where each
            residue has an answer of its own.
        task: what was predicted.
        classes: their names, or None for values.
        threshold: the probability from which on a label is predicted.

    Returns:
        The prediction, and the probability of each class. Of residues the prediction is a string if all classes are
        letters, and a list divided by `;` otherwise; their values and probabilities are such lists.

    >>> from protembed.config.common import TASKS
    >>> prediction_cells(np.array([0.25, 0.75]), TASKS["classification"], ["cytoplasm", "nucleus"])
    ['nucleus', '0.25', '0.75']
    >>> prediction_cells(np.array([[0.9, 0.1], [0.2, 0.8]]), TASKS["residue-classification"], ["H", "E"])
    ['HE', '0.9;0.2', '0.1;0.8']
    """
    if classes is None:
        return [_numbers(output)]
    probabilities = np.moveaxis(np.asarray(output), -1, 0)  # (classes,), or (classes, residues)
    if task.label_kind == "labels":
        chosen = [name for name, one in zip(classes, probabilities, strict=True) if one >= threshold]
        return [LabelText(";".join(chosen)), *map(_numbers, probabilities)]
    names = [classes[number] for number in np.atleast_1d(probabilities.argmax(0))]
    are_letters = all(len(name) == 1 for name in classes)
    return [LabelText(("" if are_letters else ";").join(names)), *map(_numbers, probabilities)]


def _numbers(values: NDArray[np.floating]) -> str:
    return ";".join(f"{value:.6g}" for value in np.atleast_1d(values))


@dataclass(frozen=True, kw_only=True)
class PredictSummary:
    """What was predicted.

    Attributes:
        output: the table; None for stdout.
        num_proteins: rows.
        num_refused: records left out on request.
        target: what was predicted.
        region: The residues of each protein that were used, as in `1-70`; None is the whole protein.
        warnings: what the user should know about the input.
    """

    output: Path | None
    num_proteins: int
    num_refused: int
    target: str
    region: str | None
    warnings: Sequence[str]


def predict_fasta(
    fasta: Sequence[PathLike],
    model: ModelConfig,
    prediction: PredictConfig,
    *,
    reader: InputConfig | None = None,
    compute: DeviceConfig | None = None,
    on_protein: Callable[[int], None] = lambda num_residues: None,
) -> PredictSummary:
    """Apply a fine-tuned model to proteins, in the order of the input.

    Args:
        fasta: the files; `-` is stdin.
        model: which model; one that `finetune` made.
        prediction: where to.
        reader: how to read; the defaults if None.
        compute: where to compute; the defaults if None.
        on_protein: told the residues of each protein that is finished.

    Raises:
        InputNotFoundError: the model was not fine-tuned.
        OutputExistsError: the table stands there already.
        TooShortError: A protein ends before the region begins, and is not to be left out.
        ChangedInputError: a file changed while it was read.
        NotFiniteError: what is predicted of a protein is no number.
        ProtembedError: the input, the model or the output does not allow it; see `protembed.errors`.
    """
    reader, compute, files = reader or InputConfig(), compute or DeviceConfig(), as_paths("fasta", fasta)
    named = prediction.output or default_path(files[0], ".predictions.tsv")
    output = follow_link(named)
    check_absent(output, force=prediction.force)
    directory = find_model(model.model)
    check_not_an_input(output, [*files, directory])
    check_table_suffix(named)
    device = choose_device(compute)
    checkpoint = load_checkpoint(directory).to(device)
    head = _head_of(checkpoint, str(model.model or DEFAULT_MODEL))
    predictions = Embedder.from_checkpoint(checkpoint).predictions(head)
    statistics, region = ReadStatistics(), choose_region(prediction.region, checkpoint.metadata.region)
    comparison = InputComparison.with_model(checkpoint, region)
    records = read_fasta(files, on_illegal=reader.on_illegal, statistics=statistics)
    parts = comparison.watch(cut_records(records, region, reader.on_illegal, statistics))
    with (
        unchanged_inputs(),
        result_lock(output),
        inference_engine(compute, device, checkpoint.encoder.shape) as engine,
        output_stream(output) as stream,
    ):
        for line in _lines(engine.run(predictions, parts), head, region, on_protein):
            stream.write(line)
        check_inputs()
    return PredictSummary(
        output=None if output == STANDARD_STREAM else output,
        num_proteins=statistics.num_records,
        num_refused=len(statistics.skipped),
        target=checkpoint.metadata.target or "",
        region=None if region is None else str(region),
        warnings=[*statistics.warnings(), *comparison.warnings()],
    )


def _lines(
    results: Iterable[tuple[Record, NDArray[np.float32]]],
    head: TaskHead,
    region: Region | None,
    on_protein: Callable[[int], None],
) -> Iterator[bytes]:
    """Spell the table, line by line, from what the head says of each protein; of parts it says which residues."""
    threshold = float(head.threshold)
    # Two numbers, because spreadsheets read 1-12 as a date.
    columns = [] if region is None else ["first_residue", "last_residue"]
    yield format_row(["id", *columns, *prediction_header(head.classes)])
    for record, output_of_head in results:
        check_finite(record.id, output_of_head, "predictions")
        residues = [] if region is None else [region.first, region.first + len(record.sequence) - 1]
        cells = prediction_cells(output_of_head, head.task, head.classes, threshold)
        yield format_row([record.id, *residues, *cells])
        on_protein(len(record.sequence))


def _head_of(checkpoint: Checkpoint, name: str) -> TaskHead:
    """Return the head of a fine-tuned model; the name is for the message about any other."""
    if checkpoint.task_head is None:
        advice = "make one by `protembed finetune labels.csv`, and name its directory"
        raise InputNotFoundError(name, "this model has no head to predict with", advice)
    return checkpoint.task_head
