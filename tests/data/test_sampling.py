from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from protembed.data.sampling import EpochSampler, UniformSampler, token_counts
from protembed.pretraining.clusters import Clusters


def grouped(sizes):
    """Make clusters of consecutive rows, of the given sizes."""
    offsets = np.cumsum([0, *sizes])
    return Clusters(np.arange(offsets[-1]), offsets)


def make_sampler(lengths, batch_tokens, seed=0, clusters=None, **blocks):
    lengths = np.asarray(lengths)
    sampler = UniformSampler(len(lengths), **blocks) if clusters is None else replace(clusters, **blocks)
    return EpochSampler(sampler, lengths.__getitem__, int(lengths.max()), batch_tokens, seed, **blocks)


def steps_of(sampler, epoch):
    """The rows of each step of an epoch."""
    first = epoch * sampler.steps_per_epoch
    return [sampler.rows(step) for step in range(first, first + sampler.steps_per_epoch)]


@pytest.mark.promise(24)
@given(
    lengths=st.lists(st.integers(3, 100), min_size=1, max_size=60),
    batch_tokens=st.integers(200, 600),
    seed=st.integers(0, 3),
)
def test_an_epoch_sees_every_protein_once_within_the_budget_of_each_step(lengths, batch_tokens, seed):
    sampler, lengths = make_sampler(lengths, batch_tokens, seed), np.array(lengths)

    for epoch in range(2):
        steps = steps_of(sampler, epoch)
        assert sorted(np.concatenate(steps)) == list(range(len(lengths)))
        assert all(lengths[rows].sum() <= batch_tokens for rows in steps)


@pytest.mark.promise(24)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30), seed=st.integers(0, 3), data=st.data())
def test_an_epoch_sees_one_member_of_every_cluster_within_the_budget_of_each_step(sizes, seed, data):
    clusters = grouped(sizes)
    lengths = np.array(data.draw(st.lists(st.integers(3, 100), min_size=sum(sizes), max_size=sum(sizes))))
    sampler = make_sampler(lengths, 250, seed, clusters)

    for epoch in range(2):
        steps = steps_of(sampler, epoch)
        drawn = np.searchsorted(clusters.offsets, np.concatenate(steps), side="right") - 1
        assert sorted(drawn) == list(range(len(sizes)))
        assert all(lengths[rows].sum() <= 250 for rows in steps)


def test_members_of_a_cluster_are_drawn_equally_often():
    sampler = make_sampler(np.full(6, 10), 200, clusters=grouped([1, 5]))

    drawn = np.bincount([row for epoch in range(2000) for rows in steps_of(sampler, epoch) for row in rows])

    assert drawn[0] == 2000
    assert drawn[1:].min() > 320
    assert drawn[1:].max() < 480


def test_the_order_differs_between_epochs_and_between_seeds():
    first, second = (make_sampler(np.full(100, 50), 500, seed=seed) for seed in (0, 1))
    epochs = [np.concatenate(steps_of(first, epoch)).tolist() for epoch in (0, 1)]

    assert epochs[0] != epochs[1]
    assert first.rows(0).tolist() != second.rows(0).tolist()
    assert epochs[0] != sorted(epochs[0])


def test_steps_of_an_epoch_have_nearly_equal_numbers_of_tokens(corpus):
    lengths = np.minimum(corpus.lengths, 64) + 2
    sizes = [lengths[rows].sum() for rows in steps_of(make_sampler(lengths, 512), 0)]

    assert max(sizes) - min(sizes) <= 2 * 66


@pytest.mark.parametrize("clusters", [None, grouped([3, 1, 7, 2, 9, 8])], ids=["proteins", "clusters"])
def test_the_order_does_not_depend_on_the_size_of_blocks(clusters):
    lengths = np.random.default_rng(0).integers(3, 90, 30)
    whole, divided = (
        make_sampler(lengths, 200, 0, clusters),
        make_sampler(lengths, 200, 0, clusters, rows_per_block=4),
    )

    for epoch in range(3):
        assert list(map(list, steps_of(divided, epoch))) == list(map(list, steps_of(whole, epoch)))


def test_the_tokens_of_a_protein_are_counted_as_those_of_its_crop():
    count = token_counts(np.array([0, 5, 15, 26]), crop_residues=10)

    # Whole with both special tokens, whole too, and a crop with one of them at most.
    assert count(np.array([2, 0, 1])).tolist() == [11, 7, 12]
