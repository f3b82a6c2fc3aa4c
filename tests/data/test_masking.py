from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

from protembed.config.pretrain import MaskingConfig
from protembed.data.alphabet import (
    AMINO_ACIDS,
    FIRST_AMINO_ACID,
    MASK,
    NONSTANDARD_RESIDUES,
    NUM_AMINO_ACIDS,
    encode,
    is_amino_acid,
)
from protembed.data.batching import make_crop
from protembed.data.hashing import sequence_sha256
from protembed.data.masking import choose_residues, mask_for_validation, mask_tokens

MILLION = 1_000_000
ALANINE = encode("A")[0]
CROPS = st.lists(st.text(AMINO_ACIDS + NONSTANDARD_RESIDUES, min_size=1, max_size=60), min_size=1, max_size=8)


def rng(seed=0):
    return np.random.default_rng(seed)


def packed(crops):
    """Concatenate crops; return tokens and offsets."""
    return np.concatenate(crops), np.cumsum([0, *map(len, crops)])


def mask_million(letter_ids, **rates):
    tokens = np.resize(letter_ids, MILLION).astype(np.uint8)
    offsets = np.arange(0, MILLION + 1, 200)
    return tokens, mask_tokens(tokens, offsets, MaskingConfig(**rates), rng())


def fraction(chosen):
    return pytest.approx(chosen.mean(), abs=4 * 0.5 / np.sqrt(len(chosen)))


@pytest.mark.parametrize(("length", "rate"), [(7, 0.15), (33, 0.15), (250, 0.15), (250, 0.4), (3, 0.5)])
def test_the_mask_rate_is_exact_on_average_over_a_million_residues(length, rate):
    num_crops = MILLION // length
    offsets = np.arange(num_crops + 1) * length

    chosen = choose_residues(np.full(offsets[-1], ALANINE), offsets, rate, rng().random)

    # Only the rounding of the number per crop is random, with a variance of at most a quarter.
    assert len(chosen) == pytest.approx(rate * offsets[-1], abs=4 * np.sqrt(num_crops / 4))


def test_the_number_of_targets_of_a_crop_is_rounded_up_or_down():
    lengths = np.arange(7, 400)
    offsets = np.cumsum([0, *lengths])

    chosen = choose_residues(np.full(offsets[-1], ALANINE), offsets, 0.15, rng().random)

    per_crop = np.histogram(chosen, offsets)[0]
    assert ((per_crop == np.floor(0.15 * lengths)) | (per_crop == np.ceil(0.15 * lengths))).all()


def test_every_position_of_a_crop_is_chosen_equally_often():
    offsets = np.arange(0, MILLION + 1, 20)

    chosen = choose_residues(np.full(MILLION, ALANINE), offsets, 0.15, rng().random)

    per_position = np.bincount(chosen % 20, minlength=20)
    assert per_position == pytest.approx(0.15 * MILLION / 20, rel=0.05)


def test_no_residue_is_chosen_twice_and_positions_ascend():
    tokens, offsets = packed([encode("MKTAYIAK")] * 50)

    assert (np.diff(choose_residues(tokens, offsets, 0.9, rng().random)) > 0).all()


def test_at_least_one_residue_of_each_crop_is_chosen():
    offsets = np.arange(1001)

    assert len(choose_residues(np.full(1000, ALANINE), offsets, 0.01, rng().random)) == 1000


def test_a_crop_without_standard_residues_is_not_masked():
    tokens, offsets = packed([encode("XXBZ"), encode("MK"), encode("UO")])

    masked = mask_tokens(tokens, offsets, MaskingConfig(mask_rate=0.9), rng())

    assert set(masked.positions) == {4, 5}


def test_eighty_percent_of_targets_are_masked_ten_random_and_ten_unchanged():
    tokens, masked = mask_million([ALANINE])
    seen = masked.tokens[masked.positions]
    others = seen[(seen != MASK) & (seen != ALANINE)]

    assert fraction(seen == MASK) == 0.8
    # One in twenty of the random residues is the residue itself.
    assert fraction(seen == ALANINE) == 0.1 + 0.1 / 20
    assert fraction((seen != MASK) & (seen != ALANINE)) == 0.1 * 19 / 20
    assert is_amino_acid(others).all()
    assert np.bincount(others - FIRST_AMINO_ACID, minlength=20).nonzero()[0].size == NUM_AMINO_ACIDS - 1


