"""The masking rule: which residues become targets, and which tokens the model sees instead of them. Pure functions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.config.pretrain import MaskingConfig
from protembed.data.alphabet import FIRST_AMINO_ACID, MASK, NUM_AMINO_ACIDS, is_amino_acid

# Never to be changed: perplexities of different runs and tools are comparable only if all mask the same residues.
VALIDATION_SEED = 20_260_101
VALIDATION_MASK_RATE = 0.15
# A bound on the random numbers of the chosen residues, in mask rates, that few crops exceed.
_BOUND_IN_RATES = 2.0

Random = Callable[[int], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class MaskedTokens:
    """Tokens with some residues masked.

    Attributes:
        tokens: (tokens,), uint8; what the model sees.
        positions: (masked,), int64, ascending; indices of the masked residues in `tokens`.
        targets: (masked,), uint8; token ids of the original residues, all of them amino acids.
    """

    tokens: NDArray[np.uint8]
    positions: NDArray[np.int64]
    targets: NDArray[np.uint8]


def choose_residues(
    tokens: NDArray[np.uint8], offsets: NDArray[np.int64], rate: float, random: Random
) -> NDArray[np.int64]:
    """Choose a fraction of the standard residues of each crop, without replacement; at least one if there is any.

    The number per crop is `rate` times its standard residues, rounded up or down at random so that the fraction is
    exact on average.

    Args:
        tokens: Tokens of all crops, concatenated, (tokens,), uint8.
        offsets: Start of each crop in `tokens`, and the end of the last one, (crops + 1,), int64.
        rate: Fraction to choose, between 0 and 1.
        random: Function that draws n numbers from [0, 1), (n,), float64.

    Returns:
        Indices of the chosen residues in `tokens`, ascending, (masked,), int64.
    """
    return _choose(tokens, offsets, rate, random, np.ones(len(offsets) - 1, np.bool_))[0]


def _choose(
    tokens: NDArray[np.uint8], offsets: NDArray[np.int64], rate: float, random: Random, is_needed: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose residues of the crops that are needed, with the random numbers that they have among all crops.

    Returns:
        Indices of the chosen residues in `tokens`, ascending, and the number of residues chosen of each of all crops.
    """
    candidates = np.flatnonzero(is_amino_acid(tokens))
    num_candidates = np.diff(np.searchsorted(candidates, offsets))  # (crops,)
    crops = np.repeat(np.arange(len(num_candidates)), num_candidates)  # (candidates,), the crop of each
    quota = np.floor(rate * num_candidates + random(len(num_candidates))).astype(np.int64)
    quota = np.minimum(np.maximum(quota, 1), num_candidates)
    draws = random(len(candidates))
    # The residues with the lowest numbers are chosen: sort those below a bound, and all of a crop with too few of them.
    is_low = draws < _BOUND_IN_RATES * rate
    has_few = np.bincount(crops[np.flatnonzero(is_low)], minlength=len(num_candidates)) < quota  # (crops,)
    # By index, because selecting by a mask takes five times as long.
    kept = np.flatnonzero((is_low | has_few[crops]) & is_needed[crops])
    candidates, crops, draws = candidates[kept], crops[kept], draws[kept]
    num_kept = np.bincount(crops, minlength=len(num_candidates))
    rank = np.arange(len(kept)) - np.repeat(np.cumsum(num_kept) - num_kept, num_kept)
    is_chosen = rank < np.repeat(quota, num_kept)
    return np.sort(candidates[_order_in_crops(crops, draws)[is_chosen]]), quota


def _order_in_crops(crops: NDArray[np.int64], draws: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sort residues by their crop, and within it by their random number, as `np.lexsort((draws, crops))` does.

    One key takes an eighth of the time of two. Rounding a sum never exchanges two keys, but it can make them equal,
    about once in a hundred thousand steps; only then are both sorted by.
    """
    keys = crops + draws  # the numbers are less than one
    order = np.argsort(keys)
    ascending = keys[order]
    return np.lexsort((draws, crops)) if (ascending[1:] == ascending[:-1]).any() else order


def mask_tokens(
    tokens: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    config: MaskingConfig,
    rng: np.random.Generator,
    is_needed: NDArray[np.bool_] | None = None,
) -> MaskedTokens:
    """Choose residues of each crop and replace them by `<mask>`, a random amino acid, or the residue itself.

    Args:
        tokens: Tokens of all crops, concatenated, with or without `<cls>` and `<eos>`, (tokens,), uint8.
        offsets: Start of each crop in `tokens`, and the end of the last one, (crops + 1,), int64.
        config: Fraction of the standard residues to choose, and how often each of the three replacements is used.
        rng: Random numbers of the step.
        is_needed: Crops to mask, (crops,); the others stay as they are, and change nothing in these. None masks all.

    Source: Devlin et al. 2019, section 3.1 (the 80/10/10 rule); Lin et al. 2023 for proteins.
    """
    is_needed = np.ones(len(offsets) - 1, np.bool_) if is_needed is None else is_needed
    positions, quota = _choose(tokens, offsets, config.mask_rate, rng.random, is_needed)
    targets, of_needed = tokens[positions], np.repeat(is_needed, quota)
    draw = rng.random(len(of_needed))[of_needed]  # one draw decides among the three replacements
    amino_acids = (FIRST_AMINO_ACID, FIRST_AMINO_ACID + NUM_AMINO_ACIDS)
    random_residues = rng.integers(*amino_acids, len(of_needed), dtype=np.uint8)[of_needed]
    is_mask = draw < 1 - config.random_rate - config.keep_rate
    is_random = ~is_mask & (draw < 1 - config.keep_rate)
    masked = tokens.copy()
    masked[positions] = np.where(is_mask, np.uint8(MASK), np.where(is_random, random_residues, targets))
    return MaskedTokens(tokens=masked, positions=positions, targets=targets)


def mask_for_validation(tokens: NDArray[np.uint8], sequence_hash: bytes) -> MaskedTokens:
    """Choose 15 % of a whole protein's residues by its SHA-256, and replace all of them by `<mask>`.

    The choice depends only on the sequence, so it is the same for every model, window and run. The tokens are those of
    the residues, without `<cls>` and `<eos>`.
    """
    whole = np.array([0, len(tokens)])
    positions = choose_residues(tokens, whole, VALIDATION_MASK_RATE, frozen_random(sequence_hash, VALIDATION_SEED))
    masked = tokens.copy()
    masked[positions] = MASK
    return MaskedTokens(tokens=masked, positions=positions, targets=tokens[positions])


def frozen_random(digest: bytes, seed: int = 0) -> Random:
    """Return a generator of random numbers that depends only on a hash and a seed, on every machine and for good."""
    # NumPy promises that the raw output of a bit generator never changes, but not what Generator makes of it.
    key = np.frombuffer(digest[:16], dtype="<u8") ^ np.uint64(seed)
    bits = np.random.Philox(key=key)
    return lambda number: np.asarray((bits.random_raw(number) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)
