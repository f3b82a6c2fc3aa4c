import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st

from protembed.data.alphabet import CLS, EOS, RESIDUES, encode
from protembed.data.batching import balance, concatenate, make_crop, split_by_budget


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
