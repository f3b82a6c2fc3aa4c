import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from protembed.config.pretrain import BatchConfig, MaskingConfig
from protembed.data.alphabet import CLS, EOS, MASK, RESIDUES, UNKNOWN_RESIDUE, encode, is_amino_acid
from protembed.data.batching import balance, concatenate, make_crop, split_by_budget
from protembed.data.hashing import sequence_sha256
from protembed.data.masking import mask_for_validation
from protembed.pretraining.batches import PretrainingBatches, validation_batches

BATCHES = BatchConfig(batch_tokens=512, crop_residues=64)
TOKENS_PER_STEPS_PACK = 200


def plan_of(corpus, seed=0, batches=BATCHES, micro_batch_tokens=TOKENS_PER_STEPS_PACK):
    return PretrainingBatches(corpus, batches, micro_batch_tokens, MaskingConfig(), seed)


def crops_of(batch):
    return [batch.tokens[start:stop].numpy() for start, stop in itertools.pairwise(batch.offsets)]


def unmasked(batch):
    tokens = batch.tokens.clone()
    tokens[batch.positions] = batch.targets
    return tokens


def same(micro_batches, others):
    return len(micro_batches) == len(others) and all(
        torch.equal(one.tokens, other.tokens)
        and torch.equal(one.offsets, other.offsets)
        and torch.equal(one.rows, other.rows)
        and torch.equal(one.positions, other.positions)
        and torch.equal(one.targets, other.targets)
        for one, other in zip(micro_batches, others, strict=True)
    )


# Crops and micro-batches


@pytest.mark.parametrize(
    ("start", "stop", "tokens"),
    [(0, 3, [CLS, 20, 15, 11, EOS]), (0, 2, [CLS, 20, 15]), (1, 3, [15, 11, EOS]), (1, 2, [15])],
)
def test_a_crop_has_cls_only_at_the_true_start_and_eos_only_at_the_true_end(start, stop, tokens):
    assert make_crop(encode("MKT"), start, stop).tolist() == tokens


def test_a_batch_lays_crops_one_after_the_other():
    batch = concatenate([make_crop(encode("MKT"), 0, 3), make_crop(encode("AY"), 0, 2)], [7, 3])

    assert batch.tokens.tolist() == [CLS, 20, 15, 11, EOS, CLS, 5, 19, EOS]
    assert batch.offsets.tolist() == [0, 5, 9]
    assert batch.rows.tolist() == [7, 3]
    assert batch.num_tokens == 9


@pytest.mark.promise(24)
@given(sequence=st.text(RESIDUES, min_size=1, max_size=60), data=st.data())
def test_crops_side_by_side_are_the_whole_protein(sequence, data):
    residues, length = encode(sequence), len(sequence)
    cuts = sorted({0, length, *data.draw(st.lists(st.integers(0, length), max_size=5))})

    crops = [make_crop(residues, start, stop) for start, stop in itertools.pairwise(cuts)]

    assert np.concatenate(crops).tolist() == [CLS, *residues, EOS]
    assert [CLS in crop for crop in crops] == [True] + [False] * (len(crops) - 1)
    assert [EOS in crop for crop in crops] == [False] * (len(crops) - 1) + [True]


@pytest.mark.promise(24)
@given(sequences=st.lists(st.text(RESIDUES, min_size=1, max_size=30), min_size=1, max_size=12), data=st.data())
def test_a_batch_gives_back_the_crops_and_rows_it_was_made_of(sequences, data):
    crops = [make_crop(encode(sequence), 0, data.draw(st.integers(1, len(sequence)))) for sequence in sequences]
    rows = data.draw(st.permutations(range(len(crops))))

    batch = concatenate(crops, rows)

    assert [crop.tolist() for crop in crops_of(batch)] == [crop.tolist() for crop in crops]
    assert batch.rows.tolist() == rows
    assert batch.num_tokens == batch.offsets[-1] == sum(map(len, crops))


@pytest.mark.promise(24)
@given(lengths=st.lists(st.integers(1, 50), max_size=40), budget=st.integers(1, 120))
def test_packs_hold_the_budget_in_order_and_could_not_take_one_more(lengths, budget):
    parts = list(split_by_budget(lengths, budget))

    assert [index for part in parts for index in range(part.start, part.stop)] == list(range(len(lengths)))
    assert all(sum(lengths[part]) <= budget or part.stop - part.start == 1 for part in parts)
    assert all(sum(lengths[one]) + lengths[other.start] > budget for one, other in itertools.pairwise(parts))


