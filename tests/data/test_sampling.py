import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protembed.data import sampling
from protembed.data.sampling import EpochSampler, UniformSampler, token_counts
from protembed.pretraining.clusters import ClusterSampler


class Grouped:
    """Clusters of the sizes given, of consecutive rows."""

    def __init__(self, sizes):
        self.offsets = np.cumsum([0, *sizes])
        self.members = np.arange(self.offsets[-1])

    def __len__(self):
        return len(self.offsets) - 1


def order_of(lengths, batch_tokens, seed=0, clusters=None):
    lengths = np.asarray(lengths)
    sampler = UniformSampler(len(lengths)) if clusters is None else ClusterSampler(clusters)
    return EpochSampler(sampler, lengths.__getitem__, int(lengths.max()), batch_tokens, seed)


def steps_of(one, epoch):
    first = epoch * one.steps_per_epoch
    return [one.rows(step) for step in range(first, first + one.steps_per_epoch)]


@pytest.mark.promise(24)
@given(
    lengths=st.lists(st.integers(3, 100), min_size=1, max_size=60),
    batch_tokens=st.integers(200, 600),
    seed=st.integers(0, 3),
)
def test_each_epoch_takes_every_protein_exactly_once_within_the_budget(lengths, batch_tokens, seed):
    one, lengths = order_of(lengths, batch_tokens, seed), np.array(lengths)

    for epoch in range(2):
        steps = steps_of(one, epoch)
        assert sorted(np.concatenate(steps)) == list(range(len(lengths)))
        assert all(lengths[rows].sum() <= batch_tokens for rows in steps)


@pytest.mark.promise(24)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30), seed=st.integers(0, 3), data=st.data())
def test_each_epoch_takes_one_member_of_every_cluster_within_the_budget(sizes, seed, data):
    clusters = Grouped(sizes)
    lengths = np.array(data.draw(st.lists(st.integers(3, 100), min_size=sum(sizes), max_size=sum(sizes))))
    one = order_of(lengths, 250, seed, clusters)

    for epoch in range(2):
        steps = steps_of(one, epoch)
        drawn = np.searchsorted(clusters.offsets, np.concatenate(steps), side="right") - 1
        assert sorted(drawn) == list(range(len(sizes)))
        assert all(lengths[rows].sum() <= 250 for rows in steps)


def test_every_member_of_a_cluster_has_the_same_chance():
    one = order_of(np.full(6, 10), 200, clusters=Grouped([1, 5]))

    drawn = np.bincount([row for epoch in range(2000) for rows in steps_of(one, epoch) for row in rows])

    assert drawn[0] == 2000
    assert drawn[1:].min() > 320
    assert drawn[1:].max() < 480


def test_epochs_and_seeds_have_orders_of_their_own():
    one, other = order_of(np.full(100, 50), 500, seed=0), order_of(np.full(100, 50), 500, seed=1)
    epochs = [np.concatenate(steps_of(one, epoch)).tolist() for epoch in (0, 1)]

    assert epochs[0] != epochs[1]
    assert one.rows(0).tolist() != other.rows(0).tolist()
    assert epochs[0] != sorted(epochs[0])


def test_steps_of_an_epoch_are_of_nearly_equal_size(corpus):
    lengths = np.minimum(corpus.lengths, 64) + 2
    sizes = [lengths[rows].sum() for rows in steps_of(order_of(lengths, 512), 0)]

    assert max(sizes) - min(sizes) <= 2 * 66


@pytest.mark.parametrize("clusters", [None, Grouped([3, 1, 7, 2, 9, 8])], ids=["proteins", "clusters"])
def test_the_order_does_not_depend_on_the_blocks_it_is_computed_in(monkeypatch, clusters):
    lengths = np.random.default_rng(0).integers(3, 90, 30)
    whole = [rows.tolist() for epoch in range(3) for rows in steps_of(order_of(lengths, 200, 0, clusters), epoch)]

    monkeypatch.setattr(sampling, "_BLOCK", 4)
    blocks = [rows.tolist() for epoch in range(3) for rows in steps_of(order_of(lengths, 200, 0, clusters), epoch)]

    assert blocks == whole


def test_tokens_are_counted_as_a_crop_shows_them():
    count = token_counts(np.array([0, 5, 15, 26]), crop_residues=10)

    # Whole with both special tokens, whole too, and a crop with one of them at most.
    assert count(np.array([2, 0, 1])).tolist() == [11, 7, 12]
