import itertools
from types import SimpleNamespace

import pytest

from protembed.config.common import OptimizerConfig
from protembed.pretraining import timing
from protembed.pretraining.timing import StepTiming, TimeBudget, time_steps
from protembed.training.distributed import Executor
from protembed.training.loop import TrainingSetup, make_schedule

PACE = StepTiming(step_seconds=0.1, validation_seconds=2.0, memory_bytes=0)


def plan_of(num_steps, validate_every=None, **options):
    return make_schedule(OptimizerConfig(**options), num_steps, {"adamw": 1e-3}, validate_every=validate_every)


@pytest.fixture
def clock(monkeypatch):
    """A time that the test sets."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing, "time", SimpleNamespace(monotonic=lambda: clock.now, perf_counter=lambda: clock.now))
    return clock


def test_measuring_the_pace_leaves_the_model_as_it_was(masked_lm, steps, pool, monkeypatch, weights_of, same_bits):
    ticks, before = itertools.count(step=0.8), weights_of(masked_lm)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    training = TrainingSetup(objective=masked_lm, batches=steps, optimizers=[], executor=Executor(pool=pool))

    measured = time_steps(training, plan_of(10), num_valid_residues=3_000)

    assert measured.step_seconds == pytest.approx(0.8)
    # A step has at most 400 tokens: 3,000 residues are more than 7 steps, and validating takes a third of training.
    assert 7 * 0.8 / 3 < measured.validation_seconds < 12 * 0.8 / 3
    assert measured.memory_bytes > 1e7
    assert same_bits(weights_of(masked_lm), before)
    assert all(parameter.grad is None for parameter in masked_lm.parameters())


def test_a_run_takes_its_steps_and_its_validations():
    assert PACE.seconds(plan_of(100, validate_every=40)) == pytest.approx(100 * 0.1 + 3 * 2.0)


def test_as_many_steps_are_planned_as_fit(clock):
    plan = TimeBudget(0.0, 10).plan_within(plan_of, PACE, None)

    # The table of amino acids takes as long as another validation.
    assert PACE.seconds(plan) + PACE.validation_seconds == pytest.approx(0.98 * 600, rel=0.01)
    assert plan.num_steps / plan.validate_every == pytest.approx(5, abs=0.1)


def test_validations_take_a_twentieth_of_a_short_time_at_most_but_one_is_made(clock):
    assert TimeBudget(0.0, 2).plan_within(plan_of, PACE, None).validate_every > plan_of(1000).validate_every
    short = TimeBudget(0.0, 0.1).plan_within(plan_of, PACE, None)
    assert short.validate_every == short.num_steps


def test_the_time_for_validations_that_the_user_asks_for_is_left(clock):
    plan = TimeBudget(0.0, 10).plan_within(plan_of, PACE, 10)

    assert plan.validate_every == 10
    assert PACE.seconds(plan) == pytest.approx(600, rel=0.05)


def test_a_plan_without_time_still_has_a_step(clock):
    clock.now = 1e6

    assert TimeBudget(0.0, 1).plan_within(plan_of, PACE, None).num_steps == 1


def corrected(budget, plan, clock, seconds_per_step):
    """Walk through a plan at a pace of its own; return it as it was corrected, and when."""
    when, step = [], 0
    while step < plan.num_steps:
        if budget.should_replan(plan, step):
            plan = budget.replan(plan, step)
            when.append(step)
        clock.now += seconds_per_step
        step += 1
    return plan, when


@pytest.mark.parametrize("seconds_per_step", [0.05, 0.1, 0.4])
def test_a_run_at_another_pace_than_measured_still_ends_in_time(clock, seconds_per_step):
    plan, when = corrected(TimeBudget(0.0, 10), plan_of(6000), clock, seconds_per_step)

    assert clock.now == pytest.approx(600, rel=0.03)
    assert when[0] == 750
    assert plan.decay_steps == pytest.approx(0.25 * plan.num_steps, abs=2)


def test_a_correction_never_changes_the_rate_of_steps_that_were_taken(clock):
    before = plan_of(1000)
    after, when = corrected(TimeBudget(0.0, 1), before, clock, 0.09)

    assert when
    assert [after.learning_rate_at(step) for step in range(when[0])] == [
        before.learning_rate_at(step) for step in range(when[0])
    ]
    assert after.num_steps - after.decay_steps >= when[0]


def test_a_cosine_is_not_corrected(clock):
    plan, when = corrected(TimeBudget(0.0, 10), plan_of(100, schedule="cosine"), clock, 0.05)

    assert (plan.num_steps, when) == (100, [])
