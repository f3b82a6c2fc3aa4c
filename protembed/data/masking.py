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
    candidates = np.flatnonzero(is_amino_acid(tokens))
    crops = np.searchsorted(offsets, candidates, side="right") - 1  # (candidates,), the crop of each
    num_candidates = np.bincount(crops, minlength=len(offsets) - 1)  # (crops,)
    quota = np.floor(rate * num_candidates + random(len(num_candidates))).astype(np.int64)
    quota = np.minimum(np.maximum(quota, 1), num_candidates)
    shuffled = np.lexsort((random(len(candidates)), crops))  # by crop, in random order within
    rank = np.arange(len(candidates)) - np.repeat(np.cumsum(num_candidates) - num_candidates, num_candidates)
    return np.sort(candidates[shuffled[rank < quota[crops[shuffled]]]])


def mask_tokens(
    tokens: NDArray[np.uint8], offsets: NDArray[np.int64], config: MaskingConfig, rng: np.random.Generator
) -> MaskedTokens:
    """Choose residues of each crop and replace them by `<mask>`, a random amino acid, or the residue itself.

    Args:
        tokens: Tokens of all crops, concatenated, with or without `<cls>` and `<eos>`, (tokens,), uint8.
        offsets: Start of each crop in `tokens`, and the end of the last one, (crops + 1,), int64.
        config: Fraction of the standard residues to choose, and how often each of the three replacements is used.
        rng: Random numbers of the step.

    Source: Devlin et al. 2019, section 3.1 (the 80/10/10 rule); Lin et al. 2023 for proteins.
    """
    positions = choose_residues(tokens, offsets, config.mask_rate, rng.random)
    targets = tokens[positions]
    draw = rng.random(len(positions))  # one draw decides among the three replacements
    random_residues = rng.integers(FIRST_AMINO_ACID, FIRST_AMINO_ACID + NUM_AMINO_ACIDS, len(positions), dtype=np.uint8)
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
