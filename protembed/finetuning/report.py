"""Write the result of fine-tuning: the model, its metrics, predictions for the test split, a model card and a page."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed._version import __version__
from protembed.config.common import TASKS
from protembed.data.fasta import SkippedRecord
from protembed.finetuning.comparison import (
    LENGTH_EDGES,
    MIN_PROTEINS_FOR_INTERVAL,
    SIMILARITY_EDGES,
    Comparison,
    Predictions,
    Subgroup,
    compare,
)
from protembed.finetuning.experiment import Design, ExperimentResult, TrainedModel
from protembed.finetuning.labels import LabelledProtein
from protembed.finetuning.predict import prediction_cells, prediction_header
from protembed.finetuning.splits import nearest
from protembed.finetuning.targets import TaskTable
from protembed.io.writing import write_table, write_text
from protembed.model.card import finetuned_card
from protembed.model.checkpoint import write_checkpoint_files
from protembed.report.figures import draw_confusion, draw_learning, draw_scatter
from protembed.report.page import inline_png, render_page
from protembed.text import LabelText, format_number

METRICS_FILE = "metrics.json"


@dataclass(frozen=True, kw_only=True)
class FinetuneReport:
    """A fine-tuned model and everything that is reported about it.

    Attributes:
        table: The table that the model was trained on.
        comparison: The metrics of the model and its baselines.
        proteins: The test proteins, those of all folds.
        tested: The model's predictions for them.
        similarities: The similarity of each test protein to its nearest training protein, (proteins,).
        nearest: The nearest training protein of each test protein.
        notes: Sentences about the model and its metrics.
        skipped: Proteins that were skipped on request.
    """

    table: TaskTable
    model: TrainedModel
    comparison: Comparison
    proteins: Sequence[LabelledProtein]
    tested: Predictions
    similarities: NDArray[np.float64]
    nearest: Sequence[LabelledProtein]
    notes: Sequence[str]
    skipped: Sequence[SkippedRecord]

    @classmethod
    def from_experiment(
        cls,
        design: Design,
        experiment: ExperimentResult,
        notes: Sequence[str],
        skipped: Sequence[SkippedRecord],
    ) -> "FinetuneReport":
        """Compare the model with its baselines, and find the nearest training protein of each test protein."""
        task, folds = design.final.task, design.folds
        truth = [target for table in folds for target in table.targets["test"]]
        neighbours, similarities = list[LabelledProtein](), list[NDArray[np.float64]]()
        for table in folds:
            indices, similarity = nearest(table.sequences("test"), table.sequences("train"))
            neighbours += [table.splits["train"][index] for index in indices]
            similarities.append(similarity)
        return cls(
            table=design.final,
            model=experiment.final,
            comparison=compare(task, truth, experiment.predictions, is_random=experiment.is_random),
            proteins=[protein for table in folds for protein in table.splits["test"]],
            tested=Predictions(task=task, truth=truth, predicted=experiment.final_predictions),
            similarities=np.concatenate(similarities),
            nearest=neighbours,
            notes=notes,
            skipped=skipped,
        )


def _prediction_rows(report: FinetuneReport) -> Iterator[list[str]]:
    table, head = report.table, report.model.checkpoint.task_head
    assert head is not None
    threshold = float(head.threshold)
    for protein, prediction in zip(report.proteins, report.tested.predicted, strict=True):
        cells = prediction_cells(prediction, table.task, table.classes, threshold)
        yield [protein.id, LabelText(protein.label), *cells]


def _similarity_rows(report: FinetuneReport) -> Iterator[list[str]]:
    for protein, similarity, neighbour in zip(report.proteins, report.similarities, report.nearest, strict=True):
        yield [protein.id, f"{similarity:.3f}", neighbour.id if similarity > 0 else ""]


def _facts(report: FinetuneReport) -> dict[str, str]:
    """Collect the facts about the model that its card shows, by name."""
    comparison = report.comparison
    facts = {"encoder": str(report.model.checkpoint.metadata.configuration["from_model"])}
    facts |= {f"{split} proteins": f"{size:,}" for split, size in report.table.split_sizes.items()}
    facts["tested on"] = f"{len(report.proteins):,} proteins"
    for name, metric in comparison.model_metrics.items():
        baselines = ", ".join(
            f"{predictor} {_format_value(metrics[name].value)}"
            for predictor, metrics in comparison.predictors.items()
            if predictor != comparison.model
        )
        interval = "" if metric.low is None else f" [{_format_value(metric.low)}, {_format_value(metric.high)}]"
        facts[comparison.metric_names[name]] = f"{_format_value(metric.value)}{interval} ({baselines})"
    return facts


def _format_value(value: float | None) -> str:
    return "undefined" if value is None else format_number(value)


def _page(report: FinetuneReport, by_similarity: Sequence[Subgroup], by_length: Sequence[Subgroup]) -> str:
    metadata, table = report.model.checkpoint.metadata, report.table
    kind = f"{len(table.classes)} classes" if table.classes else "a value"
    sizes = ", ".join(f"{size:,} {split}" for split, size in report.table.split_sizes.items())
    return render_page(
        "finetuning.html",
        version=__version__,
        target=metadata.target,
        summary=f"{table.task.name} ({kind}); {sizes} proteins; {len(report.proteins):,} tested",
        comparison=report.comparison,
        metrics=list(report.comparison.model_metrics),
        names=report.comparison.metric_names,
        min_proteins=MIN_PROTEINS_FOR_INTERVAL,
        notes=report.notes,
        figures=list(_figures(report)),
        by_similarity=[(_name_subgroup(subgroup, ""), subgroup) for subgroup in by_similarity],
        by_length=[(_name_subgroup(subgroup, " residues"), subgroup) for subgroup in by_length],
    )


def _figures(report: FinetuneReport) -> list[tuple[str, str, str]]:
    """Draw the figures of the page: title, picture and caption of each."""
    figures: list[tuple[str, str, str]] = []
    table, log = report.table, report.model.log
    if log:
        caption = "Training loss of each step (thin), and validation loss after each epoch."
        figures.append(("Training", inline_png(draw_learning(log)), caption))
    truth, predictions = report.tested.flatten()
    if table.task.label_kind == "class":
        assert table.classes is not None
        picture = draw_confusion(truth, predictions, table.classes)
        figures.append(("Confusion matrix", inline_png(picture), "Rows are the true classes and add up to one."))
    elif table.task.label_kind == "value":
        picture = draw_scatter(truth, predictions)
        caption = f"Each point is a test {'residue' if table.task.per_residue else 'protein'}."
        figures.append(("Predicted against measured", inline_png(picture), caption))
    return figures


def _name_subgroup(subgroup: Subgroup, unit: str) -> str:
    if subgroup.high is None:
        return f"{subgroup.low:g}{unit} or more" if subgroup.low != 1 else "1"
    return f"{subgroup.low:g} to {subgroup.high:g}{unit}"


def write_report(directory: Path, report: FinetuneReport) -> dict[str, Any]:
    """Write all files of a fine-tuned model but `metrics.json`, and return the content of that.

    Args:
        directory: An existing directory.
        report: The model and everything that is reported about it.

    Raises:
        OutputError: A file cannot be written.
    """
    table, checkpoint, comparison = report.table, report.model.checkpoint, report.comparison.as_plain_values()
    by_similarity = report.tested.subgroups(report.similarities, SIMILARITY_EDGES)
    lengths = np.array([len(protein.sequence) for protein in report.proteins])
    by_length = report.tested.subgroups(lengths, LENGTH_EDGES)
    checkpoint.metadata = replace(checkpoint.metadata, metrics=comparison)
    write_checkpoint_files(checkpoint, directory, finetuned_card(checkpoint, _facts(report)))
    header = ["id", "label", *prediction_header(table.classes)]
    write_table(directory / "test_predictions.tsv", header, _prediction_rows(report))
    header = ["id", "similarity", "nearest_training_protein"]
    write_table(directory / "test_similarity.tsv", header, _similarity_rows(report))
    if report.skipped:
        rows = ([record.id, record.line, record.reason] for record in report.skipped)
        write_table(directory / "failed.tsv", ["id", "line", "reason"], rows)
    write_text(directory / "report.html", _page(report, by_similarity, by_length))
    return {
        "task": table.task.name,
        "main_metric": table.task.main_metric,
        "num_proteins": table.split_sizes,
        "num_refused": len(report.skipped),
        "notes": list(report.notes),
        "comparison": comparison,
        "by_similarity": [dataclasses.asdict(subgroup) for subgroup in by_similarity],
        "by_length": [dataclasses.asdict(subgroup) for subgroup in by_length],
    }


def read_comparison(metrics: Mapping[str, Any]) -> Comparison:
    """Read the comparison in `metrics.json`, where its former name was `ladder`."""
    plain_values = metrics["comparison"] if "comparison" in metrics else metrics["ladder"]
    return Comparison.from_plain_values(TASKS[metrics["task"]], plain_values)


def is_report(metrics: Mapping[str, Any]) -> bool:
    """Return whether the content of a `metrics.json` is that of a fine-tuned model."""
    try:
        read_comparison(metrics)
        return "notes" in metrics
    except (LookupError, TypeError, AttributeError):
        return False
