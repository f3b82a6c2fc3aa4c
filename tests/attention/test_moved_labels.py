from dataclasses import replace

import numpy as np
import pytest

from protembed.attention.contacts import ResiduePairs
from protembed.attention.significance import MovedSegments, label_segments


def moved_segments(is_labelled, max_gap):
    return MovedSegments(label_segments(is_labelled, max_gap), len(is_labelled))


def moved_labels(moved, num_residues, num=2000, seed=0):
    """Return moved labels, (num, residues), by ranks that are one for one residue in each head."""
    return moved.sums(np.eye(num_residues, dtype=np.float32), num, np.random.default_rng(seed)).astype(bool)


def test_moved_segments_keep_their_labels_and_stay_on_the_chain():
    is_labelled = np.isin(np.arange(30), [3, 5, 20])

    labels = moved_labels(moved_segments(is_labelled, max_gap=10), 30)

    assert (labels.sum(1) == 3).all()
    # The two labels that were close together are still so, wherever the third is.
    assert (labels[:, :-2] & labels[:, 2:]).any(1).all()


def test_all_positions_of_a_segment_are_equally_likely():
    labels = moved_labels(moved_segments(np.isin(np.arange(12), [4, 5, 6]), max_gap=1), 12, num=10_000)

    starts = np.bincount(labels.argmax(1), minlength=12)
    assert (starts[10:] == 0).all()
    assert starts[:10] == pytest.approx(np.full(10, 1000), abs=4 * np.sqrt(900))


def test_all_arrangements_of_two_different_segments_are_equally_likely():
    is_labelled = np.array([1, 1, 0, 1, 0], bool)
    arrangements, counts = np.unique(
        moved_labels(moved_segments(is_labelled, 1), 5, num=12_000), axis=0, return_counts=True
    )

    # With the pair at residue 0, the single label is at 2, 3 or 4; at 1: 0, 3, 4; at 2: 0, 1, 4; at 3: 0, 1, 2. Where
    # they touch, two of these twelve arrangements are the same: 11100, 01110 and 00111.
    assert len(arrangements) == 9
    expected = [2000 if "111" in "".join(map(str, row.astype(int))) else 1000 for row in arrangements]
    assert counts == pytest.approx(np.array(expected), abs=170)


def test_labels_farther_apart_than_the_gap_are_separate_segments():
    is_labelled = np.isin(np.arange(40), [0, 10, 21, 39])

    assert len(label_segments(is_labelled, max_gap=10)) == 3
    assert len(label_segments(is_labelled, max_gap=9)) == 4


def test_segment_as_long_as_the_protein_cannot_move():
    labels = moved_labels(moved_segments(np.ones(6, bool), max_gap=10), 6, num=5)

    assert labels.all()


def test_segments_moved_in_blocks_give_all_rows(monkeypatch):
    monkeypatch.setattr("protembed.attention.significance._BLOCK_SIZE", 30 * 7)
    moved = moved_segments(np.arange(30) < 4, max_gap=3)

    assert moved_labels(moved, 30, num=100).shape == (100, 30)


def test_pairs_shift_around_the_ends_of_the_chain_and_unknown_pairs_add_nothing():
    # Four residues, all pairs but 1-3; the contact 0-1 becomes 1-2, 2-3 and 3-0.
    first, second = np.array([0, 0, 0, 1, 2]), np.array([1, 2, 3, 2, 3])
    is_contact = np.array([1, 0, 0, 0, 0], bool)
    ranks = np.array([[1], [10], [100], [1000], [10_000]], np.float32)

    pairs = ResiduePairs(first=first, second=second, is_contact=is_contact, num_residues=4, sequence="AAAA")
    sums = pairs.shifted_sums(ranks, 4000, np.random.default_rng(0))
    of_unknown_pairs = replace(pairs, is_contact=np.array([0, 1, 0, 0, 0], bool))
    sums_of_unknown_pairs = of_unknown_pairs.shifted_sums(ranks, 9, np.random.default_rng(0))

    values, counts = np.unique(sums, return_counts=True)
    assert values.tolist() == [1, 100, 1000, 10_000]
    assert counts == pytest.approx(np.full(4, 1000), abs=120)
    assert set(sums_of_unknown_pairs.ravel().tolist()) <= {0, 10}