def test_the_rates_of_replacements_are_options():
    _, masked = mask_million([ALANINE], random_rate=0.0, keep_rate=0.3)
    seen = masked.tokens[masked.positions]

    assert fraction(seen == MASK) == 0.7
    assert fraction(seen == ALANINE) == 0.3


def chosen_by_sorting_all(tokens, offsets, rate, random):
    """The definition of the choice: the residues of each crop in the order of their random numbers, up to a quota."""
    candidates = np.flatnonzero(is_amino_acid(tokens))
    crops = np.searchsorted(offsets, candidates, side="right") - 1
    num_candidates = np.bincount(crops, minlength=len(offsets) - 1)
    quota = np.floor(rate * num_candidates + random(len(num_candidates))).astype(int)
    quota = np.minimum(np.maximum(quota, 1), num_candidates)
    order = np.lexsort((random(len(candidates)), crops))
    rank = np.arange(len(candidates)) - np.repeat(np.cumsum(num_candidates) - num_candidates, num_candidates)
    return np.sort(candidates[order[rank < quota[crops[order]]]])


@pytest.mark.promise(24)
@given(
    sequences=CROPS, rate=st.floats(0.01, 0.9), seed=st.integers(0, 2**32), num_levels=st.sampled_from([3, 50, 2**53])
)
def test_the_fast_choice_is_that_of_sorting_all_residues_even_where_random_numbers_are_equal(
    sequences, rate, seed, num_levels
):
    tokens, offsets = packed([encode(sequence) for sequence in sequences])

    def random(generator):
        return lambda number: np.floor(generator.random(number) * num_levels) / num_levels

    chosen = choose_residues(tokens, offsets, rate, random(rng(seed)))

    assert chosen.tolist() == chosen_by_sorting_all(tokens, offsets, rate, random(rng(seed))).tolist()


@given(sequences=CROPS, seed=st.integers(0, 2**32))
def test_crops_that_are_masked_alone_are_masked_as_among_all(sequences, seed):
    tokens, offsets = packed([encode(sequence) for sequence in sequences])
    is_needed = rng(seed).random(len(sequences)) < 0.5
    whole = mask_tokens(tokens, offsets, MaskingConfig(), rng(seed))

    part = mask_tokens(tokens, offsets, MaskingConfig(), rng(seed), is_needed)

    in_part = np.repeat(is_needed, np.diff(offsets))
    assert part.positions.tolist() == whole.positions[in_part[whole.positions]].tolist()
    assert part.targets.tolist() == tokens[part.positions].tolist()
    assert part.tokens.tolist() == np.where(in_part, whole.tokens, tokens).tolist()


def test_special_tokens_and_nonstandard_residues_are_never_masked(proteins):
    crops = [make_crop(encode(protein + NONSTANDARD_RESIDUES), 0, len(protein) + 5) for protein in proteins]
    tokens, offsets = packed(crops)

    for seed in range(20):
        masked = mask_tokens(tokens, offsets, MaskingConfig(mask_rate=0.9), rng(seed))
        assert is_amino_acid(tokens[masked.positions]).all()
        assert (np.isin(masked.tokens, tokens) | (masked.tokens == MASK)).all()


def test_only_chosen_tokens_change_and_targets_are_the_original_residues(proteins):
    tokens, offsets = packed([encode(protein) for protein in proteins])
    before = tokens.copy()

    masked = mask_tokens(tokens, offsets, MaskingConfig(), rng())

    assert (tokens == before).all()
    assert (masked.targets == tokens[masked.positions]).all()
    assert set(np.flatnonzero(masked.tokens != tokens)) <= set(masked.positions)


