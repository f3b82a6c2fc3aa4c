import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from protembed.config.pretrain import BatchConfig, MaskingConfig
from protembed.data.alphabet import CLS, EOS, MASK, PAD, encode, is_amino_acid
from protembed.data.batching import make_crop
from protembed.data.hashing import sequence_sha256
from protembed.data.masking import mask_for_validation
from protembed.pretraining.batches import PretrainingBatches, validation_batches
from protembed.training.distributed import ProcessGroup

CONFIG = BatchConfig(batch_tokens=512, crop_residues=64)
MICRO_BATCH_TOKENS = 200


def make_batches(corpus, seed=0, config=CONFIG, micro_batch_tokens=MICRO_BATCH_TOKENS):
    return PretrainingBatches(corpus, config, micro_batch_tokens, MaskingConfig(), seed)


def crops_of(batch):
    return [batch.tokens[start:stop].numpy() for start, stop in itertools.pairwise(batch.offsets)]


def unmasked(batch):
    tokens = batch.tokens.clone()
    tokens[batch.positions] = batch.targets
    return tokens


def same(micro_batches, others):
    return len(micro_batches) == len(others) and all(
        torch.equal(batch.tokens, other.tokens)
        and torch.equal(batch.offsets, other.offsets)
        and torch.equal(batch.rows, other.rows)
        and torch.equal(batch.positions, other.positions)
        and torch.equal(batch.targets, other.targets)
        for batch, other in zip(micro_batches, others, strict=True)
    )


# Training


@pytest.mark.promise(2)
def test_a_step_is_a_function_of_seed_and_step_alone(corpus):
    batches = make_batches(corpus)
    steps = [batches.micro_batches(step) for step in range(25)]

    for step in (24, 3, 11, 3, 0):
        assert same(make_batches(corpus).micro_batches(step), steps[step])
        assert same(batches.micro_batches(step), steps[step])
    assert not same(make_batches(corpus, seed=1).micro_batches(3), steps[3])


def test_the_size_of_micro_batches_does_not_change_what_a_step_sees(corpus):
    small, large = make_batches(corpus), make_batches(corpus, micro_batch_tokens=1000)

    for step in range(small.steps_per_epoch):
        divided, (whole,) = small.micro_batches(step), large.micro_batches(step)
        assert len(divided) > 1
        masked, again = (
            sorted(
                (int(row), crop.tolist())
                for batch in micro_batches
                for row, crop in zip(batch.rows, crops_of(batch), strict=True)
            )
            for micro_batches in (divided, [whole])
        )
        assert masked == again
        assert sorted(torch.cat([batch.targets for batch in divided]).tolist()) == sorted(whole.targets.tolist())
        assert sum(batch.num_residues for batch in divided) == whole.num_residues


@pytest.mark.promise(2)
@pytest.mark.parametrize("num_processes", [2, 3, 9])
def test_processes_draw_every_nth_micro_batch_of_the_step_of_one_process(corpus, num_processes):
    whole, groups = make_batches(corpus), [ProcessGroup(rank, num_processes) for rank in range(num_processes)]
    shares = [
        PretrainingBatches(corpus, CONFIG, MICRO_BATCH_TOKENS, MaskingConfig(), 0, processes) for processes in groups
    ]

    for step in range(5):
        drawn = [share.micro_batches(step) for share in shares]
        expected = whole.micro_batches(step)
        assert all(same(own, expected[rank::num_processes]) for rank, own in enumerate(drawn))


def test_an_epoch_sees_every_protein_exactly_once(corpus):
    batches = make_batches(corpus)

    for epoch in range(2):
        first = epoch * batches.steps_per_epoch
        micro_batches = [
            batch for step in range(first, first + batches.steps_per_epoch) for batch in batches.micro_batches(step)
        ]
        assert sorted(torch.cat([batch.rows for batch in micro_batches]).tolist()) == list(range(len(corpus)))


