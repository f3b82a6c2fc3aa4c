"""Predictions of a fine-tuned model: computing them, and formatting them as cells of a table."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from protembed.callbacks import Callbacks
from protembed.config.common import Region
from protembed.config.finetune import PredictOptions
from protembed.data.fasta import ReadStatistics, Record
from protembed.data.sequence_tables import ProteinFiles, TableRecord
from protembed.data.windows import cut_records
from protembed.errors import ConfigError, NotFinetunedError
from protembed.finetuning.labels import LabelledProtein
from protembed.inference.applicability import InputComparison
from protembed.inference.embedding import Embedder, check_finite
from protembed.inference.engine import Engine, inference_engine
from protembed.inference.loading import load_for_inference
from protembed.io.tables import name_new_columns, separator_of
from protembed.io.writing import atomic_file
from protembed.model.catalog import ResolvedModel
from protembed.model.checkpoint import Checkpoint
from protembed.model.heads import TaskHead
from protembed.text import LabelText, format_row


def prediction_header(classes: Sequence[str] | None) -> list[str]:
    """Name the columns of a prediction: of a class, of several labels, or, without classes, of a value.

    >>> prediction_header(["cytoplasm", "nucleus"])
    ['prediction', 'p_cytoplasm', 'p_nucleus']
    """
    return ["prediction", *(f"p_{name}" for name in classes or ())]


def _predicted_names(prediction: NDArray[np.floating], head: TaskHead, classes: Sequence[str]) -> str:
    """Name the predicted class or labels; the classes of residues are joined if each name is one letter."""
    if head.task.label_kind == "labels":
        threshold = float(head.threshold)
        return ";".join(name for name, value in zip(classes, prediction, strict=True) if value >= threshold)
    are_letters = all(len(name) == 1 for name in classes)
    return ("" if are_letters else ";").join(classes[number] for number in np.atleast_1d(prediction.argmax(-1)))


def prediction_cells(prediction: NDArray[np.floating], head: TaskHead) -> list[str]:
    """Format the prediction for one protein as cells of a table.

    Args:
        prediction: Probabilities, (classes,) or (labels,), or a value, (); with a first dimension of residues in a task
            that predicts each residue.
        head: The head that predicted it.

    Returns:
        The predicted class, labels or value, and the probability of each class. The classes of residues are one string
        if each name is one letter, else a list separated by `;`, as are the values and probabilities of residues.

    >>> from protembed.config.common import TASKS
    >>> prediction_cells(np.array([0.25, 0.75]), TaskHead(1, TASKS["classification"], ["cytoplasm", "nucleus"]))
    ['nucleus', '0.25', '0.75']
    >>> prediction_cells(np.array([[0.9, 0.1], [0.2, 0.8]]), TaskHead(1, TASKS["residue-classification"], ["H", "E"]))
    ['HE', '0.9;0.2', '0.1;0.8']
    """
    if head.classes is None:
        return [_format_numbers(prediction)]
    names = _predicted_names(prediction, head, head.classes)
    return [LabelText(names), *map(_format_numbers, np.moveaxis(prediction, -1, 0))]


def prediction_columns(predictions: Sequence[NDArray[np.float32]], head: TaskHead) -> dict[str, Any]:
    """Arrange predictions, each as for `prediction_cells`, as the columns of the table, with numbers as numbers.

    Returns:
        Arrays, (proteins,), float32, of probabilities and values, or lists of (residues,) arrays in a task that
        predicts each residue; and lists of texts.
    """

    def column(values: Sequence[NDArray[np.float32]]) -> Any:
        return list(values) if head.task.per_residue else np.array(values, dtype=np.float32)

    classes = head.classes
    if classes is None:
        return {"prediction": column(predictions)}
    names = [_predicted_names(prediction, head, classes) for prediction in predictions]
    columns = [column([prediction[..., number] for prediction in predictions]) for number in range(len(classes))]
    return dict(zip(prediction_header(classes), [names, *columns], strict=True))


def _format_numbers(values: NDArray[np.floating]) -> str:
    return ";".join(f"{value:.6g}" for value in np.atleast_1d(values))


Protein = TypeVar("Protein", Record, LabelledProtein)


def predict_proteins(
    engine: Engine, embedder: Embedder, head: TaskHead, proteins: Iterable[Protein]
) -> Iterator[tuple[Protein, NDArray[np.float32]]]:
    """Yield each protein with its prediction, which `prediction_cells` formats.

    Raises:
        NotFiniteError: The prediction for a protein is not a finite number.
    """
    for protein, prediction in engine.run(embedder.predictions(head), proteins):
        check_finite(protein.id, prediction, "predictions")
        yield protein, prediction


@dataclass(kw_only=True)
class _PredictionTable:
    """The table of predictions.

    Attributes:
        warnings: Sentences about the names of its columns; complete once `lines` has begun.
    """

    proteins: ProteinFiles
    head: TaskHead
    region: Region | None
    has_descriptions: bool
    separator: str
    warnings: list[str] = field(default_factory=list)

    def lines(self, predictions: Iterable[tuple[Record, NDArray[np.float32]]], callbacks: Callbacks) -> Iterator[bytes]:
        """Format the table line by line."""
        for number, (record, prediction) in enumerate(predictions):
            if number == 0:  # only now, because the columns of a table in a pipe are known once it is read
                yield format_row(self._header(), self.separator)
            residues = [] if self.region is None else [self.region.first, self.region.first + len(record.sequence) - 1]
            cells = [*self._cells(record), *residues, *prediction_cells(prediction, self.head)]
            yield format_row(cells, self.separator)
            callbacks.on_progress(len(record.sequence))

    def _header(self) -> list[str]:
        # Two numbers, because spreadsheets read 1-12 as a date.
        residues = [] if self.region is None else ["first_residue", "last_residue"]
        new, table = [*residues, *prediction_header(self.head.classes)], self.proteins.columns
        if table is None:
            return ["id", *(["description"] if self.has_descriptions else []), *new]
        if self.has_descriptions:
            raise ConfigError("descriptions", True, "only FASTA has them; a table keeps all its columns")
        names, self.warnings = name_new_columns(table.header, new, self.proteins.name, table.line)
        return [*table.header, *names]

    def _cells(self, record: Record) -> Sequence[str]:
        if isinstance(record, TableRecord):
            return record.cells
        return [record.id, record.description[len(record.id) :].strip()] if self.has_descriptions else [record.id]


def require_head(checkpoint: Checkpoint, name: str) -> TaskHead:
    """Return the head of a fine-tuned model.

    Raises:
        NotFinetunedError: The model, of this name, was not fine-tuned.
    """
    if checkpoint.task_head is None:
        raise NotFinetunedError(name)
    return checkpoint.task_head


def write_predictions(
    table: Path,
    model: ResolvedModel,
    proteins: ProteinFiles,
    region: Region | None,
    options: PredictOptions,
    callbacks: Callbacks,
) -> dict[str, Any]:
    """Predict labels of proteins, and write them to a table; return counts and warnings for its record.

    Raises:
        ProtembedError: A protein, the model or the device does not allow it.
    """
    on_illegal, statistics = options.reader.on_illegal, ReadStatistics()
    checkpoint = load_for_inference(model, options.compute, torch.float32, callbacks)
    head, embedder = require_head(checkpoint, model.name), Embedder.from_checkpoint(checkpoint)
    comparison = InputComparison.from_checkpoint(checkpoint, region)
    records = cut_records(proteins.read(statistics), region, on_illegal, statistics)
    predicted = _PredictionTable(
        proteins=proteins,
        head=head,
        region=region,
        has_descriptions=options.prediction.descriptions,
        separator=separator_of(table),
    )
    shape, layers = checkpoint.encoder.shape, checkpoint.offloaded
    with inference_engine(options.compute, checkpoint.device, shape, layers=layers) as engine:
        predictions = predict_proteins(engine, embedder, head, comparison.observe(records))
        with atomic_file(table) as stream:
            stream.writelines(predicted.lines(predictions, callbacks))
    columns = proteins.columns
    return {
        "num_proteins": statistics.num_records,
        "num_refused": len(statistics.skipped),
        **statistics.left_out(),
        "target": checkpoint.metadata.target or "",
        **(
            {"sequence_column": columns.sequence_name, "id_column": columns.id_name, "notes": proteins.notes}
            if columns
            else {}
        ),
        "warnings": [*statistics.warnings(), *predicted.warnings, *comparison.warnings()],
    }
