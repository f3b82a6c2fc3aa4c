import math

import pytest

import forecast


@pytest.fixture
def make_lines():
    """Make the log of a run with validations at some steps, whose loss falls by 0.01 with each doubling."""

    def make(last, validated):
        return [
            {"step": step, "residues": 1_000_000 * step, "time": "2026-11-29T21:04:54.827+00:00"}
            | ({"valid_loss": 2.8 - 0.01 * math.log2(step)} if step in validated else {})
            for step in range(1, last + 1)
        ]

    return make


def test_the_loss_is_extrapolated_in_the_logarithm_of_the_residues(make_lines):
    sentence = forecast.forecast(make_lines(20, [1, 2, 4, 8, 16]), num_steps=64)

    assert sentence.startswith("29 Nov 21:04: step 20 of 64, 20.0 M residues; validation perplexity 15.80, and ")
    assert sentence.endswith(f"{math.exp(2.8 - 0.06):.2f} or less at the end, after 64 M")


def test_nothing_is_extrapolated_from_less_than_two_validations(make_lines):
    assert forecast.forecast(make_lines(3, []), 10).endswith("3.0 M residues; not validated yet")
    assert forecast.forecast(make_lines(3, [2]), 10).endswith("validation perplexity 16.28")
