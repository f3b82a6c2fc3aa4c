"""What a fine-tuning leaves behind: the model, its figures, predictions of the test part, a card and a page."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed._version import __version__
from protembed.data.fasta import SkippedRecord
from protembed.finetuning.comparison import Comparison
from protembed.finetuning.evaluation import (
    LENGTH_EDGES,
    MIN_PROTEINS_FOR_INTERVAL,
    SIMILARITY_EDGES,
    Output,
    Subgroup,
    joined,
    measure_bands,
)
from protembed.finetuning.labels import LabelledProtein, Split
from protembed.finetuning.predict import prediction_cells, prediction_header
from protembed.finetuning.targets import Target, Targets
from protembed.io.text import LabelText, format_number
from protembed.io.writing import write_json, write_table, write_text
from protembed.model.card import finetuned_card
from protembed.model.checkpoint import Checkpoint, write_checkpoint_files
from protembed.report.figures import draw_confusion, draw_learning, draw_scatter
from protembed.report.page import inline_png, render_page

METRICS_FILE = "metrics.json"


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """What has come of a fine-tuning.

    Attributes:
        checkpoint: the model with its head.
        targets: task and classes.
        sizes: proteins of each split.
        identity: of the command.
        ladder: the model's figures beside those of simpler ways.
        proteins: that were measured.
        truth: the answer of each.
        outputs: the model's for each.
        similarities: (proteins,), of each to its nearest training protein.
        neighbours: those training proteins.
        notes: what should be known about model and figures, in sentences.
        skipped: records that were left out on request.
        log: of the training's steps; empty where there was none.
    """

    checkpoint: Checkpoint
    targets: Targets
    sizes: Mapping[Split, int]
    identity: Mapping[str, Any]
    ladder: Comparison
    proteins: Sequence[LabelledProtein]
    truth: Sequence[Target]
    outputs: Sequence[Output]
    similarities: NDArray[np.float64]
    neighbours: Sequence[LabelledProtein]
    notes: Sequence[str]
    skipped: Sequence[SkippedRecord]
    log: Sequence[Mapping[str, Any]]

    def by_similarity(self) -> list[Subgroup]:
        """Measure the test proteins in groups of similarity to their nearest training protein."""
        return measure_bands(self.targets.task, self.truth, self.outputs, self.similarities, SIMILARITY_EDGES)

    def by_length(self) -> list[Subgroup]:
        """Measure the test proteins in groups of length."""
        lengths = np.array([len(protein.sequence) for protein in self.proteins])
        return measure_bands(self.targets.task, self.truth, self.outputs, lengths, LENGTH_EDGES)


def write_result(directory: Path, result: FinetuneResult) -> None:
    """Write all files of a fine-tuned model into an existing directory.

    Raises:
        OutputError: they cannot be written.
    """
    by_similarity, by_length = result.by_similarity(), result.by_length()
    ladder = result.ladder.as_plain_values()
    checkpoint = result.checkpoint
    checkpoint.metadata = replace(checkpoint.metadata, metrics=ladder)
    metrics = {
        "identity": result.identity,
        "task": result.targets.task.name,
        "main_metric": result.targets.task.main_metric,
        "num_proteins": dict(result.sizes),
        "num_refused": len(result.skipped),
        "notes": list(result.notes),
        "ladder": ladder,
        "by_similarity": [dataclasses.asdict(band) for band in by_similarity],
        "by_length": [dataclasses.asdict(band) for band in by_length],
    }
    write_checkpoint_files(checkpoint, directory, finetuned_card(checkpoint, _facts(result)))
    write_json(directory / METRICS_FILE, metrics)
    header = ["id", "label", *prediction_header(result.targets.classes)]
    write_table(directory / "test_predictions.tsv", header, _prediction_rows(result))
    header = ["id", "similarity", "nearest_training_protein"]
    write_table(directory / "test_similarity.tsv", header, _similarity_rows(result))
    if result.skipped:
        skipped = ([record.id, record.line, record.reason] for record in result.skipped)
        write_table(directory / "failed.tsv", ["id", "line", "reason"], skipped)
    write_text(directory / "report.html", _page(result, by_similarity, by_length))


def _prediction_rows(result: FinetuneResult) -> Iterator[list[str]]:
    task, classes = result.targets.task, result.targets.classes
    assert result.checkpoint.task_head is not None
    threshold = float(result.checkpoint.task_head.threshold)
    for protein, output in zip(result.proteins, result.outputs, strict=True):
        yield [protein.id, LabelText(protein.label), *prediction_cells(output, task, classes, threshold)]


def _similarity_rows(result: FinetuneResult) -> Iterator[list[str]]:
    for protein, similarity, nearest in zip(result.proteins, result.similarities, result.neighbours, strict=True):
        yield [protein.id, f"{similarity:.3f}", nearest.id if similarity > 0 else ""]


def _facts(result: FinetuneResult) -> dict[str, str]:
    facts = {"encoder": str(result.checkpoint.metadata.configuration["from_model"])}
    facts |= {f"{split} proteins": f"{size:,}" for split, size in result.sizes.items()}
    facts["measured on"] = f"{len(result.proteins):,} proteins"
    for metric, score in result.ladder.figures.items():
        others = ", ".join(
            f"{name} {_spell(rung[metric].value)}"
            for name, rung in result.ladder.rungs.items()
            if name != result.ladder.model
        )
        span = "" if score.low is None else f" [{_spell(score.low)}, {_spell(score.high)}]"
        facts[result.ladder.metric_names[metric]] = f"{_spell(score.value)}{span} ({others})"
    return facts


def _page(result: FinetuneResult, by_similarity: Sequence[Subgroup], by_length: Sequence[Subgroup]) -> str:
    record, targets = result.checkpoint.metadata, result.targets
    what = f"{len(targets.classes)} classes" if targets.classes else "a value"
    sizes = ", ".join(f"{size:,} {split}" for split, size in result.sizes.items())
    return render_page(
        "finetuning.html",
        version=__version__,
        target=record.target,
        summary=f"{targets.task.name} ({what}); {sizes} proteins; {len(result.proteins):,} measured",
        ladder=result.ladder,
        metrics=list(result.ladder.figures),
        names=result.ladder.metric_names,
        fewest=MIN_PROTEINS_FOR_INTERVAL,
        notes=result.notes,
        figures=list(_figures(result)),
        by_similarity=[(_name_band(band, ""), band) for band in by_similarity],
        by_length=[(_name_band(band, " residues"), band) for band in by_length],
    )


def _figures(result: FinetuneResult) -> list[tuple[str, str, str]]:
    """Draw what there is to see: title, picture, caption."""
    figures: list[tuple[str, str, str]] = []
    targets = result.targets
    if result.log:
        caption = "Loss of each step (thin), and on the validation part after each epoch."
        figures.append(("The training", inline_png(draw_learning(result.log)), caption))
    truth, outputs = joined(targets.task, result.truth, result.outputs)
    if targets.task.label_kind == "class":
        assert targets.classes is not None
        picture = draw_confusion(truth, outputs, targets.classes)
        figures.append(("What is taken for what", inline_png(picture), "Rows are the truth and add up to one."))
    elif targets.task.label_kind == "value":
        picture = draw_scatter(truth, outputs)
        figures.append(("Predicted against measured", inline_png(picture), "Each point is one of the test part."))
    return figures


def _name_band(band: Subgroup, unit: str) -> str:
    if band.high is None:
        return f"{band.low:g}{unit} or more" if band.low != 1 else "1"
    return f"{band.low:g} to {band.high:g}{unit}"


def _spell(value: float | None) -> str:
    return "undefined" if value is None else format_number(value)
