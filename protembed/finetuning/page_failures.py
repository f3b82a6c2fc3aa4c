"""Where a model fails, on its page: groups of proteins, and the worst predictions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from protembed.config.common import Task
from protembed.finetuning.analysis import Analysis
from protembed.finetuning.comparison import MIN_PROTEINS_FOR_INTERVAL, Comparison
from protembed.finetuning.page_metrics import METRIC_LABELS, metric_columns
from protembed.finetuning.subgroups import Subgroup
from protembed.finetuning.worst_predictions import WrongPrediction
from protembed.report.comparison_figures import IntervalRow, draw_intervals
from protembed.report.page import Element, Figure, Section
from protembed.report.table import Cell, Column, Table
from protembed.text import format_number, pluralize

_MAX_LABELS_OF_CELL = 3


def failure_section(analysis: Analysis, comparison: Comparison) -> Section:
    """Show the metrics by similarity to the training proteins and by length, where there are several groups."""
    metric = comparison.task.main_metric
    groups = {
        "similarity": [(_name_similarity(group), group) for group in analysis.by_similarity],
        "length": [(_name_length(group), group) for group in analysis.by_length],
    }
    compared = {kind: named for kind, named in groups.items() if len(named) > 1}
    rows = [
        IntervalRow(
            name=f"similarity {name}" if kind == "similarity" else name,
            metric=group.metric(metric),
            note=f"({group.num_proteins:,})",
        )
        for kind, named in compared.items()
        for name, group in named
        if group.metrics[metric] is not None
    ]
    body: list[Element] = []
    if rows:
        label = METRIC_LABELS[metric]
        worst = min(rows, key=lambda row: row.metric.value or 0.0)
        body.append(
            Figure(
                picture=draw_intervals(rows, label, overall=comparison.model_metrics[metric].value),
                caption="Each row is a group of test proteins, with their number in brackets: by the similarity to "
                f"the nearest training protein, and by length in residues. The point is the {label} of the model on "
                "the group, the line its 95 % interval, the dashed line the value of all test proteins. If a line "
                "does not reach the dashed line, the model is better or worse there than elsewhere.",
                description=f"{label} by group, lowest for {worst.name} ({format_number(worst.metric.value)}).",
            )
        )
    for kind, named in groups.items():
        body.append(_subgroup_table(kind, named, comparison) if kind in compared else _single_group(kind, named))
    return Section(title="Where does it fail?", body=[element for element in body if element])


def _name_similarity(group: Subgroup) -> str:
    if group.low == 1:
        return "1 (the same sequence, or a fragment)"
    if group.high is None:
        return f"{group.low:g} or more"
    return f"below {group.high:g}" if group.low == 0 else f"{group.low:g} to {group.high:g}"


def _name_length(group: Subgroup) -> str:
    shortest, longest = int(group.low), int(group.high or group.low + 1) - 1
    return pluralize(shortest, "residue") if shortest == longest else f"{shortest:,} to {longest:,} residues"


def _single_group(kind: str, named: Sequence[tuple[str, Subgroup]]) -> str:
    if not named:
        return ""
    name, group = named[0]
    where = f" ({name})" if kind == "length" else ""
    return (
        f"By {kind}, all {pluralize(group.num_proteins, 'test protein')} are in one group{where}, because any other "
        f"would have fewer than {MIN_PROTEINS_FOR_INTERVAL}."
    )


def _subgroup_table(kind: str, named: Sequence[tuple[str, Subgroup]], comparison: Comparison) -> Table:
    notes = {
        "similarity": "Similarity to the nearest training protein, estimated from shared 5-mers as the fraction of "
        "identical residues. Below 0.4, relatives and unrelated proteins cannot be distinguished. "
        "`test_similarity.tsv` names the nearest training protein of each test protein.",
        "length": "Each group has about a quarter of the test proteins.",
    }
    groups = [group for _, group in named]
    return Table(
        title=f"Metrics by {kind}",
        note=notes[kind],
        columns=[
            Column(name=kind, cells=[name for name, _ in named]),
            Column(name="test proteins", cells=[group.num_proteins for group in groups]),
            *metric_columns(comparison, [group.metric for group in groups], has_best=False),
        ],
        row_kinds=["few" if group.num_proteins < MIN_PROTEINS_FOR_INTERVAL else "" for group in groups],
    )


# The worst predictions


def worst_section(worst: Sequence[WrongPrediction], task: Task) -> Section:
    """List the test proteins whose predictions are most wrong."""
    if not worst:
        return Section(title="The worst predictions", body=["No prediction is wrong."])
    order = {
        "class": "sorted by the probability of the true class, the lowest first",
        "labels": "sorted by the mean loss over all labels; the probability of each label is in brackets",
        "value": "sorted by the size of the error",
    }[task.label_kind]
    if task.per_residue:
        order = "sorted by the share of residues that are right"
        order = order if task.label_kind == "class" else "sorted by the error over the residues of the protein"
    proteins = pluralize(len(worst), "test protein")
    return Section(
        title="The worst predictions",
        body=[
            Table(
                title=f"The {proteins} with the worst predictions" if len(worst) > 1 else "The worst prediction",
                note=f"Look here for wrong labels and for kinds of proteins that the training lacked: {order}.",
                columns=[
                    Column(name="protein", cells=[row["id"] for row in worst]),
                    *(_worst_columns(worst)),
                    Column(name="similarity", cells=[row["similarity"] for row in worst], decimals=2),
                    Column(
                        name="nearest training protein",
                        cells=[row["nearest_training_protein"] or "none" for row in worst],
                    ),
                    Column(name="residues", cells=[row["num_residues"] for row in worst]),
                ],
            )
        ],
    )


def _worst_columns(worst: Sequence[WrongPrediction]) -> list[Column]:
    """Make the columns that the kind of task has."""
    formats: dict[str, tuple[str, Callable[[Any], Cell], int | None]] = {
        "label": ("label", lambda value: value, None),
        "predicted": ("predicted", lambda value: value, None),
        "p_predicted": ("its probability", lambda value: value, 3),
        "p_label": ("that of the label", lambda value: value, 3),
        "error": ("predicted minus label", lambda value: value, None),
        "missed": ("labels missed", _list_labels, None),
        "added": ("labels predicted wrongly", _list_labels, None),
        "num_wrong": ("wrong residues", lambda value: value, None),
        "rmse": ("RMSE", lambda value: value, None),
        "num_labelled": ("of labelled residues", lambda value: value, None),
        "accuracy": ("accuracy", lambda value: value, 3),
        "top_confusion": (
            "most frequent error",
            lambda value: f"{value['predicted']} for {value['label']} ({value['count']:,})",
            None,
        ),
    }
    return [
        Column(name=name, cells=[shown(row[key]) for row in worst], decimals=decimals)
        for key, (name, shown, decimals) in formats.items()
        if key in worst[0]
    ]


def _list_labels(probabilities: Mapping[str, float]) -> str:
    ordered = sorted(probabilities.items(), key=lambda item: -item[1])
    shown = [f"{name} ({probability:.2f})" for name, probability in ordered[:_MAX_LABELS_OF_CELL]]
    more = len(ordered) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
