"""The course of a training: its steps, its learning rate, and when it validates and saves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from protembed.config.common import OptimizerConfig, OptimizerName, ScheduleName

NUM_DEFAULT_VALIDATIONS = 5
_NUM_DEFAULT_CHECKPOINTS = 20


@dataclass(frozen=True, kw_only=True)
class TrainingSchedule:
    """The course of a run, with no number left open; the last step is always validated and saved.

    Attributes:
        learning_rate: Peak, which the last step of the linear warm-up reaches.
        schedule: Course of the learning rate after the warm-up.
        decay_steps: Final steps in which the learning rate falls to zero (`stable`).
        clip_norm: Largest norm of a step's gradient; None does not clip it.
        patience: Validations in a row without a lower loss after which the run ends; None never ends it early.
    """

    num_steps: int
    validate_every: int
    save_every: int
    optimizer: OptimizerName
    learning_rate: float
    schedule: ScheduleName
    warmup_steps: int
    decay_steps: int
    weight_decay: float
    clip_norm: float | None
    patience: int | None = None

    def learning_rate_at(self, step: int) -> float:
        """Compute the learning rate of a step, counted from 0.

        `stable` rises linearly, stays, and falls linearly to zero over the last steps; `cosine` rises linearly and
        falls to zero along half a cosine wave.

        Source: Hu et al. 2024, "MiniCPM", section 4 (warm-up, stable, decay); Loshchilov and Hutter 2017 (cosine).

        >>> options = OptimizerConfig(learning_rate=1.0, warmup_steps=2, decay_fraction=0.5)
        >>> schedule = make_schedule(options, 8, {"adamw": 0.001})
        >>> [schedule.learning_rate_at(step) for step in range(8)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        rising = (step + 1) / self.warmup_steps if self.warmup_steps else 1.0
        if self.schedule == "cosine":
            fraction = max(0, step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
            return self.learning_rate * min(rising, (1 + math.cos(math.pi * fraction)) / 2)
        falling = (self.num_steps - step) / self.decay_steps if self.decay_steps else 1.0
        return self.learning_rate * min(1.0, rising, falling)


def make_schedule(
    config: OptimizerConfig,
    num_steps: int,
    default_rates: Mapping[OptimizerName, float],
    *,
    validate_every: int | None = None,
    save_every: int | None = None,
    patience: int | None = None,
) -> TrainingSchedule:
    """Make a schedule from the options, and choose what they leave open: five validations, twenty checkpoints.

    The first optimiser that has a default learning rate is the default optimiser.
    """
    optimizer = next(iter(default_rates)) if config.optimizer is None else config.optimizer
    return TrainingSchedule(
        num_steps=num_steps,
        validate_every=validate_every or math.ceil(num_steps / NUM_DEFAULT_VALIDATIONS),
        save_every=save_every or math.ceil(num_steps / _NUM_DEFAULT_CHECKPOINTS),
        optimizer=optimizer,
        learning_rate=default_rates[optimizer] if config.learning_rate is None else config.learning_rate,
        schedule=config.schedule,
        warmup_steps=math.ceil(num_steps / 20) if config.warmup_steps is None else config.warmup_steps,
        decay_steps=round(config.decay_fraction * num_steps),
        weight_decay=config.weight_decay,
        clip_norm=None if optimizer == "sgd" else config.clip_norm,
        patience=patience,
    )
