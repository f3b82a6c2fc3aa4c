"""How a model stands beside simpler ways to predict the same: figures on the same proteins, and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.analysis.scores import Output, Score, figures_of_draws, measure
from protembed.bootstrap import Figures, bootstrap
from protembed.config.task import METRIC_NAMES, Task
from protembed.data.targets import Answer

# A figure of fewer test proteins has no interval.
FEWEST_PROTEINS = 10
# Fewer trainings than these understate how much trainings differ.
_MANY = 5


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Ways to predict, measured on the same proteins.

    Attributes:
        task: what is predicted.
        model: the rung that is the model that is kept.
        rungs: the figures of each way, the simplest first.
        differences: in the main metric, the model less each other way, on the same drawn proteins.
        num_repeats: trainings, whose figures are averaged; where there are several, those are drawn anew as well. None:
            nothing about the model is random.
    """

    task: Task
    model: str
    rungs: Mapping[str, Mapping[str, Score]]
    differences: Mapping[str, Score]
    num_repeats: int | None

    @property
    def figures(self) -> Mapping[str, Score]:
        """The model's own figures."""
        return self.rungs[self.model]

    def sentences(self) -> list[str]:
        """Say in plain words what the model adds over each other way, and what the intervals do not cover."""
        metric = METRIC_NAMES[self.task.main_metric]
        lines = [
            _verdict(self.model, name, score, metric)
            for name, score in self.differences.items()
            if self.rungs[name][self.task.main_metric].value is not None
        ]
        noise = "; one seed, so training noise is not in the intervals"
        if self.num_repeats is None:
            noise = ""
        elif self.num_repeats > 1:
            noise = f" and {self.num_repeats} seeds"
            noise += "; so few understate how much trainings differ" if self.num_repeats < _MANY else ""
        return [*lines, f"95 % intervals over test proteins{noise}"]

    def as_plain_values(self) -> dict[str, Any]:
        """Spell the ladder as JSON can hold it."""
        return {
            "model": self.model,
            "num_repeats": self.num_repeats,
            "rungs": {
                name: {metric: vars(score) for metric, score in rung.items()} for name, rung in self.rungs.items()
            },
            "differences": {name: vars(score) for name, score in self.differences.items()},
        }

    @classmethod
    def from_plain_values(cls, task: Task, values: Mapping[str, Any]) -> "Ladder":
        """Read what `as_plain_values` has spelled."""
        return cls(
            task=task,
            model=values["model"],
            num_repeats=values["num_repeats"],
            rungs={
                name: {metric: Score(**score) for metric, score in rung.items()}
                for name, rung in values["rungs"].items()
            },
            differences={name: Score(**score) for name, score in values["differences"].items()},
        )


def compare(
    task: Task,
    truth: Sequence[Answer],
    outputs: Mapping[str, Sequence[Sequence[Output]]],
    seed: int,
    *,
    is_random: bool = True,
) -> Ladder:
    """Measure ways to predict, each on the same proteins drawn anew.

    Args:
        task: what is predicted.
        truth: of each test protein.
        outputs: of each way, the simplest first and the model's last, the outputs of each of its trainings; one where
            there is nothing to repeat.
        seed: of the draws.
        is_random: whether another seed would have made another model.
    """
    *_, model = outputs
    rungs, resampled = dict[str, dict[str, Score]](), dict[str, NDArray[np.float64]]()
    values = dict[str, float | None]()
    for name, trainings in outputs.items():
        exact = [measure(task, truth, training) for training in trainings]
        drawn = [_resample(task, truth, training, seed) for training in trainings]
        rungs[name] = {}
        for metric in exact[0]:
            value, figures = _mean([one[metric] for one in exact]), _drawn_mean([one[metric] for one in drawn], seed)
            rungs[name][metric] = Score.of(value, figures)
            if metric == task.main_metric:
                values[name], resampled[name] = value, figures
    return Ladder(
        task=task,
        model=model,
        rungs=rungs,
        differences={
            name: Score.of(_less(values[model], values[name]), resampled[model] - resampled[name])
            for name in outputs
            if name != model
        },
        num_repeats=len(outputs[model]) if is_random else None,
    )


def _resample(task: Task, truth: Sequence[Answer], outputs: Sequence[Output], seed: int) -> Figures:
    """Measure on proteins drawn anew; of a handful nothing can be said that way."""
    figures = bootstrap(figures_of_draws(task, truth, outputs), len(truth), seed=seed)
    if len(truth) < FEWEST_PROTEINS:
        return {name: np.full_like(values, np.nan) for name, values in figures.items()}
    return figures


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _drawn_mean(drawn: Sequence[NDArray[np.float64]], seed: int) -> NDArray[np.float64]:
    """Average trainings, drawn anew with repetition in each resample, (resamples,)."""
    figures = np.stack(drawn)  # (trainings, resamples)
    if len(figures) == 1:
        return np.asarray(figures[0])
    chosen = np.random.default_rng([seed, len(figures)]).integers(len(figures), size=figures.shape)
    return np.asarray(np.take_along_axis(figures, chosen, axis=0).mean(0))


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _verdict(model: str, other: str, score: Score, metric: str) -> str:
    if score.value is None or score.low is None or score.high is None:
        return f"{model} cannot be compared with {other} in {metric}: the test part says too little"
    size = f"{score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}] {metric}"
    if score.low > 0:
        return f"{model} adds to {other}: {size}"
    if score.high < 0:
        return f"{model} falls short of {other}: {size}"
    return f"{model} and {other} cannot be told apart: {size}"
