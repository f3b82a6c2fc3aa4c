import numpy as np
import pytest

from protembed.report.embedding_figures import (
    draw_by_length,
    draw_cosines,
    draw_lengths,
    draw_positions,
    draw_residues,
    draw_variance,
)

RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(20, 4000, 3000)


@pytest.mark.parametrize("lengths", [LENGTHS, np.full(3, 70), np.array([1])], ids=["many", "equal", "one residue"])
def test_lengths_are_drawn(lengths):
    assert draw_lengths(lengths, 1022).startswith("<svg")


@pytest.mark.parametrize(("window", "is_shown"), [(1022, True), (100_000, False)])
def test_window_is_drawn_where_lengths_are_close_to_it(window, is_shown):
    assert (f"window: {window:,}" in draw_lengths(LENGTHS, window)) is is_shown


def test_point_is_ringed_and_named_as_text_though_many_points_are_left_out():
    values = RNG.normal(size=3000)
    values[7] = np.nan

    drawn = draw_by_length(LENGTHS, values, {2999: "</svg><script>alert(1)</script>"}, label="norm", limits=[-5, 5])

    assert "<script" not in drawn
    assert "&lt;script&gt;" in drawn
    assert drawn.count("<use") < 1100


def test_cosines_without_pairs_are_an_empty_figure():
    none = np.zeros(0, np.float32)

    assert draw_cosines(none, none).startswith("<svg")


def test_marked_shares_are_numbered():
    drawn = draw_variance(np.array([0.6, 0.8, 0.95, 1.0]), {0.5: 1, 0.9: 3})

    assert ">1</text>" in drawn and ">3</text>" in drawn


@pytest.mark.parametrize("lengths", [LENGTHS, np.full(3000, 70), None], ids=["lengths", "equal lengths", "residues"])
def test_positions_are_drawn_with_the_shares_of_their_components(lengths):
    drawn = draw_positions(RNG.normal(size=(3000, 2)), (0.3, 0.2), lengths)

    assert "component 1 (30 % of the variance)" in drawn
    assert drawn.count("<use") < 1100


def test_same_numbers_give_the_same_bytes():
    positions = RNG.normal(size=(50, 2))

    drawn = [draw_positions(positions * (1 + shift), (0.3, 0.2), LENGTHS[:50]) for shift in (0, 1e-14)]

    assert drawn[0] == drawn[1]


def test_residues_are_drawn_as_letters_with_the_kinds_that_occur():
    drawn = draw_residues(RNG.normal(size=(4, 2)), (0.3, 0.2), "AAKD")

    assert all(kind in drawn for kind in ("hydrophobic", "positive", "negative"))
    assert "non-standard" not in drawn and "polar" not in drawn
