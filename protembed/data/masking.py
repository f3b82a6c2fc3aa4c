"""The masking rule: which residues the model has to guess, and what it is shown in their place. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.config.pretrain import MaskingConfig
from protembed.data.alphabet import FIRST_AMINO_ACID, MASK, NUM_AMINO_ACIDS, is_amino_acid

# Frozen for good: perplexities of different runs and tools compare only while all choose the same residues.
VALIDATION_SEED = 20_260_101
VALIDATION_MASK_RATE = 0.15

Random = Callable[[int], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class MaskedTokens:
    """Tokens with some of their residues hidden.

    Attributes:
        tokens: (tokens,), uint8; what the model is shown.
        positions: (masked,), int64, ascending; where the hidden residues stand in `tokens`.
        targets: (masked,), uint8; the token ids that stood there, all of them amino acids.
    """

    tokens: NDArray[np.uint8]
    positions: NDArray[np.int64]
    targets: NDArray[np.uint8]


def mask_tokens(
    tokens: NDArray[np.uint8], offsets: NDArray[np.int64], config: MaskingConfig, rng: np.random.Generator
) -> MaskedTokens:
    """Choose residues of each crop anew and hide them: `<mask>`, a random amino acid, or the residue itself.

    Args:
        tokens: (tokens,), the crops one after the other, with or without `<cls>` and `<eos>`.
        offsets: (crops + 1,), where each crop begins and the last one ends.
        config: the share of the standard residues to choose, and the shares of the three ways to show them.
        rng: the step's random numbers.

    Returns:
        The shown tokens, and positions and true residues of the chosen ones.

    Source: Devlin et al. 2019, section 3.1 (the 80/10/10 rule); Lin et al. 2023 for proteins.
    """
    positions = choose_residues(tokens, offsets, config.mask_rate, rng.random)
    targets = tokens[positions]
    way = rng.random(len(positions))  # one draw decides among the three ways
    random_residues = rng.integers(FIRST_AMINO_ACID, FIRST_AMINO_ACID + NUM_AMINO_ACIDS, len(positions), dtype=np.uint8)
    show_mask = way < 1 - config.random_rate - config.keep_rate
    show_random = ~show_mask & (way < 1 - config.keep_rate)
    shown = tokens.copy()
    shown[positions] = np.where(show_mask, np.uint8(MASK), np.where(show_random, random_residues, targets))
    return MaskedTokens(tokens=shown, positions=positions, targets=targets)


def mask_for_validation(tokens: NDArray[np.uint8], sequence_hash: bytes) -> MaskedTokens:
    """Choose 15 % of a whole protein's residues by its own hash, and show `<mask>` for all of them.

    The choice depends on nothing but the sequence, so that it is the same for every model, window and run.

    Args:
        tokens: (residues,), a whole protein without `<cls>` and `<eos>`.
        sequence_hash: the sha256 of the sequence, from `sequence_sha256`.

    Returns:
        The shown tokens, and positions and true residues of the chosen ones.
    """
    whole = np.array([0, len(tokens)])
    positions = choose_residues(tokens, whole, VALIDATION_MASK_RATE, _frozen_random(sequence_hash))
    shown = tokens.copy()
    shown[positions] = MASK
    return MaskedTokens(tokens=shown, positions=positions, targets=tokens[positions])


def choose_residues(
    tokens: NDArray[np.uint8], offsets: NDArray[np.int64], rate: float, random: Random
) -> NDArray[np.int64]:
    """Choose a share of the standard residues of each crop, without replacement; at least one where there is one.

    The number per crop is `rate` times its standard residues, rounded up or down at random so that the share is exact
    on average.

    Args:
        tokens: (tokens,), the crops one after the other.
        offsets: (crops + 1,), where each crop begins and the last one ends.
        rate: the share to choose, between 0 and 1.
        random: draws so many numbers from 0 to 1, (n,).

    Returns:
        (masked,), int64: the positions of the chosen residues in `tokens`, ascending.
    """
    candidates = np.flatnonzero(is_amino_acid(tokens))
    crops = np.searchsorted(offsets, candidates, side="right") - 1  # (candidates,), the crop of each
    num_candidates = np.bincount(crops, minlength=len(offsets) - 1)  # (crops,)
    quota = np.floor(rate * num_candidates + random(len(num_candidates))).astype(np.int64)
    quota = np.minimum(np.maximum(quota, 1), num_candidates)
    shuffled = np.lexsort((random(len(candidates)), crops))  # by crop, in random order within
    rank = np.arange(len(candidates)) - np.repeat(np.cumsum(num_candidates) - num_candidates, num_candidates)
    return np.sort(candidates[shuffled[rank < quota[crops[shuffled]]]])


def _frozen_random(sequence_hash: bytes) -> Random:
    """Draw by a protein's hash, the same on every machine and for good."""
    # Numpy promises that a bit generator's raw output never changes; it does not promise what Generator makes of it.
    key = np.frombuffer(sequence_hash[:16], dtype="<u8") ^ np.uint64(VALIDATION_SEED)
    bits = np.random.Philox(key=key)
    return lambda number: np.asarray((bits.random_raw(number) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)
