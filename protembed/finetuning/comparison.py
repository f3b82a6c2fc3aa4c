"""How a model stands beside simpler ways to predict the same: figures on the same proteins, and paired differences."""

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
    Output,
    averaged_over,
    resampled_metrics,
    shown_names,
)
from protembed.finetuning.targets import Target

# Fewer trainings than these understate how much trainings differ.
_MIN_REPEATS_FOR_SPREAD = 5


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ways to predict, measured on the same proteins.

    Attributes:
        task: what is predicted.
        model: the rung that is the model that is kept.
        rungs: the figures of each way, the simplest first.
        differences: in the main metric, the model less each other way, on the same drawn proteins.
        num_repeats: trainings, whose figures are averaged; where there are several, those are drawn anew as well. None:
            nothing about the model is random.
        num_proteins: The test proteins.
        averages: For each metric that is averaged over fewer than all classes or labels, because some have no test
            protein: over how many, and how many there are.
    """

    task: Task
    model: str
    rungs: Mapping[str, Mapping[str, MetricWithInterval]]
    differences: Mapping[str, MetricWithInterval]
    num_repeats: int | None
    num_proteins: int
    averages: Mapping[str, Sequence[int]]

    @property
    def metric_names(self) -> Mapping[str, str]:
        """The names of the metrics as a table shows them."""
        kind = "labels" if self.task.label_kind == "labels" else "classes"
        return shown_names(METRIC_NAMES, self.averages, kind)

    @property
    def figures(self) -> Mapping[str, MetricWithInterval]:
        """The model's own figures."""
        return self.rungs[self.model]

    def sentences(self) -> list[str]:
        """Say in plain words what the model adds over each other way, and what the intervals do not cover."""
        metric = METRIC_NAMES[self.task.main_metric]
        lines = [
            _describe_difference(self.model, name, score, metric)
            for name, score in self.differences.items()
            if self.rungs[name][self.task.main_metric].value is not None
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
            noise += (
                "; so few understate how much trainings differ" if self.num_repeats < _MIN_REPEATS_FOR_SPREAD else ""
            )
        return [*lines, f"95 % intervals over test proteins{noise}"]

    def as_plain_values(self) -> dict[str, Any]:
        """Spell the ladder as JSON can hold it."""
        return {
            "model": self.model,
            "num_repeats": self.num_repeats,
            "num_proteins": self.num_proteins,
            "averages": {metric: list(numbers) for metric, numbers in self.averages.items()},
            "rungs": {
                name: {metric: vars(score) for metric, score in rung.items()} for name, rung in self.rungs.items()
            },
            "differences": {name: vars(score) for name, score in self.differences.items()},
        }

    @classmethod
    def from_plain_values(cls, task: Task, values: Mapping[str, Any]) -> "Comparison":
        """Read what `as_plain_values` has spelled."""
        return cls(
            task=task,
            model=values["model"],
            num_repeats=values["num_repeats"],
            # Results of earlier versions have neither.
            num_proteins=values.get("num_proteins", MIN_PROTEINS_FOR_INTERVAL),
            averages={metric: tuple(numbers) for metric, numbers in values.get("averages", {}).items()},
            rungs={
                name: {metric: MetricWithInterval(**score) for metric, score in rung.items()}
                for name, rung in values["rungs"].items()
            },
            differences={name: MetricWithInterval(**score) for name, score in values["differences"].items()},
        )


@dataclass(frozen=True)
class _Measured:
    """Figures of one way, averaged over its trainings.

    Attributes:
        values: Each metric on all proteins; None where a training has none.
        left_out: Each metric without each protein or group, (groups,).
        of_trainings: The variance of each metric's mean that comes from the trainings.
    """

    values: Mapping[str, float | None]
    left_out: Mapping[str, NDArray[np.float64]]
    of_trainings: Mapping[str, float]

    @classmethod
    def of(cls, task: Task, truth: Sequence[Target], trainings: Sequence[Sequence[Output]]) -> "_Measured":
        """Measure each training on the same proteins."""
        figures = [resampled_metrics(task, truth, outputs) for outputs in trainings]
        exact = [metrics.point_metrics(one, len(truth)) for one in figures]
        left_out = [intervals.jackknife(one, len(truth)) for one in figures]
        values = {metric: _mean([one[metric] for one in exact]) for metric in exact[0]}
        return cls(
            values,
            {metric: np.mean([one[metric] for one in left_out], axis=0) for metric in values},
            {metric: _variance_of_mean([one[metric] for one in exact]) for metric in values},
        )

    def score(self, metric: str, num_proteins: int) -> MetricWithInterval:
        """Put a figure together with its interval."""
        return _score(self.values[metric], self.left_out[metric], metric, num_proteins, self.of_trainings[metric])

    def less(self, other: "_Measured", metric: str, num_proteins: int) -> MetricWithInterval:
        """Subtract another way's figure on the same proteins."""
        value, subtracted = self.values[metric], other.values[metric]
        return _score(
            None if value is None or subtracted is None else value - subtracted,
            self.left_out[metric] - other.left_out[metric],
            metric,
            num_proteins,
            self.of_trainings[metric] + other.of_trainings[metric],
            is_difference=True,
        )


def compare(
    task: Task, truth: Sequence[Target], outputs: Mapping[str, Sequence[Sequence[Output]]], *, is_random: bool = True
) -> Comparison:
    """Measure ways to predict, each on the same proteins.

    Args:
        task: what is predicted.
        truth: of each test protein.
        outputs: of each way, the simplest first and the model's last, the outputs of each of its trainings; one where
            there is nothing to repeat.
        is_random: whether another seed would have made another model.
    """
    *_, model = outputs
    measured = {name: _Measured.of(task, truth, trainings) for name, trainings in outputs.items()}
    return Comparison(
        task=task,
        model=model,
        rungs={
            name: {metric: one.score(metric, len(truth)) for metric in one.values} for name, one in measured.items()
        },
        differences={
            name: measured[model].less(one, task.main_metric, len(truth))
            for name, one in measured.items()
            if name != model
        },
        num_repeats=len(outputs[model]) if is_random else None,
        num_proteins=len(truth),
        averages=averaged_over(task, truth, outputs[model][0]),
    )


def _score(
    value: float | None,
    left_out: NDArray[np.float64],
    metric: str,
    num_proteins: int,
    extra_variance: float,
    *,
    is_difference: bool = False,
) -> MetricWithInterval:
    """Put a figure or a difference together with its interval; of a handful of proteins there is none."""
    if num_proteins < MIN_PROTEINS_FOR_INTERVAL:
        return MetricWithInterval(value=value, low=None, high=None)
    span = intervals.jackknife_interval(
        value,
        left_out,
        metric=metric,
        num_units=num_proteins,
        extra_variance=extra_variance,
        is_difference=is_difference,
    )
    return MetricWithInterval.from_interval(value, span)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _variance_of_mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.var(known, ddof=1)) / len(known) if len(known) > 1 else 0.0


def _describe_difference(model: str, other: str, score: MetricWithInterval, metric: str) -> str:
    if score.value is None or score.low is None or score.high is None:
        return f"{model} cannot be compared with {other} in {metric}: the test part says too little"
    size = f"{score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}] {metric}"
    if score.low > 0:
        return f"{model} adds to {other}: {size}"
    if score.high < 0:
        return f"{model} falls short of {other}: {size}"
    return f"{model} and {other} cannot be told apart: {size}"
