"""Crops, batches of concatenated crops, and micro-batches under a token budget.

A batch holds the tokens of its crops one after the other, without padding. What a training step sees is a function of
(seed, step) alone, drawn with NumPy on the CPU.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from protembed.config.common import Span
from protembed.data.alphabet import CLS, EOS, FIRST_AMINO_ACID, PAD
from protembed.data.masking import MaskedTokens

Tokens = NDArray[np.uint8]

_FRONT, _BACK = np.array([CLS], np.uint8), np.array([EOS], np.uint8)


# Crops


def make_crop(residues: Tokens, start: int, stop: int) -> Tokens:
    """Make a crop or window of a protein; `<cls>` only at the true start, `<eos>` only at the true end, as in ESM-2.

    Args:
        residues: Tokens of the whole protein without special tokens, (residues,), uint8.
        start: Index of the first residue, from 0.
        stop: Index after the last residue.

    Returns:
        (tokens,), uint8.

    >>> make_crop(np.array([20, 15, 4], dtype=np.uint8), 0, 2).tolist()
    [0, 20, 15]
    """
    parts = [residues[start:stop]]
    if start == 0:
        parts.insert(0, _FRONT)
    if stop == len(residues):
        parts.append(_BACK)
    return np.concatenate(parts)


@dataclass(frozen=True, kw_only=True)
class MaskedCrop(MaskedTokens):
    """A crop or window with masked residues, of the protein in this row of the corpus."""

    row: int


def crop_offsets(crops: Sequence[Tokens]) -> NDArray[np.int64]:
    """Compute the start of each crop in their concatenation, and the end of the last one, (crops + 1,)."""
    return np.cumsum([0, *map(len, crops)], dtype=np.int64)


# Batches


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Crops, concatenated.

    Attributes:
        tokens: (tokens,), int64.
        offsets: (crops + 1,), int64 on the CPU; start of each crop in `tokens`, and end of the last one.
        rows: (crops,), int64 on the CPU; index of the protein that each crop belongs to.
    """

    tokens: Tensor
    offsets: Tensor
    rows: Tensor

    @property
    def num_tokens(self) -> int:
        """Number of tokens, `<cls>` and `<eos>` included."""
        return len(self.tokens)


@dataclass(frozen=True, kw_only=True)
class MaskedBatch(Batch):
    """A batch with masked residues.

    Attributes:
        positions: (masked,), int64; indices of the masked residues in `tokens`.
        targets: (masked,), int64; token ids of the original residues; `<pad>` where a position has no target.
        num_residues: Number of residues, masked ones included, those of dummy crops not.
        longest: Largest number of tokens of a crop of the run, if the batch has the shape of the run; else None.
    """

    positions: Tensor
    targets: Tensor
    num_residues: int
    longest: int | None = None


@dataclass(frozen=True, kw_only=True)
class LabelledBatch(Batch):
    """A batch of proteins with their targets; all windows of a long protein are in the same batch.

    Attributes:
        spans: Windows of each protein; a single one if the protein is not divided.
        targets: (proteins,) or (residues,) classes, int64, or values, float32; (proteins, labels), float32.
        num_residues: Number of residues of the proteins; those in two windows count once.
    """

    spans: Sequence[Sequence[Span]]
    targets: Tensor
    num_residues: int


# The batches of a training are all of one kind.
AnyBatch = TypeVar("AnyBatch", MaskedBatch, LabelledBatch)


def concatenate(crops: Sequence[Tokens], rows: Sequence[int] | NDArray[np.int64]) -> Batch:
    """Concatenate the tokens of crops into a batch, with the index of the protein that each crop belongs to."""
    return Batch(
        tokens=torch.from_numpy(np.concatenate(crops).astype(np.int64)),
        offsets=torch.from_numpy(crop_offsets(crops)),
        rows=torch.from_numpy(np.asarray(rows, dtype=np.int64)),
    )


def concatenate_masked(crops: Sequence[MaskedCrop]) -> MaskedBatch:
    """Concatenate crops with masked residues into a batch."""
    batch = concatenate([crop.tokens for crop in crops], [crop.row for crop in crops])
    tokens, starts = batch.tokens.numpy(), batch.offsets.tolist()
    positions = np.concatenate([crop.positions + start for crop, start in zip(crops, starts, strict=False)])
    targets = np.concatenate([crop.targets for crop in crops]).astype(np.int64)
    return MaskedBatch(
        **vars(batch),
        positions=torch.from_numpy(positions),
        targets=torch.from_numpy(targets),
        num_residues=int(np.count_nonzero((tokens != CLS) & (tokens != EOS))),
    )


# Micro-batches


def split_by_budget(lengths: Sequence[int] | NDArray[np.int64], micro_batch_tokens: int) -> Iterator[slice]:
    """Group consecutive crops so that no group exceeds the budget, except for a single crop longer than it.

    >>> list(split_by_budget([3, 4, 9, 2, 2], 8))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None)]
    """
    start, num_tokens = 0, 0
    for index, length in enumerate(lengths):
        if num_tokens and num_tokens + length > micro_batch_tokens:
            yield slice(start, index)
            start, num_tokens = index, 0
        num_tokens += int(length)
    if num_tokens:
        yield slice(start, len(lengths))


