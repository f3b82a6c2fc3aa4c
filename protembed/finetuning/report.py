"""Report a fine-tuned model: its metrics, predictions for the test split, a model card and a page."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from protembed._version import __version__
from protembed.callbacks import MEASURED
from protembed.data.fasta import SkippedRecord
from protembed.finetuning.analysis import Analysis
from protembed.finetuning.comparison import MIN_PROTEINS_FOR_INTERVAL, Predictions, compare
from protembed.finetuning.evaluation import Evaluation, Relatives
from protembed.finetuning.experiment import Design, ExperimentResult
from protembed.finetuning.prediction import prediction_cells, prediction_header
from protembed.finetuning.subgroups import Subgroup
from protembed.io.writing import write_json_lines, write_table, write_text
from protembed.model.card import finetuned_card
from protembed.model.checkpoint import write_checkpoint_files
from protembed.report.figures import draw_confusion, draw_learning, draw_scatter
from protembed.report.page import inline_png, render_template
from protembed.text import LabelText, format_number
from protembed.training.run_directory import LOG


class FinetuneReport:
    """Everything that is reported about a fine-tuned model, with notes, and the proteins skipped on request."""

    def __init__(
        self, design: Design, experiment: ExperimentResult, notes: Sequence[str], skipped: Sequence[SkippedRecord]
    ) -> None:
        self._table, self._model = design.final, experiment.final
        self._notes, self._skipped = notes, skipped
        task, truth = design.final.task, [target for table in design.folds for target in table.targets["test"]]
        assert experiment.final.checkpoint.task_head is not None
        self._head = experiment.final.checkpoint.task_head
        self._evaluation = Evaluation(
            classes=design.final.classes,
            training=design.final.splits["train"],
            proteins=[protein for table in design.folds for protein in table.splits["test"]],
            predictions=Predictions(task=task, truth=truth, predicted=experiment.final_predictions),
            threshold=float(self._head.threshold),
            relatives=Relatives.find(design.folds),
        )
        self.comparison = compare(task, truth, experiment.predictions, is_random=experiment.is_random)

    def write(self, directory: Path) -> dict[str, Any]:
        """Write all files but `metrics.json` into a directory, and return the content of that one.

        Raises:
            OutputError: A file cannot be written.
        """
        table, checkpoint, comparison = self._table, self._model.checkpoint, self.comparison.as_plain_values()
        checkpoint.metadata = replace(checkpoint.metadata, metrics=comparison)
        write_checkpoint_files(checkpoint, directory, finetuned_card(checkpoint, self._facts()))
        header = ["id", "label", *prediction_header(table.classes)]
        write_table(directory / "test_predictions.tsv", header, self._prediction_rows())
        header = ["id", "similarity", "nearest_training_protein"]
        write_table(directory / "test_similarity.tsv", header, self._evaluation.relative_rows())
        if self._skipped:
            failed = ([record.id, record.line, record.reason] for record in self._skipped)
            write_table(directory / "failed.tsv", ["id", "line", "reason"], failed)
        analysis = Analysis.from_evaluation(self._evaluation)
        write_text(directory / "report.html", self._page(analysis))
        if self._model.log:
            write_json_lines(directory / LOG, self._reproducible_log())
        return {
            "task": table.task.name,
            "main_metric": table.task.main_metric,
            "num_proteins": table.split_sizes,
            "num_refused": len(self._skipped),
            "notes": list(self._notes),
            "verdict": self.comparison.verdict(),
            "comparison": comparison,
            **analysis.as_plain_values(),
        }

    def _reproducible_log(self) -> Iterator[dict[str, Any]]:
        """Yield the lines about the training, without what differs from run to run."""
        for line in self._model.log:
            yield {name: value for name, value in line.items() if name not in MEASURED}

    def _prediction_rows(self) -> Iterator[list[str]]:
        tested = zip(self._evaluation.proteins, self._evaluation.predictions.predicted, strict=True)
        for protein, prediction in tested:
            yield [protein.id, LabelText(protein.label), *prediction_cells(prediction, self._head)]

    def _facts(self) -> dict[str, str]:
        """Collect the facts about the model that its card shows, by name."""
        comparison = self.comparison
        facts = {"result": comparison.verdict()}
        facts |= {"encoder": str(self._model.checkpoint.metadata.configuration["from_model"])}
        facts |= {f"{split} proteins": f"{size:,}" for split, size in self._table.split_sizes.items()}
        facts["tested on"] = f"{len(self._evaluation.proteins):,} proteins"
        for name, metric in comparison.model_metrics.items():
            baselines = ", ".join(
                f"{predictor} {_format_value(metrics[name].value)}"
                for predictor, metrics in comparison.predictors.items()
                if predictor != comparison.model
            )
            interval = "" if metric.low is None else f" [{_format_value(metric.low)}, {_format_value(metric.high)}]"
            facts[comparison.metric_names[name]] = f"{_format_value(metric.value)}{interval} ({baselines})"
        return facts

    def _page(self, analysis: Analysis) -> str:
        task, classes = self._table.task, self._table.classes
        kind = f"{len(classes)} classes" if classes else "a value"
        sizes = ", ".join(f"{size:,} {split}" for split, size in self._table.split_sizes.items())
        return render_template(
            "finetuning.html",
            version=__version__,
            target=self._table.target,
            summary=f"{task.name} ({kind}); {sizes} proteins; {len(self._evaluation.proteins):,} tested",
            comparison=self.comparison,
            metrics=list(self.comparison.model_metrics),
            names=self.comparison.metric_names,
            min_proteins=MIN_PROTEINS_FOR_INTERVAL,
            notes=self._notes,
            figures=list(self._figures()),
            by_similarity=[(_name_subgroup(subgroup, ""), subgroup) for subgroup in analysis.by_similarity],
            by_length=[(_name_subgroup(subgroup, " residues"), subgroup) for subgroup in analysis.by_length],
        )

    def _figures(self) -> Iterator[tuple[str, str, str]]:
        """Draw the figures of the page: title, picture and caption of each."""
        task, classes = self._table.task, self._table.classes
        if self._model.log:
            caption = "Training loss of each step (thin) and its running mean; validation loss after each epoch."
            yield "Training", inline_png(draw_learning(self._model.log)), caption
        truth, predictions = self._evaluation.predictions.flatten()
        if classes and task.label_kind == "class":
            picture = draw_confusion(truth, predictions, classes)
            yield "Confusion matrix", inline_png(picture), "Rows are the true classes and add up to one."
        elif task.label_kind == "value":
            caption = f"Each point is a test {'residue' if task.per_residue else 'protein'}."
            yield "Predicted against measured", inline_png(draw_scatter(truth, predictions)), caption


def _format_value(value: float | None) -> str:
    return "undefined" if value is None else format_number(value)


def _name_subgroup(subgroup: Subgroup, unit: str) -> str:
    if subgroup.high is None:
        return f"{subgroup.low:g}{unit} or more" if subgroup.low != 1 else "1"
    return f"{subgroup.low:g} to {subgroup.high:g}{unit}"