def test_the_mask_depends_only_on_the_random_numbers(proteins):
    tokens, offsets = packed([encode(protein) for protein in proteins])

    first, again, other = (mask_tokens(tokens, offsets, MaskingConfig(), rng(seed)) for seed in (0, 0, 1))

    assert (first.tokens == again.tokens).all()
    assert set(first.positions) != set(other.positions)


@pytest.mark.promise(24)
@given(
    sequences=CROPS,
    mask_rate=st.floats(0.01, 0.9),
    random_rate=st.floats(0, 1),
    keep_fraction=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_masking_affects_the_requested_fraction_of_standard_residues_of_each_crop(
    sequences, mask_rate, random_rate, keep_fraction, seed
):
    tokens, offsets = packed([make_crop(encode(sequence), 0, len(sequence)) for sequence in sequences])
    config = MaskingConfig(mask_rate=mask_rate, random_rate=random_rate, keep_rate=keep_fraction * (1 - random_rate))

    masked = mask_tokens(tokens, offsets, config, rng(seed))

    assert (np.diff(masked.positions) > 0).all()
    assert is_amino_acid(masked.targets).all()
    assert (masked.targets == tokens[masked.positions]).all()
    assert (np.delete(masked.tokens, masked.positions) == np.delete(tokens, masked.positions)).all()
    assert (is_amino_acid(masked.tokens[masked.positions]) | (masked.tokens[masked.positions] == MASK)).all()
    for (start, stop), number in zip(pairwise(offsets), np.histogram(masked.positions, offsets)[0], strict=True):
        num_standard = is_amino_acid(tokens[start:stop]).sum()
        low, high = np.floor(mask_rate * num_standard), np.ceil(mask_rate * num_standard)
        assert min(1, num_standard) <= number <= num_standard
        assert max(low, min(1, num_standard)) <= number <= max(high, min(1, num_standard))


# Validation


@pytest.mark.promise(24)
@given(sequence=st.text(AMINO_ACIDS + NONSTANDARD_RESIDUES, min_size=1, max_size=300))
def test_validation_masks_fifteen_percent_of_any_protein_reproducibly(sequence):
    masked, again = validation_mask(sequence), validation_mask(sequence)
    num_standard = is_amino_acid(encode(sequence)).sum()

    assert (masked.positions == again.positions).all()
    assert (np.flatnonzero(masked.tokens == MASK) == masked.positions).all()
    assert (masked.targets == encode(sequence)[masked.positions]).all()
    assert is_amino_acid(masked.targets).all()
    assert len(masked.positions) >= min(1, num_standard)
    assert abs(len(masked.positions) - 0.15 * num_standard) < 1


def validation_mask(protein):
    return mask_for_validation(encode(protein), sequence_sha256(protein))


def test_validation_replaces_all_targets_by_mask(proteins):
    for protein in proteins:
        masked = validation_mask(protein)
        assert (masked.tokens[masked.positions] == MASK).all()
        assert (np.flatnonzero(masked.tokens != encode(protein)) == masked.positions).all()
        assert is_amino_acid(masked.targets).all()


def test_validation_chooses_fifteen_percent_of_each_protein(proteins):
    for protein in proteins:
        num_standard = is_amino_acid(encode(protein)).sum()
        assert abs(len(validation_mask(protein).positions) - 0.15 * num_standard) < 1


def test_the_validation_mask_depends_only_on_the_sequence(proteins):
    first = [validation_mask(protein).positions for protein in proteins]
    backwards = [validation_mask(protein).positions for protein in reversed(proteins)][::-1]

    assert all((positions == again).all() for positions, again in zip(first, backwards, strict=True))


def test_the_validation_mask_is_the_published_one():
    # Published perplexities were measured on these residues.
    assert validation_mask(AMINO_ACIDS * 3).positions.tolist() == [2, 4, 9, 19, 27, 33, 46, 50, 57]


def test_sequences_that_differ_in_one_residue_have_different_validation_masks():
    assert set(validation_mask("MKTAYIAKQR" * 5).positions) != set(
        validation_mask("MKTAYIAKQR" * 4 + "MKTAYIAKQK").positions
    )
