from dataclasses import replace

import pytest

from protembed.config.common import OptimizerConfig
from protembed.training.schedule import make_schedule

RATES = {"muon": 2e-3, "adamw": 1e-3, "sgd": 0.1}

# What the options leave open


def test_the_schedule_derives_missing_options_from_the_number_of_steps():
    schedule = make_schedule(OptimizerConfig(), 100, RATES)

    assert (schedule.validate_every, schedule.save_every, schedule.warmup_steps, schedule.decay_steps) == (20, 5, 5, 25)
    assert (schedule.optimizer, schedule.learning_rate, schedule.clip_norm) == ("muon", 2e-3, 1.0)
    assert make_schedule(OptimizerConfig(), 1, RATES).validate_every == 1


def test_sgd_is_scheduled_without_clipping_and_with_its_default_rate():
    schedule = make_schedule(OptimizerConfig(optimizer="sgd"), 100, RATES)

    assert (schedule.learning_rate, schedule.clip_norm) == (0.1, None)


def test_the_schedule_keeps_options_that_are_zero():
    options = OptimizerConfig(learning_rate=0.0, warmup_steps=0, decay_fraction=0.0, schedule="cosine")

    schedule = make_schedule(options, 100, RATES, validate_every=7, save_every=9, patience=3)

    assert (schedule.learning_rate, schedule.warmup_steps, schedule.decay_steps) == (0, 0, 0)
    assert (schedule.validate_every, schedule.save_every, schedule.patience, schedule.schedule) == (7, 9, 3, "cosine")


# The learning rate


def rates(num_steps, **course):
    schedule = replace(make_schedule(OptimizerConfig(learning_rate=1.0), num_steps, RATES), **course)
    return [schedule.learning_rate_at(step) for step in range(num_steps)]


def test_the_rate_rises_linearly_stays_and_falls_linearly():
    assert rates(10, warmup_steps=4, decay_steps=4) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 0.75, 0.5, 0.25]


def test_the_rate_is_constant_without_warmup_and_decay():
    assert rates(5, warmup_steps=0, decay_steps=0) == [1.0] * 5


def test_a_warmup_that_overlaps_the_decay_never_reaches_the_peak():
    assert rates(4, warmup_steps=4, decay_steps=4) == [0.25, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_every_step_of_a_short_run_has_a_positive_rate(num_steps):
    assert min(rates(num_steps, warmup_steps=1, decay_steps=2)) > 0


def test_the_peak_scales_the_whole_course():
    course = {"warmup_steps": 3, "decay_steps": 4}

    assert rates(9, **course, learning_rate=0.02) == pytest.approx([0.02 * rate for rate in rates(9, **course)])


def test_a_cosine_schedule_rises_linearly_and_falls_to_almost_zero():
    course = rates(10, warmup_steps=2, decay_steps=0, schedule="cosine")

    assert course[:3] == [0.5, 1.0, 1.0]
    assert course[6] == pytest.approx(0.5)
    assert sorted(course[1:], reverse=True) == course[1:]
    assert 0 < course[-1] < 0.05
