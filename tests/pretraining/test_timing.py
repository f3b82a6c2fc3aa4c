import itertools
from types import SimpleNamespace

import pytest

from protembed.config.common import OptimizerConfig
from protembed.pretraining import timing
from protembed.pretraining.timing import StepTiming, TimeBudget, time_steps
from protembed.training.distributed import Executor
from protembed.training.schedule import make_schedule

TIMING = StepTiming(step_seconds=0.1, validation_seconds=2.0, memory_bytes=0)


def adamw_schedule(num_steps, validate_every=None, **options):
    return make_schedule(OptimizerConfig(**options), num_steps, {"adamw": 1e-3}, validate_every=validate_every)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing, "time", SimpleNamespace(monotonic=lambda: clock.now, perf_counter=lambda: clock.now))
    return clock


def test_timing_steps_leaves_the_model_unchanged(
    masked_lm, pretraining_steps, pool, monkeypatch, copy_weights, have_same_bits
):
    ticks, before = itertools.count(step=0.8), copy_weights(masked_lm)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))

    measured = time_steps(
        masked_lm, pretraining_steps.micro_batches, adamw_schedule(10), Executor(pool=pool), num_valid_residues=3_000
    )

    assert measured.step_seconds == pytest.approx(0.8)
    # A step has at most 400 tokens, so 3,000 residues are more than 7 steps; validating takes a third of the time.
    assert 7 * 0.8 / 3 < measured.validation_seconds < 12 * 0.8 / 3
    assert measured.memory_bytes > 1e7
    assert have_same_bits(copy_weights(masked_lm), before)
    assert all(parameter.grad is None for parameter in masked_lm.parameters())


def test_the_duration_of_a_run_includes_its_validations():
    assert TIMING.seconds(adamw_schedule(100, validate_every=40)) == pytest.approx(100 * 0.1 + 3 * 2.0)


def planned(minutes, validate_every=None):
    return adamw_schedule(*TimeBudget(0.0, minutes, TIMING).plan(validate_every))


def test_the_schedule_fills_the_time(clock):
    schedule = planned(minutes=10)

    # The evaluation by amino acid takes as long as another validation.
    assert TIMING.seconds(schedule) + TIMING.validation_seconds == pytest.approx(0.98 * 600, rel=0.01)
    assert schedule.num_steps / schedule.validate_every == pytest.approx(5, abs=0.1)


def test_validations_take_at_most_a_twentieth_of_the_time_but_one_is_scheduled(clock):
    assert planned(minutes=2).validate_every > adamw_schedule(1000).validate_every
    short = planned(minutes=0.1)
    assert short.validate_every == short.num_steps


def test_the_schedule_leaves_time_for_the_requested_validations(clock):
    schedule = planned(minutes=10, validate_every=10)

    assert schedule.validate_every == 10
    assert TIMING.seconds(schedule) == pytest.approx(600, rel=0.05)


def test_a_schedule_without_time_still_has_one_step(clock):
    clock.now = 1e6

    assert planned(minutes=1).num_steps == 1


def run(budget, schedule, clock, seconds_per_step):
    """Take all steps at a given speed; return the final schedule, and the steps before which it was replanned."""
    replanned, step = [], 0
    while step < schedule.num_steps:
        new_schedule = budget.replan(schedule, step)
        if new_schedule is not schedule:
            schedule = new_schedule
            replanned.append(step)
        clock.now += seconds_per_step
        step += 1
    return schedule, replanned


@pytest.mark.parametrize("seconds_per_step", [0.05, 0.1, 0.4])
def test_a_run_faster_or_slower_than_measured_ends_in_time(clock, seconds_per_step):
    schedule, replanned = run(TimeBudget(0.0, 10, TIMING), adamw_schedule(6000), clock, seconds_per_step)

    assert clock.now == pytest.approx(600, rel=0.03)
    assert replanned[0] == 750
    assert schedule.decay_steps == pytest.approx(0.25 * schedule.num_steps, abs=2)


def test_replanning_never_changes_the_rate_of_earlier_steps(clock):
    before = adamw_schedule(1000)
    after, replanned = run(TimeBudget(0.0, 1, TIMING), before, clock, 0.09)

    assert replanned
    assert [after.learning_rate_at(step) for step in range(replanned[0])] == [
        before.learning_rate_at(step) for step in range(replanned[0])
    ]
    assert after.num_steps - after.decay_steps >= replanned[0]


def test_a_cosine_schedule_is_not_replanned(clock):
    schedule, replanned = run(TimeBudget(0.0, 10, TIMING), adamw_schedule(100, schedule="cosine"), clock, 0.05)

    assert (schedule.num_steps, replanned) == (100, [])