def test_steps_and_micro_batches_stay_within_their_budgets(corpus):
    batches = make_batches(corpus)

    for step in range(3 * batches.steps_per_epoch):
        micro_batches = batches.micro_batches(step)
        assert sum(batch.num_tokens for batch in micro_batches) <= CONFIG.batch_tokens
        assert all(batch.num_tokens - min(batch.offsets.diff()) < MICRO_BATCH_TOKENS for batch in micro_batches)


def test_budgets_count_the_special_tokens_of_short_proteins(make_corpus, proteins):
    config = BatchConfig(batch_tokens=64, crop_residues=8)
    batches = make_batches(make_corpus([protein[:8] for protein in proteins]), config=config)

    assert all(
        sum(batch.num_tokens for batch in batches.micro_batches(step)) <= 64 for step in range(batches.steps_per_epoch)
    )


def test_crops_are_contiguous_parts_of_their_proteins(corpus):
    batches = make_batches(corpus)

    for batch in (batch for step in range(batches.steps_per_epoch) for batch in batches.micro_batches(step)):
        tokens = unmasked(batch)
        for (start, stop), row in zip(itertools.pairwise(batch.offsets), batch.rows, strict=True):
            crop, protein = tokens[start:stop].numpy(), corpus[int(row)]
            residues = crop[(crop != CLS) & (crop != EOS)]
            assert len(residues) == min(len(protein), CONFIG.crop_residues)
            starts = np.flatnonzero(
                (np.lib.stride_tricks.sliding_window_view(protein, len(residues)) == residues).all(1)
            )
            assert any(make_crop(protein, start, start + len(residues)).tolist() == crop.tolist() for start in starts)


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
def test_a_step_masks_residues_of_its_crops_and_nothing_else(
    corpus, crop_residues, room, micro_batch_tokens, mask_rate, seed, step
):
    config = BatchConfig(crop_residues=crop_residues, batch_tokens=2 * (crop_residues + 2) + room)
    batches = PretrainingBatches(corpus, config, micro_batch_tokens, MaskingConfig(mask_rate=mask_rate), seed)

    micro_batches = batches.micro_batches(step)

    rows = [int(row) for batch in micro_batches for row in batch.rows]
    assert len(set(rows)) == len(rows)
    assert sum(batch.num_tokens for batch in micro_batches) <= config.batch_tokens
    for batch in micro_batches:
        assert is_amino_acid(batch.targets.numpy()).all()
        tokens = unmasked(batch)
        for (start, stop), row in zip(itertools.pairwise(batch.offsets), batch.rows, strict=True):
            crop = tokens[start:stop].numpy().astype(np.uint8).tobytes()
            protein = np.array([CLS, *corpus[int(row)], EOS], np.uint8).tobytes()
            assert len(crop) <= crop_residues + 2
            assert crop in protein


def test_crops_of_a_long_protein_reach_its_start_its_end_and_its_middle(make_corpus, proteins):
    protein = max(proteins, key=len)
    batches = make_batches(make_corpus([protein]))

    crops = [batches.micro_batches(step)[0].tokens.numpy() for step in range(2000)]

    ends = {(crop[0] == CLS, crop[-1] == EOS) for crop in crops}
    assert ends == {(True, False), (False, True), (False, False)}


def test_targets_are_amino_acids_at_positions_within_their_batch(corpus):
    batches = make_batches(corpus)

    for batch in (batch for step in range(batches.steps_per_epoch) for batch in batches.micro_batches(step)):
        assert is_amino_acid(batch.targets.numpy()).all()
        assert ((batch.positions >= 0) & (batch.positions < batch.num_tokens)).all()
        assert batch.num_residues == sum(((crop != CLS) & (crop != EOS)).sum() for crop in crops_of(batch))
        per_crop = np.histogram(batch.positions.numpy(), batch.offsets.numpy())[0]
        assert (per_crop >= 1).all()


def test_masks_differ_between_epochs(make_corpus, proteins):
    batches = make_batches(make_corpus([proteins[0][:50]]))

    masks = {tuple(batches.micro_batches(epoch)[0].positions.tolist()) for epoch in range(5)}

    assert len(masks) == 5


