"""Compare a model with its baselines: metrics on the same test proteins, and paired differences with intervals.

The unit of all intervals is the protein, also where each residue has a label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.config.common import METRIC_NAMES, TASKS, Task
from protembed.evaluation import intervals, metrics
from protembed.evaluation.intervals import MetricWithInterval
from protembed.finetuning.targets import Prediction, Target, has_target
from protembed.text import format_difference, format_number, format_with_interval

METRICS_FILE = "metrics.json"
# Metrics of fewer test proteins have no interval.
MIN_PROTEINS_FOR_INTERVAL = 10
# Fewer trainings than these underestimate the variance between trainings.
_MIN_REPEATS_FOR_SPREAD = 5


# Metrics of one predictor


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a predictor predicts for proteins whose targets are known."""

    task: Task
    truth: Sequence[Target]
    predicted: Sequence[Prediction]

    def __len__(self) -> int:
        return len(self.truth)

    def select(self, rows: Sequence[int]) -> "Predictions":
        """Return the predictions for some of the proteins."""
        return replace(self, truth=[self.truth[row] for row in rows], predicted=[self.predicted[row] for row in rows])

    def flatten(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Join the targets, and the predictions, of all proteins, or of all their residues that have a target."""
        join = np.concatenate if self.task.per_residue else np.stack
        true, predicted = self.known()
        return join(true), join(predicted)

    def known(self) -> tuple[list[Target], list[Prediction]]:
        """Return the targets and the predictions, without the residues that have no target."""
        if not self.task.per_residue:
            return list(self.truth), list(self.predicted)
        known = [has_target(target) for target in self.truth]
        return (
            [target[rows] for target, rows in zip(self.truth, known, strict=True)],
            [prediction[rows] for prediction, rows in zip(self.predicted, known, strict=True)],
        )

    def resampled(self) -> metrics.Measure:
        """Prepare the metrics for resampling of the proteins."""
        if self.task.name == "residue-classification":
            return metrics.residue_classification_measure(*self.known())
        if self.task.name == "residue-regression":
            proteins = np.repeat(np.arange(len(self)), [has_target(target).sum() for target in self.truth])
            return metrics.regression_measure(*self.flatten(), proteins)
        if self.task.label_kind == "labels":
            return metrics.multilabel_measure(*self.flatten())
        prepare = metrics.classification_measure if self.task.label_kind == "class" else metrics.regression_measure
        return prepare(*self.flatten())

    def measure(self) -> dict[str, MetricWithInterval]:
        """Compute each metric, with a 95 % interval if there are `MIN_PROTEINS_FOR_INTERVAL` proteins or more."""
        return {name: metric.with_interval() for name, metric in _mean_metrics([self]).items()}

    def averaged_over(self) -> dict[str, tuple[int, int]]:
        """Count the classes or labels that a metric is averaged over, where some do not occur.

        Returns:
            For `auroc` or `auprc`, if it is averaged over fewer than all: the number that occurs, and the number of
            all.
        """
        metric = {"class": "auroc", "labels": "auprc"}.get(self.task.label_kind)
        if metric is None or self.task.per_residue or not len(self):
            return {}
        num_all, targets = self.predicted[0].shape[-1], np.stack(self.truth)
        num_occurring = int(targets.any(0).sum()) if metric == "auprc" else len(np.unique(targets))
        is_partial = num_occurring < num_all and (metric == "auprc" or num_all > 2)
        return {metric: (num_occurring, num_all)} if is_partial and num_occurring > (metric == "auroc") else {}


@dataclass(frozen=True, kw_only=True)
class _MeanMetric:
    """A metric of one predictor, averaged over its trainings.

    Attributes:
        value: Its mean on all proteins; None where it is not defined for one of the trainings.
        left_out: Its mean without each protein or group of proteins in turn, (groups,); empty for too few proteins.
        training_variance: The part of the variance of the mean that comes from the trainings.
    """

    name: str
    value: float | None
    left_out: NDArray[np.float64]
    training_variance: float
    num_proteins: int

    def minus(self, baseline: "_MeanMetric") -> "_MeanMetric":
        """Subtract the same metric of a baseline on the same proteins."""
        return replace(
            self,
            value=None if self.value is None or baseline.value is None else self.value - baseline.value,
            left_out=self.left_out - baseline.left_out,
            training_variance=self.training_variance + baseline.training_variance,
        )

    def with_interval(self, *, is_difference: bool = False) -> MetricWithInterval:
        """Compute the 95 % interval of the metric, or of a difference; for a handful of proteins there is none."""
        if self.num_proteins < MIN_PROTEINS_FOR_INTERVAL:
            return MetricWithInterval(value=self.value)
        return MetricWithInterval.from_jackknife(
            self.value,
            self.left_out,
            metric=self.name,
            num_units=self.num_proteins,
            extra_variance=self.training_variance,
            is_difference=is_difference,
        )


def _mean_metrics(trainings: Sequence[Predictions]) -> dict[str, _MeanMetric]:
    """Average each metric over several trainings of a predictor, tested on the same proteins."""
    num_proteins, resampled = len(trainings[0]), [predictions.resampled() for predictions in trainings]
    values = [metrics.point_metrics(measure, num_proteins) for measure in resampled]
    has_intervals = num_proteins >= MIN_PROTEINS_FOR_INTERVAL
    left_out = [intervals.jackknife(measure, num_proteins) for measure in resampled] if has_intervals else []
    means = {}
    for name in values[0]:
        known = [value for training in values if (value := training[name]) is not None]
        means[name] = _MeanMetric(
            name=name,
            value=sum(known) / len(known) if len(known) == len(trainings) else None,
            left_out=np.mean([training[name] for training in left_out], axis=0) if left_out else np.empty(0),
            training_variance=float(np.var(known, ddof=1)) / len(known) if len(known) > 1 else 0.0,
            num_proteins=num_proteins,
        )
    return means


# Several predictors


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A model and its baselines, measured on the same test proteins.

    Attributes:
        model: The name of the model among the predictors.
        num_repeats: The trainings that the model's metrics are averaged over; None where nothing about the model is
            random.
        num_proteins: The test proteins.
        averages: For each metric that is averaged over fewer than all classes or labels, because some have no test
            protein: the number that it is averaged over, and the number of all.
        predictors: The metrics of each predictor, the simplest baseline first and the model last.
        differences: The model's main metric minus that of each baseline, on the same resampled proteins.
    """

    task: Task
    model: str
    num_repeats: int | None
    num_proteins: int
    averages: Mapping[str, Sequence[int]]
    predictors: Mapping[str, Mapping[str, MetricWithInterval]]
    differences: Mapping[str, MetricWithInterval]

    @property
    def metric_names(self) -> Mapping[str, str]:
        """The names of the metrics in tables."""
        kind = "labels" if self.task.label_kind == "labels" else "classes"
        endings = {metric: f" over {some:,} of {all_:,} {kind}" for metric, (some, all_) in self.averages.items()}
        return {metric: name + endings.get(metric, "") for metric, name in METRIC_NAMES.items()}

    @property
    def model_metrics(self) -> Mapping[str, MetricWithInterval]:
        """The metrics of the model itself."""
        return self.predictors[self.model]

    def sentences(self) -> list[str]:
        """Describe how the model compares with each baseline, and what the intervals do not cover."""
        metric = METRIC_NAMES[self.task.main_metric]
        lines = [
            _describe_difference(self.model, name, difference, metric)
            for name, difference in self.differences.items()
            if self.predictors[name][self.task.main_metric].value is not None
        ]
        if self.num_proteins < MIN_PROTEINS_FOR_INTERVAL:
            return [
                *lines,
                f"fewer than {MIN_PROTEINS_FOR_INTERVAL} test proteins: metrics are uncertain and have no intervals",
            ]
        noise = "; one seed, so training noise is not in the intervals"
        if self.num_repeats is None:
            noise = ""
        elif self.num_repeats > 1:
            noise = f" and {self.num_repeats} seeds"
            if self.num_repeats < _MIN_REPEATS_FOR_SPREAD:
                noise += f" ({self.num_repeats} seeds underestimate the variance between runs)"
        return [*lines, f"95 % intervals over test proteins{noise}"]

    @property
    def best_baseline(self) -> str | None:
        """The baseline with the highest main metric; None where it is defined for none."""
        main = {name: self.predictors[name][self.task.main_metric].value for name in self.differences}
        known = {name: value for name, value in main.items() if value is not None}
        return max(known, key=lambda name: known[name]) if known else None

    def verdict(self, meaning: str = "") -> str:
        """Describe in one sentence whether the model was worth it: whether it is better than the best baseline.

        Args:
            meaning: Explanation of the main metric, such as ` (1 is perfect)`, which follows its name.
        """
        what = "the language model" if self.model == "frozen" else "fine-tuning"
        best, metric = self.best_baseline, self.task.main_metric
        value = self.model_metrics[metric].value
        if best is None or value is None:
            undefined = f"its {METRIC_NAMES[metric]}" if value is None else f"{METRIC_NAMES[metric]} of all baselines"
            return f"whether {what} was worth it is not known: {undefined} is undefined"
        baseline, difference = self.predictors[best][metric].value, self.differences[best]
        assert baseline is not None
        found = f"{METRIC_NAMES[metric]}{meaning} is {format_number(value)}, "
        found += f"and {format_number(baseline)} for the best baseline, {best}"
        if difference.value is None or difference.low is None or difference.high is None:
            return f"whether {what} was worth it is not known, because of too few test proteins: {found}"
        if difference.low == difference.high == 0:
            return f"{what} was not worth it: {found}"
        is_worth = (
            "worth it" if difference.low > 0 else "not worth it" if difference.high < 0 else "not clearly worth it"
        )
        interval = f"95 % interval {format_difference(difference.low)} to {format_difference(difference.high)}"
        return f"{what} was {is_worth}: {found} (difference {format_difference(difference.value)}, {interval})"

    def as_plain_values(self) -> dict[str, Any]:
        """Return the comparison as JSON can hold it."""
        values = asdict(self)
        del values["task"]
        return values

    @classmethod
    def from_plain_values(cls, task: Task, values: Mapping[str, Any]) -> "Comparison":
        """Read what `as_plain_values` returned, in this version or an earlier one."""
        # The former name of the predictors.
        predictors = values["predictors"] if "predictors" in values else values["rungs"]
        return cls(
            task=task,
            model=values["model"],
            num_repeats=values["num_repeats"],
            # Results of earlier versions have neither of these two.
            num_proteins=values.get("num_proteins", MIN_PROTEINS_FOR_INTERVAL),
            averages={metric: tuple(numbers) for metric, numbers in values.get("averages", {}).items()},
            predictors={
                name: {metric: MetricWithInterval(**value) for metric, value in measured.items()}
                for name, measured in predictors.items()
            },
            differences={name: MetricWithInterval(**value) for name, value in values["differences"].items()},
        )


def compare(
    task: Task,
    truth: Sequence[Target],
    predictions: Mapping[str, Sequence[Sequence[Prediction]]],
    *,
    is_random: bool = True,
) -> Comparison:
    """Compare a model with its baselines on the same proteins.

    Args:
        task: The task that the predictions are for.
        truth: The target of each protein.
        predictions: For each predictor, the simplest baseline first and the model last: the predictions of each of its
            trainings; a single one where nothing is repeated.
        is_random: Whether another seed would give another model.
    """
    *baselines, model = predictions
    trainings = {
        name: [Predictions(task=task, truth=truth, predicted=predicted) for predicted in repeats]
        for name, repeats in predictions.items()
    }
    measured = {name: _mean_metrics(repeats) for name, repeats in trainings.items()}
    main = {name: means[task.main_metric] for name, means in measured.items()}
    return Comparison(
        task=task,
        model=model,
        predictors={
            name: {metric: mean.with_interval() for metric, mean in means.items()} for name, means in measured.items()
        },
        differences={name: main[model].minus(main[name]).with_interval(is_difference=True) for name in baselines},
        num_repeats=len(trainings[model]) if is_random else None,
        num_proteins=len(truth),
        averages=trainings[model][0].averaged_over(),
    )


def _describe_difference(model: str, baseline: str, difference: MetricWithInterval, metric: str) -> str:
    if difference.value is None or difference.low is None or difference.high is None:
        return f"too few test proteins to compare {model} with {baseline} ({metric})"
    size = format_with_interval(difference.value, difference.low, difference.high, 3, signed=True) + f" {metric}"
    if difference.low > 0:
        return f"{model} is better than {baseline}: {size}"
    if difference.high < 0:
        return f"{model} is worse than {baseline}: {size}"
    return f"no significant difference between {model} and {baseline}: {size}"


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