def balance(lengths: Sequence[int], micro_batch_tokens: int) -> list[list[int]]:
    """Divide crops into as few micro-batches as the budget allows, of nearly equal size, so that no worker waits long.

    A micro-batch may exceed the budget by less than its shortest crop; none is empty, however small the budget. Each is
    returned as the indices of its crops, ascending.

    >>> balance([3, 4, 9, 2, 2], 10)
    [[2, 4], [0, 1, 3]]
    """
    num_micro_batches = min(-(-sum(lengths) // micro_batch_tokens), len(lengths))
    micro_batches = [list[int]() for _ in range(num_micro_batches)]
    loads = [(0, number) for number in range(num_micro_batches)]  # a heap of (tokens, micro-batch)
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        num_tokens, emptiest = loads[0]
        heapq.heapreplace(loads, (num_tokens + lengths[index], emptiest))
        micro_batches[emptiest].append(index)
    return [sorted(indices) for indices in micro_batches]


# Micro-batches of one shape

# Products are fastest on multiples of this many rows, which tensor cores compute at once.
_ROWS_STEP = 128
# Room for crops beyond the expected number of a micro-batch. What does not fit is computed without compiled layers.
_CROPS_FACTOR, _MORE_CROPS = 1.25, 16


@dataclass(frozen=True, kw_only=True)
class MicroBatchShape:
    """The shape that the micro-batches of a run have, so that the compiler makes one graph of a layer.

    Attributes:
        num_tokens: Number of tokens, those of dummy crops included; a multiple of 128.
        num_crops: Number of crops, dummy and empty ones included.
        num_masked: Number of masked positions, those without a target included; a multiple of 128.
        longest: Largest number of tokens of a crop.
        budget: Tokens of a micro-batch for `balance`, by which the largest step makes nearly full micro-batches.
    """

    num_tokens: int
    num_crops: int
    num_masked: int
    longest: int
    budget: int

    @classmethod
    def of_steps(
        cls, step_tokens: int, micro_batch_tokens: int, *, longest: int, mean_length: float, mask_rate: float
    ) -> "MicroBatchShape":
        """Choose the shape of the micro-batches into which `balance` divides steps.

        Args:
            step_tokens: Largest number of tokens of a step.
            micro_batch_tokens: Tokens of a micro-batch.
            longest: Largest number of tokens of a crop.
            mean_length: Mean number of tokens of a crop.
            mask_rate: Fraction of the residues of a crop that are masked.

        >>> MicroBatchShape.of_steps(1000, 600, longest=66, mean_length=50.0, mask_rate=0.15)
        MicroBatchShape(num_tokens=640, num_crops=32, num_masked=128, longest=66, budget=500)
        """
        num_micro_batches = -(-step_tokens // micro_batch_tokens)
        budget = -(-step_tokens // num_micro_batches)
        # The crop that `balance` adds last to the fullest micro-batch is in none of the others.
        fullest = max(budget + longest * (num_micro_batches - 1) // num_micro_batches, longest)
        num_tokens = _round_up(fullest)
        num_crops = math.ceil(_CROPS_FACTOR * num_tokens / mean_length) + _MORE_CROPS
        # The number of masked residues of a crop is rounded, by less than one.
        num_masked = min(_round_up(math.ceil(mask_rate * num_tokens) + num_crops), num_tokens)
        return cls(num_tokens=num_tokens, num_crops=num_crops, num_masked=num_masked, longest=longest, budget=budget)

    def pad(self, batch: MaskedBatch) -> MaskedBatch:
        """Give a batch this shape, with the same loss and gradients; return one that does not fit unchanged.

        Dummy crops of amino acids fill the tokens: without a crop their states would be uninitialised, and zero times
        NaN is NaN in the gradients of weights. Empty crops follow them. Positions without a target repeat the last
        token of a crop.
        """
        num_free = self.num_tokens - batch.num_tokens
        num_dummies = -(-num_free // self.longest)
        num_empty = self.num_crops - (len(batch.offsets) - 1) - num_dummies
        is_too_long = bool((batch.offsets.diff() > self.longest).any())
        if is_too_long or min(num_free, num_empty, self.num_masked - len(batch.positions)) < 0:
            return batch
        dummy_ends = np.minimum(batch.num_tokens + self.longest * np.arange(1, num_dummies + 1), self.num_tokens)
        offsets = np.concatenate([batch.offsets, dummy_ends, np.full(num_empty, self.num_tokens)])
        positions, targets = self._pad_positions(batch.positions.numpy(), batch.targets.numpy(), offsets)
        return MaskedBatch(
            tokens=F.pad(batch.tokens, (0, num_free), value=FIRST_AMINO_ACID),
            offsets=torch.from_numpy(offsets),
            rows=F.pad(batch.rows, (0, num_dummies + num_empty), value=-1),
            positions=torch.from_numpy(positions),
            targets=torch.from_numpy(targets),
            num_residues=batch.num_residues,
            longest=self.longest,
        )

    def _pad_positions(
        self, positions: NDArray[np.int64], targets: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Add positions without a target to the last crops, ascending, and no more to one than the longest has."""
        ends = offsets[1:][np.diff(offsets) > 0]
        bounds = np.searchsorted(positions, ends)
        room = self.longest - np.diff(bounds, prepend=0)
        room_after = room[::-1].cumsum()[::-1] - room
        added = np.clip(self.num_masked - len(positions) - room_after, 0, room)
        places = np.repeat(bounds, added)
        return np.insert(positions, places, np.repeat(ends - 1, added)), np.insert(targets, places, PAD)

    def dummy(self) -> MaskedBatch:
        """Make a batch of this shape with dummy crops only, and no targets."""
        nothing = torch.empty(0, dtype=torch.int64)
        start = torch.zeros(1, dtype=torch.int64)
        return self.pad(
            MaskedBatch(tokens=nothing, offsets=start, rows=nothing, positions=nothing, targets=nothing, num_residues=0)
        )


def _round_up(number: int) -> int:
    return -(-number // _ROWS_STEP) * _ROWS_STEP