# Micro-batches of one shape


@pytest.mark.parametrize("micro_batch_tokens", [100, 200, 512])
def test_fixed_micro_batches_have_one_shape_and_see_what_the_others_see(corpus, micro_batch_tokens):
    batches = make_batches(corpus, micro_batch_tokens=micro_batch_tokens)

    for step in range(2 * batches.steps_per_epoch):
        plain, fixed = batches.micro_batches(step), batches.fixed_micro_batches(step)
        assert {(batch.num_tokens, len(batch.offsets), len(batch.positions), batch.longest) for batch in fixed} == {
            (batches.shape.num_tokens, batches.shape.num_crops + 1, batches.shape.num_masked, 66)
        }
        assert sum(batch.num_residues for batch in fixed) == sum(batch.num_residues for batch in plain)
        rows, fixed_rows = (sorted(torch.cat([batch.rows for batch in drawn]).tolist()) for drawn in (plain, fixed))
        assert [row for row in fixed_rows if row >= 0] == rows
        targets, fixed_targets = (torch.cat([batch.targets for batch in drawn]) for drawn in (plain, fixed))
        assert fixed_targets[fixed_targets != PAD].sort()[0].equal(targets.sort()[0])


def test_the_shape_follows_the_steps_where_they_are_smaller_than_allowed(make_corpus, proteins):
    config = BatchConfig(batch_tokens=4096, crop_residues=64)
    batches = make_batches(make_corpus(proteins[:6]), config=config, micro_batch_tokens=4096)

    (micro_batch,) = batches.fixed_micro_batches(0)

    assert batches.shape.num_tokens == 512  # of 6 crops of 65 or 66 tokens, and one more in case
    assert micro_batch.num_tokens == 512


# Validation


@pytest.mark.parametrize("window_residues", [1, 7, 50, 64, 1022])
def test_every_validation_target_counts_exactly_once_for_any_window(corpus, window_residues):
    micro_batches = validation_batches(corpus, window_residues, micro_batch_tokens=300)

    counted = np.zeros(len(corpus), int)
    for batch in micro_batches:
        crop_of_target = np.searchsorted(batch.offsets.numpy(), batch.positions.numpy(), side="right") - 1
        np.add.at(counted, batch.rows.numpy()[crop_of_target], 1)
    expected = [mask_for_validation(corpus[row], sequence_sha256(corpus.sequence(row))) for row in range(len(corpus))]
    assert counted.tolist() == [len(masked.positions) for masked in expected]
    assert sum(batch.num_residues for batch in micro_batches) == corpus.num_residues


def test_validation_windows_are_consecutive_and_mask_exactly_the_targets(make_corpus, proteins):
    protein = max(proteins, key=len)
    micro_batches = validation_batches(make_corpus([protein]), window_residues=100, micro_batch_tokens=64)

    windows = [unmasked(batch).numpy() for batch in micro_batches]
    residues = encode(protein)
    expected = [make_crop(residues, start, min(start + 100, len(residues))) for start in range(0, len(residues), 100)]
    assert sorted(map(tuple, windows)) == sorted(map(tuple, expected))
    assert all(torch.equal(batch.positions, (batch.tokens == MASK).nonzero()[:, 0]) for batch in micro_batches)


def test_validation_batches_stay_within_their_budget(corpus):
    micro_batches = validation_batches(corpus, window_residues=64, micro_batch_tokens=200)

    assert all(batch.num_tokens <= 200 for batch in micro_batches)
    assert len(micro_batches) < 1.2 * (corpus.num_residues + 2 * len(corpus)) / 200 + 1


def test_a_protein_without_standard_residues_has_no_targets(make_corpus):
    (batch,) = validation_batches(make_corpus(["XX"]), window_residues=64, micro_batch_tokens=200)

    assert batch.tokens.tolist() == [CLS, *encode("XX"), EOS]
    assert len(batch.positions) == len(batch.targets) == 0
