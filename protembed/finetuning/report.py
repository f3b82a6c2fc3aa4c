"""Report a fine-tuned model: its metrics, predictions for the test split, a model card and a page."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from protembed.callbacks import MEASURED
from protembed.data.fasta import SkippedRecord
from protembed.finetuning.analysis import Analysis
from protembed.finetuning.comparison import Predictions, compare
from protembed.finetuning.evaluation import Evaluation, Relatives
from protembed.finetuning.experiment import Design, ExperimentResult
from protembed.finetuning.page import FinetunePage, Provenance, Training
from protembed.finetuning.prediction import prediction_cells, prediction_header
from protembed.io.writing import write_json_lines, write_table, write_text
from protembed.model.card import finetuned_card
from protembed.model.checkpoint import write_checkpoint_files
from protembed.report.page import render_page
from protembed.text import LabelText, format_number, format_with_interval
from protembed.training.run_directory import LOG


class FinetuneReport:
    """Everything that is reported about a fine-tuned model.

    Args:
        design: What was trained and tested.
        experiment: The final model, and all predictions.
        notes: Sentences about the data, the model and its metrics.
        skipped: Proteins that were skipped on request.
        command: Command line, as the page shows it.
    """

    def __init__(
        self,
        design: Design,
        experiment: ExperimentResult,
        notes: Sequence[str],
        skipped: Sequence[SkippedRecord],
        command: str,
    ) -> None:
        self._table, self._model, self._method = design.final, experiment.final, design.method
        self._notes, self._skipped, self._command = notes, skipped, command
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
            "training": {"kept_step": self._model.kept_step, "frozen_valid_loss": self._model.frozen_loss},
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
                f"{predictor} {format_number(metrics[name].value)}"
                for predictor, metrics in comparison.predictors.items()
                if predictor != comparison.model
            )
            facts[comparison.metric_names[name]] = (
                f"{format_with_interval(metric.value, metric.low, metric.high)} ({baselines})"
            )
        return facts

    def _page(self, analysis: Analysis) -> str:
        table, model, configuration = self._table, self._model, self._model.checkpoint.metadata.configuration
        page = FinetunePage(
            provenance=Provenance(
                command=self._command,
                table=Path(table.path).name,
                target=table.target,
                model=str(configuration["from_model"]),
                method=self._method,
                num_proteins=table.split_sizes,
            ),
            evaluation=self._evaluation,
            analysis=analysis,
            comparison=self.comparison,
            training=Training(log=model.log, frozen_loss=model.frozen_loss, kept_step=model.kept_step),
            notes=self._notes,
        )
        return render_page(page.make())
