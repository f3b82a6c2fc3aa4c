"""What the page of a run shows: the plan, the log, and what is known of the best model so far."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from protembed.config.model_sizes import EncoderShape
from protembed.config.pretrain import PretrainOptions
from protembed.evaluation.intervals import MetricWithInterval
from protembed.pretraining.amino_acids import AminoAcidPredictions
from protembed.pretraining.report import PretrainPlan

if TYPE_CHECKING:
    from protembed.training.checkpoints import TrainingProgress
    from protembed.training.schedule import TrainingSchedule

# What is known of the model beside a baseline; the last two without an interval, which needs a finished run and several
# validation proteins.
Verdict = Literal["better", "unclear", "worse", "seems better", "seems worse"]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run of pretraining, finished or not.

    Attributes:
        fasta: FASTA files of the training proteins.
        shape: Shape of the encoder.
        plan: Counts of the data, and the losses of the baselines.
        first_num_steps: Number of steps planned at first; None if the plan was not adjusted to a time.
        log: Lines of `metrics.jsonl`.
        gains: Gain of the best model over each baseline on the first validation set; empty until the run is finished.
        amino_acids: Predictions of the best model on the same set; None before the first validation.
        composition: Fraction of each amino acid in the training proteins, (20,), in the order of the alphabet.
    """

    fasta: Sequence[Path]
    options: PretrainOptions
    shape: EncoderShape
    plan: PretrainPlan
    schedule: "TrainingSchedule"
    first_num_steps: int | None
    progress: "TrainingProgress"
    log: Sequence[Mapping[str, Any]]
    gains: Mapping[str, MetricWithInterval]
    amino_acids: AminoAcidPredictions | None
    composition: Sequence[float]

    @property
    def is_finished(self) -> bool:
        """Whether no step is left."""
        return self.progress.is_finished(self.schedule.num_steps, self.schedule.patience)

    @property
    def has_diverged(self) -> bool:
        """Whether the last step made the loss infinite; the log ends before such a step."""
        return self.progress.step > (self.log[-1]["step"] if self.log else 0)

    @property
    def valid_name(self) -> str:
        """Name of the first validation set."""
        return next(iter(self.plan.valid_sets))

    @property
    def references(self) -> Mapping[str, float]:
        """Losses of the baselines on the first validation set, nats per masked residue."""
        return self.plan.references[self.valid_name]

    @property
    def validated(self) -> list[Mapping[str, Any]]:
        """Lines of the log with a validation."""
        return [line for line in self.log if "valid_loss" in line]

    def gain(self, name: str) -> MetricWithInterval:
        """Return the gain of the best model over a baseline, with its interval if the run is finished."""
        if name in self.gains:
            return self.gains[name]
        loss = self.progress.best_loss
        return MetricWithInterval(value=None if loss is None else self.references[name] - loss)

    def verdict(self, name: str) -> Verdict | None:
        """Compare the best model with a baseline; None before the first validation."""
        gain = self.gain(name)
        if gain.value is None:
            return None
        if gain.low is None or gain.high is None:
            return "seems better" if gain.value > 0 else "seems worse"
        if gain.low > 0:
            return "better"
        return "worse" if gain.high < 0 else "unclear"

    @property
    def has_learned(self) -> bool:
        """Whether the best model is better than the frequencies of amino acids, as far as is known."""
        return self.verdict("unigram") in ("better", "seems better")

    @property
    def unigram_losses(self) -> NDArray[np.float64]:
        """Loss of the unigram model for each amino acid, (20,), float64, nats."""
        return np.asarray(-np.log(self.composition))

    @property
    def num_passes(self) -> float:
        """How often each training protein, or a member of each cluster, was seen."""
        return self.progress.step / self.plan.steps_per_pass

    @property
    def num_planned_validations(self) -> int:
        """Validations of the whole run, unless it ends early."""
        return math.ceil(self.schedule.num_steps / self.schedule.validate_every)
