"""The metrics on the page of a fine-tuned model: what they mean, and their columns of tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from protembed.config.common import METRIC_NAMES
from protembed.evaluation.intervals import MetricWithInterval
from protembed.finetuning.comparison import Comparison
from protembed.report.table import Column

# What each metric means to a reader who does not know it.
METRIC_NOTES: Mapping[str, str] = {
    "accuracy": "share of predictions that are right",
    "macro_f1": "mean of the F1 of all classes, so that rare classes count as much as frequent ones; 1 is best",
    "mcc": "Matthews correlation: 1 if all are right, 0 if no better than guessing",
    "auroc": "how often a protein of a class has a higher probability of it than one of another class; 0.5 is guessing",
    "auprc": "area under the precision-recall curve, averaged over the labels; 1 is best",
    "fmax": "best balance of the labels that are found and those that are right; 1 is best",
    "spearman": "agreement of the order of predictions and measurements: 1 is the same order, 0 is none",
    "rmse": "typical error (root mean square), in the units of the labels; 0 is best",
    "mse": "mean squared error; 0 is best",
    "r2": "share of the variance that is explained: 1 is all, 0 is as good as always the mean",
}
METRIC_LABELS: Mapping[str, str] = {**METRIC_NAMES, "spearman": "Spearman correlation"}
_ERRORS = ("rmse", "mse")


def metric_columns(
    comparison: Comparison, rows: Sequence[Callable[[str], MetricWithInterval]], *, has_best: bool = True
) -> list[Column]:
    """Make a column of each metric, the main one first, from functions that return the metrics of a row by name."""
    main = comparison.task.main_metric
    return [
        Column(
            name=comparison.metric_names[metric],
            note=METRIC_NOTES[metric],
            cells=[_without_noise(row(metric), metric) for row in rows],
            decimals=None if metric in _ERRORS else 3,
            best="" if not has_best else "low" if metric in _ERRORS else "high",
        )
        for metric in (main, *(metric for metric in comparison.model_metrics if metric != main))
    ]


def _without_noise(metric: MetricWithInterval, name: str) -> MetricWithInterval:
    """Show no interval of zero width, and a share that is zero but for rounding as zero."""
    if metric.low == metric.high:
        metric = replace(metric, low=None, high=None)
    if name in _ERRORS or metric.value is None or abs(metric.value) >= 0.0005:
        return metric
    return replace(metric, value=0.0)
