"""The comparison of a model with its baselines on the page: a figure, a table, and sentences."""

from collections.abc import Mapping

from protembed.finetuning.comparison import MIN_PROTEINS_FOR_INTERVAL, Comparison
from protembed.finetuning.page_metrics import METRIC_LABELS, METRIC_NOTES, metric_columns
from protembed.report.comparison_figures import IntervalRow, draw_comparison
from protembed.report.page import Details, Element, Figure, Section
from protembed.report.table import Column, Table
from protembed.text import as_sentence, pluralize

# What each predictor is.
PREDICTORS: Mapping[str, str] = {
    "majority": "always the shares in the training proteins",
    "mean": "always the mean of the training proteins",
    "composition": "linear model of amino-acid shares",
    "k-mers": "linear model of short sequence pieces",
    "15 letters": "linear model of a window of 15 residues",
    "random initialisation": "same network, from random weights",
    "frozen": "head on the unchanged language model",
    "fine-tuned": "language model, trained with its head",
    "LoRA": "language model, trained by adapters",
}


def comparison_section(comparison: Comparison) -> Section:
    """Show whether the model is better than its baselines."""
    metric = comparison.task.main_metric
    label = METRIC_LABELS[metric]
    defined = {name: found for name, found in comparison.predictors.items() if found[metric].value is not None}
    body: list[Element] = []
    if len(defined) > 1 and comparison.model in defined:
        rows = [
            IntervalRow(
                name=name,
                metric=found[metric],
                difference=comparison.differences.get(name),
                is_model=name == comparison.model,
            )
            for name, found in defined.items()
        ]
        body.append(
            Figure(
                picture=draw_comparison(rows, label, comparison.model),
                title=f"{label[0].upper()}{label[1:]} of the model and of simpler methods",
                caption=f"Each row is one way to predict, and all predict the same "
                f"{pluralize(comparison.num_proteins, 'test protein')}. Left: the point is the {label} "
                f"({METRIC_NOTES[metric]}), the line its 95 % interval, which shows how much it would vary with other "
                "test proteins. Right: how much better the model is. If a line does not touch 0, chance is an unlikely "
                "reason for the difference.",
                description=f"Points with intervals. {comparison.verdict()}.",
            )
        )
    undefined = [f"`{name}`" for name in comparison.predictors if name not in defined]
    if undefined:
        one = "it predicts" if len(undefined) == 1 else "they predict"
        body.append(
            f"{' and '.join(undefined)} cannot be drawn: the {label} is undefined, because {one} the same for all "
            "proteins."
        )
    body.append(_comparison_table(comparison))
    return Section(title="Was it worth it?", body=[*body, _in_words(comparison)])


def _in_words(comparison: Comparison) -> Details:
    return Details(title="In words", body=[as_sentence(sentence) for sentence in comparison.sentences()])


def _comparison_table(comparison: Comparison) -> Table:
    names = list(comparison.predictors)
    is_few = comparison.num_proteins < MIN_PROTEINS_FOR_INTERVAL
    found = list(comparison.predictors.values())
    return Table(
        title="All metrics",
        note="The best value of each column is bold, and the model's row is tinted. Below each value is its 95 % "
        "interval over test proteins.",
        columns=[
            Column(name="predictor", cells=names),
            *metric_columns(comparison, [metrics.__getitem__ for metrics in found]),
            Column(name="what it is", cells=[PREDICTORS.get(name, "") for name in names]),
        ],
        row_kinds=["few" if is_few else "model" if name == comparison.model else "" for name in names],
    )