@pytest.mark.promise(24)
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40), budget=st.integers(1, 120))
def test_even_packs_are_as_few_as_can_be_and_differ_by_less_than_one_protein(lengths, budget):
    parts = balance(lengths, budget)
    sizes = [sum(lengths[index] for index in part) for part in parts]

    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    assert len(parts) == min(-(-sum(lengths) // budget), len(lengths))
    assert all(parts)
    assert max(sizes) - min(sizes) <= max(lengths)
    assert all(part == sorted(part) for part in parts)


# Pretraining


@pytest.mark.promise(2)
def test_a_step_is_a_function_of_seed_and_step_alone(corpus):
    walked = plan_of(corpus)
    steps = [walked.micro_batches(step) for step in range(25)]

    for step in (24, 3, 11, 3, 0):
        assert same(plan_of(corpus).micro_batches(step), steps[step])
        assert same(walked.micro_batches(step), steps[step])
    assert not same(plan_of(corpus, seed=1).micro_batches(3), steps[3])


def test_the_size_of_packs_does_not_change_what_a_step_sees(corpus):
    small, large = plan_of(corpus), plan_of(corpus, micro_batch_tokens=1000)

    for step in range(small.steps_per_epoch):
        parts, (whole,) = small.micro_batches(step), large.micro_batches(step)
        assert len(parts) > 1
        masked, again = (
            sorted(
                (int(row), crop.tolist())
                for one in micro_batches
                for row, crop in zip(one.rows, crops_of(one), strict=True)
            )
            for micro_batches in (parts, [whole])
        )
        assert masked == again
        assert sorted(torch.cat([part.targets for part in parts]).tolist()) == sorted(whole.targets.tolist())
        assert sum(part.num_residues for part in parts) == whole.num_residues


def test_an_epoch_sees_every_protein_exactly_once(corpus):
    plan = plan_of(corpus)

    for epoch in range(2):
        first = epoch * plan.steps_per_epoch
        micro_batches = [one for step in range(first, first + plan.steps_per_epoch) for one in plan.micro_batches(step)]
        assert sorted(torch.cat([one.rows for one in micro_batches]).tolist()) == list(range(len(corpus)))


def test_steps_and_packs_hold_their_budgets(corpus):
    plan = plan_of(corpus)

    for step in range(3 * plan.steps_per_epoch):
        micro_batches = plan.micro_batches(step)
        assert sum(one.num_tokens for one in micro_batches) <= BATCHES.batch_tokens
        assert all(one.num_tokens - min(one.offsets.diff()) < TOKENS_PER_STEPS_PACK for one in micro_batches)


def test_budgets_count_the_special_tokens_of_short_proteins(make_corpus, proteins):
    batches = BatchConfig(batch_tokens=64, crop_residues=8)
    plan = plan_of(make_corpus([protein[:8] for protein in proteins]), batches=batches)

    assert all(sum(one.num_tokens for one in plan.micro_batches(step)) <= 64 for step in range(plan.steps_per_epoch))


def test_crops_are_stretches_of_their_proteins(corpus):
    plan = plan_of(corpus)

    for one in (one for step in range(plan.steps_per_epoch) for one in plan.micro_batches(step)):
        tokens = unmasked(one)
        for (start, stop), row in zip(itertools.pairwise(one.offsets), one.rows, strict=True):
            crop, protein = tokens[start:stop].numpy(), corpus[int(row)]
            residues = crop[(crop != CLS) & (crop != EOS)]
            assert len(residues) == min(len(protein), BATCHES.crop_residues)
            places = np.flatnonzero(
                (np.lib.stride_tricks.sliding_window_view(protein, len(residues)) == residues).all(1)
            )
            assert any(make_crop(protein, at, at + len(residues)).tolist() == crop.tolist() for at in places)


@pytest.mark.promise(24)
@settings(deadline=None, max_examples=15)
@given(
    crop_residues=st.integers(30, 400),
    room=st.integers(0, 900),
    micro_batch_tokens=st.integers(1, 2000),
    mask_rate=st.floats(0.01, 0.9),
    seed=st.integers(0, 2**32),
    step=st.integers(0, 20),
)
def test_a_step_hides_residues_of_its_crops_and_nothing_else(
    corpus, crop_residues, room, micro_batch_tokens, mask_rate, seed, step
):
    batches = BatchConfig(crop_residues=crop_residues, batch_tokens=2 * (crop_residues + 2) + room)
    plan = PretrainingBatches(corpus, batches, micro_batch_tokens, MaskingConfig(mask_rate=mask_rate), seed)

    micro_batches = plan.micro_batches(step)

    rows = [int(row) for one in micro_batches for row in one.rows]
    assert len(set(rows)) == len(rows)
    assert sum(one.num_tokens for one in micro_batches) <= batches.batch_tokens
    for one in micro_batches:
        assert is_amino_acid(one.targets.numpy()).all()
        tokens = unmasked(one)
        for (start, stop), row in zip(itertools.pairwise(one.offsets), one.rows, strict=True):
            crop = tokens[start:stop].numpy().astype(np.uint8).tobytes()
            protein = np.array([CLS, *corpus[int(row)], EOS], np.uint8).tobytes()
            assert len(crop) <= crop_residues + 2
            assert crop in protein


def test_crops_of_a_long_protein_reach_its_start_its_end_and_its_middle(make_corpus, proteins):
    protein = max(proteins, key=len)
    plan = plan_of(make_corpus([protein]))

    crops = [plan.micro_batches(step)[0].tokens.numpy() for step in range(2000)]

    ends = {(crop[0] == CLS, crop[-1] == EOS) for crop in crops}
    assert ends == {(True, False), (False, True), (False, False)}


def test_targets_are_amino_acids_at_positions_within_their_pack(corpus):
    plan = plan_of(corpus)

    for one in (one for step in range(plan.steps_per_epoch) for one in plan.micro_batches(step)):
        assert is_amino_acid(one.targets.numpy()).all()
        assert ((one.positions >= 0) & (one.positions < one.num_tokens)).all()
        assert one.num_residues == sum(((crop != CLS) & (crop != EOS)).sum() for crop in crops_of(one))
        per_crop = np.histogram(one.positions.numpy(), one.offsets.numpy())[0]
        assert (per_crop >= 1).all()


def test_masks_are_new_in_each_epoch(make_corpus, proteins):
    plan = plan_of(make_corpus([proteins[0][:50]]))

    masks = {tuple(plan.micro_batches(epoch)[0].positions.tolist()) for epoch in range(5)}

    assert len(masks) == 5


# Validation


@pytest.mark.parametrize("window_residues", [1, 7, 50, 64, 1022])
def test_every_validation_target_counts_exactly_once_whatever_the_window(corpus, window_residues):
    micro_batches = validation_batches(corpus, window_residues, micro_batch_tokens=300)

    counted = np.zeros(len(corpus), int)
    for one in micro_batches:
        crop_of_target = np.searchsorted(one.offsets.numpy(), one.positions.numpy(), side="right") - 1
        np.add.at(counted, one.rows.numpy()[crop_of_target], 1)
    expected = [mask_for_validation(corpus[row], sequence_sha256(corpus.sequence(row))) for row in range(len(corpus))]
    assert counted.tolist() == [len(masked.positions) for masked in expected]
    assert sum(one.num_residues for one in micro_batches) == corpus.num_residues


def test_validation_windows_are_consecutive_and_hide_exactly_the_targets(make_corpus, proteins):
    protein = max(proteins, key=len)
    micro_batches = validation_batches(make_corpus([protein]), window_residues=100, micro_batch_tokens=64)

    windows = [unmasked(one).numpy() for one in micro_batches]
    residues = encode(protein)
    expected = [make_crop(residues, start, min(start + 100, len(residues))) for start in range(0, len(residues), 100)]
    assert sorted(map(tuple, windows)) == sorted(map(tuple, expected))
    assert all(torch.equal(one.positions, (one.tokens == MASK).nonzero()[:, 0]) for one in micro_batches)


def test_validation_packs_hold_their_budget(corpus):
    micro_batches = validation_batches(corpus, window_residues=64, micro_batch_tokens=200)

    assert all(one.num_tokens <= 200 for one in micro_batches)
    assert len(micro_batches) < 1.2 * (corpus.num_residues + 2 * len(corpus)) / 200 + 1


def test_a_protein_without_standard_residues_has_no_targets(make_corpus):
    (one,) = validation_batches(make_corpus(["XX"]), window_residues=64, micro_batch_tokens=200)

    assert one.tokens.tolist() == [CLS, UNKNOWN_RESIDUE, UNKNOWN_RESIDUE, EOS]
    assert len(one.positions) == len(one.targets) == 0
