"""Compare a model with its baselines: metrics on the same test proteins, and paired differences with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.config.common import METRIC_NAMES, Task
from protembed.evaluation import intervals, metrics
from protembed.evaluation.intervals import MetricWithInterval
from protembed.finetuning.evaluation import (
    MIN_PROTEINS_FOR_INTERVAL,
    Prediction,
    averaged_over,
    metric_titles,
    resampled_metrics,
)
from protembed.finetuning.targets import Target

# Fewer trainings than these underestimate the variance between trainings.
_MIN_REPEATS_FOR_SPREAD = 5


@dataclass(frozen=True)
class _ResampledMetrics:
    """Metrics of one predictor, averaged over its trainings.

    Attributes:
        values: Each metric on all proteins; None where it is not defined for one of the trainings.
        left_out: Each metric without each protein or group of proteins in turn, (groups,).
        training_variances: The part of the variance of each mean that comes from the trainings.
    """

    values: Mapping[str, float | None]
    left_out: Mapping[str, NDArray[np.float64]]
    training_variances: Mapping[str, float]

    @classmethod
    def from_predictions(
        cls, task: Task, truth: Sequence[Target], trainings: Sequence[Sequence[Prediction]]
    ) -> "_ResampledMetrics":
        """Compute the metrics of each training on the same proteins."""
        resampled = [resampled_metrics(task, truth, predictions) for predictions in trainings]
        values = [metrics.point_metrics(measure, len(truth)) for measure in resampled]
        left_out = [intervals.jackknife(measure, len(truth)) for measure in resampled]
        return cls(
            {name: _mean([training[name] for training in values]) for name in values[0]},
            {name: np.mean([training[name] for training in left_out], axis=0) for name in values[0]},
            {name: _variance_of_mean([training[name] for training in values]) for name in values[0]},
        )

    def with_interval(self, metric: str, num_proteins: int) -> MetricWithInterval:
        """Compute the interval of a metric."""
        return _with_interval(
            self.values[metric], self.left_out[metric], metric, num_proteins, self.training_variances[metric]
        )

    def difference(self, baseline: "_ResampledMetrics", metric: str, num_proteins: int) -> MetricWithInterval:
        """Subtract the metric of a baseline on the same proteins."""
        value, subtracted = self.values[metric], baseline.values[metric]
        return _with_interval(
            None if value is None or subtracted is None else value - subtracted,
            self.left_out[metric] - baseline.left_out[metric],
            metric,
            num_proteins,
            self.training_variances[metric] + baseline.training_variances[metric],
            is_difference=True,
        )


def _with_interval(
    value: float | None,
    left_out: NDArray[np.float64],
    metric: str,
    num_proteins: int,
    extra_variance: float,
    *,
    is_difference: bool = False,
) -> MetricWithInterval:
    """Compute the interval of a metric or a difference; for a handful of proteins there is none."""
    if num_proteins < MIN_PROTEINS_FOR_INTERVAL:
        return MetricWithInterval(value=value)
    return MetricWithInterval.from_jackknife(
        value,
        left_out,
        metric=metric,
        num_units=num_proteins,
        extra_variance=extra_variance,
        is_difference=is_difference,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _variance_of_mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.var(known, ddof=1)) / len(known) if len(known) > 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A model and its baselines, measured on the same test proteins.

    Attributes:
        model: The name of the model among the predictors.
        predictors: The metrics of each predictor, the simplest baseline first and the model last.
        differences: The model's main metric minus that of each baseline, on the same resampled proteins.
        num_repeats: The trainings that the model's metrics are averaged over; None where nothing about the model is
            random.
        num_proteins: The test proteins.
        averages: For each metric that is averaged over fewer than all classes or labels, because some have no test
            protein: the number that it is averaged over, and the number of all.
    """

    task: Task
    model: str
    predictors: Mapping[str, Mapping[str, MetricWithInterval]]
    differences: Mapping[str, MetricWithInterval]
    num_repeats: int | None
    num_proteins: int
    averages: Mapping[str, Sequence[int]]

    @property
    def metric_names(self) -> Mapping[str, str]:
        """The names of the metrics in tables."""
        kind = "labels" if self.task.label_kind == "labels" else "classes"
        return metric_titles(METRIC_NAMES, self.averages, kind)

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

    def as_plain_values(self) -> dict[str, Any]:
        """Return the comparison as JSON can hold it."""
        return {
            "model": self.model,
            "num_repeats": self.num_repeats,
            "num_proteins": self.num_proteins,
            "averages": {metric: list(numbers) for metric, numbers in self.averages.items()},
            "predictors": {
                name: {metric: vars(value) for metric, value in measured.items()}
                for name, measured in self.predictors.items()
            },
            "differences": {name: vars(difference) for name, difference in self.differences.items()},
        }

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
    *_, model = predictions
    measured = {
        name: _ResampledMetrics.from_predictions(task, truth, trainings) for name, trainings in predictions.items()
    }
    return Comparison(
        task=task,
        model=model,
        predictors={
            name: {metric: resampled.with_interval(metric, len(truth)) for metric in resampled.values}
            for name, resampled in measured.items()
        },
        differences={
            name: measured[model].difference(baseline, task.main_metric, len(truth))
            for name, baseline in measured.items()
            if name != model
        },
        num_repeats=len(predictions[model]) if is_random else None,
        num_proteins=len(truth),
        averages=averaged_over(task, truth, predictions[model][0]),
    )


def _describe_difference(model: str, baseline: str, difference: MetricWithInterval, metric: str) -> str:
    if difference.value is None or difference.low is None or difference.high is None:
        return f"too few test proteins to compare {model} with {baseline} ({metric})"
    size = f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] {metric}"
    if difference.low > 0:
        return f"{model} is better than {baseline}: {size}"
    if difference.high < 0:
        return f"{model} is worse than {baseline}: {size}"
    return f"no significant difference between {model} and {baseline}: {size}"
