import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from protembed.data.alphabet import CLS, EOS, PAD, RESIDUES, encode, is_amino_acid
from protembed.data.batching import (
    MaskedCrop,
    MicroBatchShape,
    balance,
    concatenate,
    concatenate_masked,
    make_crop,
    split_by_budget,
)


@pytest.mark.parametrize(
    ("start", "stop", "tokens"),
    [(0, 3, [CLS, 20, 15, 11, EOS]), (0, 2, [CLS, 20, 15]), (1, 3, [15, 11, EOS]), (1, 2, [15])],
)
def test_a_crop_has_cls_only_at_the_true_start_and_eos_only_at_the_true_end(start, stop, tokens):
    assert make_crop(encode("MKT"), start, stop).tolist() == tokens


def test_a_batch_concatenates_crops():
    batch = concatenate([make_crop(encode("MKT"), 0, 3), make_crop(encode("AY"), 0, 2)], [7, 3])

    assert batch.tokens.tolist() == [CLS, 20, 15, 11, EOS, CLS, 5, 19, EOS]
    assert batch.offsets.tolist() == [0, 5, 9]
    assert batch.rows.tolist() == [7, 3]
    assert batch.num_tokens == 9


@pytest.mark.promise(24)
@given(sequence=st.text(RESIDUES, min_size=1, max_size=60), data=st.data())
def test_consecutive_crops_make_up_the_whole_protein(sequence, data):
    residues, length = encode(sequence), len(sequence)
    boundaries = sorted({0, length, *data.draw(st.lists(st.integers(0, length), max_size=5))})

    crops = [make_crop(residues, start, stop) for start, stop in itertools.pairwise(boundaries)]

    assert np.concatenate(crops).tolist() == [CLS, *residues, EOS]
    assert [CLS in crop for crop in crops] == [True] + [False] * (len(crops) - 1)
    assert [EOS in crop for crop in crops] == [False] * (len(crops) - 1) + [True]


@pytest.mark.promise(24)
@given(sequences=st.lists(st.text(RESIDUES, min_size=1, max_size=30), min_size=1, max_size=12), data=st.data())
def test_a_batch_gives_back_the_crops_and_rows_it_was_made_of(sequences, data):
    crops = [make_crop(encode(sequence), 0, data.draw(st.integers(1, len(sequence)))) for sequence in sequences]
    rows = data.draw(st.permutations(range(len(crops))))

    batch = concatenate(crops, rows)

    assert [batch.tokens[start:stop].tolist() for start, stop in itertools.pairwise(batch.offsets)] == [
        crop.tolist() for crop in crops
    ]
    assert batch.rows.tolist() == rows
    assert batch.num_tokens == batch.offsets[-1] == sum(map(len, crops))


@pytest.mark.promise(24)
@given(lengths=st.lists(st.integers(1, 50), max_size=40), budget=st.integers(1, 120))
def test_groups_within_the_budget_are_in_order_and_as_full_as_possible(lengths, budget):
    groups = list(split_by_budget(lengths, budget))

    assert [index for group in groups for index in range(group.start, group.stop)] == list(range(len(lengths)))
    assert all(sum(lengths[group]) <= budget or group.stop - group.start == 1 for group in groups)
    assert all(sum(lengths[left]) + lengths[right.start] > budget for left, right in itertools.pairwise(groups))


