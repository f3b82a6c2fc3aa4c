"""The predictions on the page of a fine-tuned model: confusions, values, and each class or label."""

from collections.abc import Sequence

from protembed.config.common import Task
from protembed.finetuning.analysis import Analysis
from protembed.finetuning.class_results import ClassResult, Confusion
from protembed.finetuning.comparison import MIN_PROTEINS_FOR_INTERVAL
from protembed.finetuning.evaluation import Evaluation
from protembed.finetuning.findings import quote_class
from protembed.report.comparison_figures import IntervalRow, draw_confusion, draw_intervals, draw_scatter
from protembed.report.page import Details, Element, Figure, Section
from protembed.report.table import Column, Table
from protembed.text import format_number, pluralize

_MAX_ROWS_OF_FIGURE, _MAX_CLASSES_OF_FIGURE = 30, 30


def prediction_sections(evaluation: Evaluation, analysis: Analysis) -> list[Section]:
    """Show the predictions themselves: confusions, values, classes or labels."""
    task = evaluation.predictions.task
    if task.label_kind == "value":
        return [_value_section(evaluation, analysis)]
    sections = [] if analysis.confusion is None else [_confusion_section(analysis.confusion, task)]
    return [*sections, _class_section(analysis.classes, task, len(evaluation.proteins))]


def _confusion_section(confusion: Confusion, task: Task) -> Section:
    unit, shown = ("residues" if task.per_residue else "proteins"), confusion.largest(_MAX_CLASSES_OF_FIGURE)
    error = confusion.most_frequent_error()
    finding = "No prediction is wrong."
    if error is not None:
        true, predicted, count = error
        pair = f"{quote_class(true)} is taken for {quote_class(predicted)}"
        finding = f"The most frequent error: {pair} ({pluralize(count, unit[:-1])})."
    joined = " The rarest classes are joined in the last row and column." if shown is not confusion else ""
    return Section(
        title="Which classes are confused?",
        body=[
            finding,
            Figure(
                picture=draw_confusion(shown.counts, shown.classes),
                caption=f"Each row is a true class, with the number of its test {unit}; the numbers are the {unit} for "
                "which each class was predicted. The stronger the shade, the larger the share of the row. Blue, on "
                f"the diagonal, is right; orange is wrong.{joined}",
                description=f"Confusion matrix of {len(confusion.classes)} classes. {finding}",
            ),
            Details(title="The same as a table", body=[_confusion_table(shown, unit)]),
        ],
    )


def _confusion_table(confusion: Confusion, unit: str) -> Table:
    return Table(
        title=f"Test {unit} by true and predicted class",
        columns=[
            Column(name="true class", cells=list(confusion.classes)),
            *(
                Column(name=name, cells=column)
                for name, column in zip(confusion.classes, confusion.counts.T.tolist(), strict=True)
            ),
        ],
        is_matrix=True,
    )


def _value_section(evaluation: Evaluation, analysis: Analysis) -> Section:
    measured, predicted = evaluation.predictions.flatten()
    if not len(measured):
        return Section(title="Predicted and measured values", body=[])
    unit = "residue" if evaluation.predictions.task.per_residue else "protein"
    means = [(point.predicted, point.measured) for point in analysis.calibration]
    caption = (
        f"Each point is a test {unit}; where there are many, the shade shows how many. On the dashed line a "
        "prediction is exactly right."
    )
    if means:
        caption += (
            f" The test {unit}s are sorted by their prediction and divided into {len(means)} equal parts: each orange "
            "point is the mean measured value of a part, with its 95 % interval. If they lie on the dashed line, the "
            "predictions are right on average; if they rise less steeply, large predictions are too large."
        )
    return Section(
        title="Predicted and measured values",
        body=[
            Figure(
                picture=draw_scatter(predicted, measured, means),
                caption=caption,
                description=f"Measured against predicted values of {pluralize(len(measured), f'test {unit}')}.",
            )
        ],
    )


def _class_section(results: Sequence[ClassResult], task: Task, num_proteins: int) -> Section:
    is_label = task.label_kind == "labels"
    kind, unit = ("label" if is_label else "class"), ("residues" if task.per_residue else "proteins")
    kinds = ["few" if result.num_tested < MIN_PROTEINS_FOR_INTERVAL else "" for result in results]
    body: list[Element] = []
    if len(results) > 2:
        body += _class_figure(results, kind, unit, num_proteins)
    body.append(
        Table(
            title=f"Metrics of each {kind}",
            note=f"Grey: fewer than {MIN_PROTEINS_FOR_INTERVAL} test {unit}." if "few" in kinds else "",
            columns=_class_columns(results, kind, unit),
            row_kinds=kinds,
        )
    )
    return Section(title=f"How well is each {kind} predicted?", body=body)


def _class_columns(results: Sequence[ClassResult], kind: str, unit: str) -> list[Column]:
    ratios = {
        "auprc": ("AUPRC", "area under the precision-recall curve; guessing reaches the share that has the label"),
        "f1": ("F1", "harmonic mean of precision and recall"),
        "precision": ("precision", f"share of the {unit} for which it is predicted that have it"),
        "recall": ("recall", f"share of the {unit} that have it for which it is predicted"),
    }
    shown = {key: ratio for key, ratio in ratios.items() if getattr(results[0], key) is not None}
    metrics = [
        Column(
            name=name,
            cells=[getattr(result, key) for result in results],
            note=note,
            decimals=3,
            shade="sequential" if key == next(iter(shown)) else "",
            shade_limit=1.0,
        )
        for key, (name, note) in shown.items()
    ]
    return [
        Column(name=kind, cells=[result.name for result in results]),
        Column(name=f"test {unit}", cells=[result.num_tested for result in results]),
        *metrics,
        Column(name="predicted", cells=[result.num_predicted for result in results], note=f"test {unit}"),
        Column(name="training proteins", cells=[result.num_training for result in results]),
    ]


def _class_figure(results: Sequence[ClassResult], kind: str, unit: str, num_proteins: int) -> list[Element]:
    """Draw the AUPRC of each label or the F1 of each class, as far as it is defined and the figure has room."""
    is_label = kind == "label"
    label = "AUPRC" if is_label else "F1"
    rows = [
        IntervalRow(
            name=result.name,
            metric=metric,
            chance=result.num_tested / num_proteins if is_label else None,
            note=f"({result.num_tested:,})",
        )
        for result in results
        if (metric := result.auprc if is_label and result.auprc else result.f1).value is not None
    ]
    num_defined, rows = len(rows), rows[:_MAX_ROWS_OF_FIGURE]
    if not rows:
        return []
    best, worst = (choose(rows, key=lambda row: row.metric.value or 0.0) for choose in (max, min))
    more = f" Only the {len(rows)} most frequent are drawn." if len(rows) < num_defined else ""
    if is_label:
        more = f" The grey stroke is the AUPRC of guessing, the share of proteins with the label.{more}"
    return [
        Figure(
            picture=draw_intervals(rows, label),
            title=f"{label} of each {kind}",
            caption=f"Each row is a {kind}, with the number of its test {unit} in brackets. The point is its {label} "
            f"(1 is best), the line the 95 % interval. An open circle has no interval, because fewer than "
            f"{MIN_PROTEINS_FOR_INTERVAL} proteins have the {kind}.{more}",
            description=f"{label} of {len(rows)} {kind}s, highest for {best.name} "
            f"({format_number(best.metric.value)}), lowest for {worst.name} ({format_number(worst.metric.value)}).",
        )
    ]
