"""The page of a fine-tuned model: whether it was worth it, where it is right, and where it is wrong."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protembed.evaluation.intervals import MetricWithInterval
from protembed.finetuning.analysis import Analysis
from protembed.finetuning.comparison import Comparison
from protembed.finetuning.evaluation import Evaluation
from protembed.finetuning.findings import describe_findings
from protembed.finetuning.page_comparison import PREDICTORS, comparison_section
from protembed.finetuning.page_failures import failure_section, worst_section
from protembed.finetuning.page_metrics import METRIC_LABELS, METRIC_NOTES
from protembed.finetuning.page_predictions import prediction_sections
from protembed.finetuning.split_names import Split
from protembed.report.comparison_figures import draw_learning
from protembed.report.page import Card, Figure, Page, Section
from protembed.text import as_sentence, format_difference, format_number

_SIMILAR = 0.4
_USUAL_TARGETS = ("label", "target")
_METHODS = {"frozen": "frozen", "full": "fine-tuned", "lora": "fine-tuned with LoRA"}


@dataclass(frozen=True, kw_only=True)
class Training:
    """The course of the training of a model.

    Attributes:
        log: Lines of `metrics.jsonl`; empty where nothing was trained step by step.
        frozen_loss: Validation loss of the frozen encoder; None if it is not known.
        kept_step: Step whose weights were kept; 0 is the frozen encoder, None where nothing was trained step by step.
    """

    log: Sequence[Mapping[str, Any]]
    frozen_loss: float | None
    kept_step: int | None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What was run on what.

    Attributes:
        table: Name of the table, without its folder.
        target: Name of the column with the labels.
        model: Name of the pretrained model.
        method: How it was trained, as `--method` names it.
        num_proteins: Proteins of each split.
    """

    command: str
    table: str
    target: str
    model: str
    method: str
    num_proteins: Mapping[Split, int]


@dataclass(frozen=True, kw_only=True)
class FinetunePage:
    """Everything that the page of a fine-tuned model shows."""

    provenance: Provenance
    evaluation: Evaluation
    analysis: Analysis
    comparison: Comparison
    training: Training
    notes: Sequence[str]

    def make(self) -> Page:
        """Arrange the page."""
        sections = [
            comparison_section(self.comparison),
            *prediction_sections(self.evaluation, self.analysis),
            failure_section(self.analysis, self.comparison),
            worst_section(self.analysis.worst, self.comparison.task),
        ]
        if self.training.log:
            sections.append(_training_section(self.training))
        return Page(
            title=_title(self.provenance),
            command="finetune",
            facts=self._facts(),
            summary=describe_findings(self.evaluation, self.analysis, self.comparison),
            cards=self._cards(),
            sections=[section for section in sections if section.body],
            notes=[as_sentence(note) for note in self.notes],
        )

    def _facts(self) -> dict[str, str]:
        provenance, classes = self.provenance, self.evaluation.classes
        kinds = "labels" if self.comparison.task.label_kind == "labels" else "classes"
        sizes = [f"{number:,} {split}" for split, number in provenance.num_proteins.items() if number]
        tested = f"{len(self.evaluation.proteins):,} tested in folds"
        return {
            "Command": provenance.command,
            "Model": f"{provenance.model}, {_METHODS[provenance.method]}",
            "Input": provenance.table,
            "Task": f"{self.comparison.task.name} of “{provenance.target}”"
            + (f", {len(classes)} {kinds}" if classes else ""),
            "Proteins": ", ".join([*sizes, *([] if provenance.num_proteins["test"] else [tested])]),
        }

    def _cards(self) -> list[Card]:
        comparison, metric = self.comparison, self.comparison.task.main_metric
        label, best, relatives = METRIC_LABELS[metric], comparison.best_baseline, self.evaluation.relatives
        name = f"{label[0].upper()}{label[1:]}"
        note = f"{_interval_text(comparison.model_metrics[metric])}{METRIC_NOTES[metric]}"
        cards = [Card(name=name, value=format_number(comparison.model_metrics[metric].value), note=note)]
        if best is not None:
            value = format_number(comparison.predictors[best][metric].value)
            cards.append(Card(name="Best baseline", value=value, note=f"{best}: {PREDICTORS[best]}"))
            difference = comparison.differences[best]
            value = "undefined" if difference.value is None else format_difference(difference.value)
            cards.append(Card(name="Difference", value=value, note=_judge_difference(difference)))
        num_related = int((relatives.similarities >= _SIMILAR).sum())
        note = f"{num_related:,} with a similarity of {_SIMILAR:g} or more to a training protein"
        return [*cards, Card(name="Test proteins", value=f"{len(self.evaluation.proteins):,}", note=note)]


# The header


def _title(provenance: Provenance) -> str:
    """Name the page after the target, or after the table where the target has no name of its own.

    >>> names = {"command": "", "model": "protembed_t6_8M", "num_proteins": {}}
    >>> _title(Provenance(table="signal_peptides.csv.gz", target="label", method="frozen", **names))
    'Signal peptides: protembed_t6_8M, frozen'
    """
    stem = provenance.table.lstrip(".").split(".")[0] if provenance.target.lower() in _USUAL_TARGETS else ""
    subject = re.sub(r"[\s_-]+", " ", stem).strip() or provenance.target
    return f"{subject[:1].upper()}{subject[1:]}: {provenance.model}, {_METHODS[provenance.method]}"


def _interval_text(metric: MetricWithInterval) -> str:
    if metric.low is None or metric.high is None:
        return ""
    return f"95 % interval {format_number(metric.low)} to {format_number(metric.high)}; "


def _judge_difference(difference: MetricWithInterval) -> str:
    if difference.low is None or difference.high is None:
        return "too few test proteins for an interval"
    if difference.low == difference.high == 0:
        return "as good as the baseline"
    interval = f"95 % interval {format_difference(difference.low)} to {format_difference(difference.high)}"
    if difference.low > 0 or difference.high < 0:
        return f"{interval}: {'better' if difference.low > 0 else 'worse'} than the baseline"
    return f"{interval}: may be zero"


# The training


def _training_section(training: Training) -> Section:
    kept = "The ring marks what was kept."
    if training.kept_step == 0:
        kept = "No epoch was better than the frozen encoder, so the frozen encoder was kept."
    return Section(
        title="How did the training go?",
        body=[
            Figure(
                picture=draw_learning(training.log, frozen_loss=training.frozen_loss, kept_step=training.kept_step),
                caption="The loss, which training lowers: on the training proteins at each step (pale), its running "
                "mean, and on the validation proteins after each epoch. A model memorises its training proteins in "
                f"the end; therefore the lowest validation loss decides. {kept}",
                description=f"Training and validation loss over {training.log[-1]['step']:,} steps. {kept}",
            )
        ],
    )