@pytest.mark.promise(24)
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40), budget=st.integers(1, 120))
def test_balanced_micro_batches_are_few_and_differ_by_at_most_one_crop(lengths, budget):
    micro_batches = balance(lengths, budget)
    sizes = [sum(lengths[index] for index in indices) for indices in micro_batches]

    assert sorted(itertools.chain(*micro_batches)) == list(range(len(lengths)))
    assert len(micro_batches) == min(-(-sum(lengths) // budget), len(lengths))
    assert all(micro_batches)
    assert max(sizes) - min(sizes) <= max(lengths)
    assert all(indices == sorted(indices) for indices in micro_batches)


# Micro-batches of one shape

LONGEST = 20


@st.composite
def masked_batches(draw):
    """Batches of at most 12 crops of at most 20 tokens, some of them without a masked residue."""

    def masked_crop(row):
        length = draw(st.integers(1, LONGEST))
        positions = np.array(sorted(draw(st.sets(st.integers(0, length - 1), max_size=6))), np.int64)
        tokens = np.full(length, 5, np.uint8)
        return MaskedCrop(tokens=tokens, positions=positions, targets=tokens[positions], row=row)

    return concatenate_masked([masked_crop(row) for row in range(draw(st.integers(1, 12)))])


def shape_with(num_tokens=256, num_crops=32, num_masked=128):
    return MicroBatchShape(
        num_tokens=num_tokens, num_crops=num_crops, num_masked=num_masked, longest=LONGEST, budget=240
    )


@pytest.mark.promise(24)
@given(batch=masked_batches())
def test_a_padded_batch_has_the_shape_and_holds_the_batch_unchanged(batch):
    padded = shape_with().pad(batch)

    lengths, num_crops = padded.offsets.diff(), len(batch.rows)
    assert (padded.num_tokens, len(lengths), len(padded.rows), len(padded.positions)) == (256, 32, 32, 128)
    assert lengths.sum() == 256
    assert lengths.max() <= padded.longest == LONGEST
    assert padded.tokens[: batch.num_tokens].equal(batch.tokens)
    assert padded.offsets[: num_crops + 1].equal(batch.offsets)
    has_target = padded.targets != PAD
    assert padded.positions[has_target].equal(batch.positions)
    assert padded.targets[has_target].equal(batch.targets)
    assert padded.num_residues == batch.num_residues


@pytest.mark.promise(24)
@given(batch=masked_batches(), num_tokens=st.integers(240, 256), num_masked=st.integers(72, 240))
def test_what_is_added_are_amino_acids_and_ascending_positions_no_more_in_a_crop_than_the_longest_has(
    batch, num_tokens, num_masked
):
    padded = shape_with(num_tokens=num_tokens, num_masked=num_masked).pad(batch)

    assert len(padded.positions) == num_masked
    assert is_amino_acid(padded.tokens[batch.num_tokens :].numpy()).all()
    assert (padded.positions.diff() >= 0).all()
    per_crop = torch.searchsorted(padded.positions, padded.offsets).diff()
    assert per_crop.max() <= LONGEST
    assert (per_crop[padded.offsets.diff() == 0] == 0).all()


@pytest.mark.parametrize("change", [{"num_tokens": 128}, {"num_crops": 9}, {"num_masked": 9}])
def test_a_batch_that_does_not_fit_is_returned_unchanged(change):
    residues = np.full(LONGEST, 5, np.uint8)
    crop = MaskedCrop(tokens=residues, positions=np.array([3]), targets=residues[:1], row=0)
    batch = concatenate_masked([crop] * 10)

    assert shape_with().pad(batch).longest == LONGEST
    assert shape_with(**change).pad(batch) is batch


def test_a_batch_with_a_crop_longer_than_the_longest_is_returned_unchanged():
    residues = np.full(LONGEST + 1, 5, np.uint8)
    batch = concatenate_masked([MaskedCrop(tokens=residues, positions=np.array([3]), targets=residues[:1], row=0)])

    assert shape_with().pad(batch) is batch


def test_a_dummy_batch_has_the_shape_and_no_targets():
    dummy = shape_with().dummy()

    assert (dummy.num_tokens, len(dummy.rows), len(dummy.positions), dummy.num_residues) == (256, 32, 128, 0)
    assert (dummy.targets == PAD).all()


@pytest.mark.promise(24)
@given(
    lengths=st.lists(st.integers(2, LONGEST), min_size=1, max_size=60),
    room=st.integers(0, 100),
    micro_batch_tokens=st.integers(1, 2000),
)
def test_every_micro_batch_of_a_step_fits_into_the_tokens_of_the_shape(lengths, room, micro_batch_tokens):
    shape = MicroBatchShape.of_steps(
        sum(lengths) + room, micro_batch_tokens, longest=LONGEST, mean_length=10.0, mask_rate=0.15
    )

    loads = [sum(lengths[index] for index in group) for group in balance(lengths, shape.budget)]

    assert max(loads) <= shape.num_tokens
