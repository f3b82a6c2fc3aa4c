"""The schedule of a run: the steps asked for, as many as fit into the time, or about ten passes over the data."""

from protembed.config.common import OptimizerName
from protembed.config.pretrain import PretrainOptions
from protembed.pretraining.batches import PretrainingBatches
from protembed.pretraining.timing import TimeBudget
from protembed.training.schedule import TrainingSchedule, make_schedule

_DEFAULT_PASSES, _MIN_DEFAULT_STEPS = 10, 200
# Chosen at equal time (benchmarks/README.md); the first is the default.
_DEFAULT_RATES: dict[OptimizerName, float] = {"muon": 3e-3, "adamw": 1e-3, "sgd": 0.1}


def plan_schedule(
    options: PretrainOptions, batches: PretrainingBatches, budget: TimeBudget | None = None
) -> TrainingSchedule:
    """Schedule the steps asked for, as many as fit into the time budget, or about ten passes over the data."""
    config = options.pretrain
    num_steps, validate_every = config.steps, config.validate_every
    if budget is not None:
        num_steps, validate_every = budget.plan(validate_every)
    return make_schedule(
        options.optimizer,
        num_steps or max(_MIN_DEFAULT_STEPS, _DEFAULT_PASSES * batches.steps_per_epoch),
        _DEFAULT_RATES,
        validate_every=validate_every,
        save_every=config.save_every,
        patience=config.patience,
    )
