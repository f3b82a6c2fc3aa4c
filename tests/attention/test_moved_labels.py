import numpy as np
import pytest

from protembed.attention.significance import MovedSegments, ShiftedPairs


def marks_of(moved, num_residues, num=2000, seed=0):
    """Moved marks, (num, residues): with ranks that are the residues themselves, one head each."""
    return moved.sums(np.eye(num_residues, dtype=np.float32), num, np.random.default_rng(seed)).astype(bool)


def test_moved_segments_keep_their_marks_and_stay_on_the_chain():
    is_marked = np.isin(np.arange(30), [3, 5, 20])

    marks = marks_of(MovedSegments(is_marked, max_gap=10), 30)

    assert (marks.sum(1) == 3).all()
    # The two that were close together are so still, wherever the third is.
    assert (marks[:, :-2] & marks[:, 2:]).any(1).all()


def test_each_place_of_a_segment_is_drawn_alike_often():
    marks = marks_of(MovedSegments(np.isin(np.arange(12), [4, 5, 6]), max_gap=1), 12, num=10_000)

    starts = np.bincount(marks.argmax(1), minlength=12)
    assert (starts[10:] == 0).all()
    assert starts[:10] == pytest.approx(np.full(10, 1000), abs=4 * np.sqrt(900))


def test_each_arrangement_of_two_unlike_segments_is_drawn_alike_often():
    is_marked = np.array([1, 1, 0, 1, 0], bool)
    arrangements, counts = np.unique(marks_of(MovedSegments(is_marked, 1), 5, num=12_000), axis=0, return_counts=True)

    # The pair at residue 0, the other at 2, 3 or 4; the pair at 1, the other at 0, 3, 4; at 2: 0, 1, 4; at 3: 0, 1, 2.
    # Where they touch, two of these twelve look alike: 11100, 01110 and 00111.
    assert len(arrangements) == 9
    expected = [2000 if "111" in "".join(map(str, row.astype(int))) else 1000 for row in arrangements]
    assert counts == pytest.approx(np.array(expected), abs=170)


def test_marks_farther_apart_than_the_gap_are_segments_of_their_own():
    is_marked = np.isin(np.arange(40), [0, 10, 21, 39])

    assert MovedSegments(is_marked, max_gap=10).num_segments == 3
    assert MovedSegments(is_marked, max_gap=9).num_segments == 4


def test_a_segment_as_long_as_the_protein_cannot_move():
    marks = marks_of(MovedSegments(np.ones(6, bool), max_gap=10), 6, num=5)

    assert marks.all()


def test_segments_moved_in_parts_are_as_many_as_those_moved_at_once(monkeypatch):
    monkeypatch.setattr("protembed.attention.significance._MARKS_AT_ONCE", 30 * 7)

    assert marks_of(MovedSegments(np.arange(30) < 4, max_gap=3), 30, num=100).shape == (100, 30)


def test_pairs_are_shifted_around_the_chain_and_unknown_pairs_add_nothing():
    # Four residues, all pairs but 1-3; the contact 0-1 becomes 1-2, 2-3 and 3-0.
    first, second = np.array([0, 0, 0, 1, 2]), np.array([1, 2, 3, 2, 3])
    is_contact = np.array([1, 0, 0, 0, 0], bool)
    ranks = np.array([[1], [10], [100], [1000], [10_000]], np.float32)

    one = ShiftedPairs(first, second, is_contact, 4).sums(ranks, 4000, np.random.default_rng(0))
    other = ShiftedPairs(first, second, np.array([0, 1, 0, 0, 0], bool), 4).sums(ranks, 9, np.random.default_rng(0))

    values, counts = np.unique(one, return_counts=True)
    assert values.tolist() == [1, 100, 1000, 10_000]
    assert counts == pytest.approx(np.full(4, 1000), abs=120)
    assert set(other.ravel().tolist()) <= {0, 10}
