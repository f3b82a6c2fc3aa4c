"""Crops, batches of concatenated crops, and micro-batches under a token budget.

A batch holds the tokens of its crops one after the other, without padding. What a training step sees is a function of
(seed, step) alone, drawn with NumPy on the CPU.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.config.common import Span
from protembed.data.alphabet import CLS, EOS
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
        targets: (masked,), int64; token ids of the original residues.
        num_residues: Number of residues, masked ones included.
    """

    positions: Tensor
    targets: Tensor
    num_residues: int


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
