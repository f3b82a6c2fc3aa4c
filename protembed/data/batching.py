"""Crops and windows, packing under a token budget, and what each step sees.

A batch is packed: the tokens of its proteins stand one after the other, and nothing is padded. What a step of training
sees is a function of (seed, step) alone, drawn with numpy on the CPU.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.data.alphabet import CLS, EOS
from protembed.data.windows import Span

# A residue without a class; one without a value is NaN.
UNKNOWN_CLASS = -1


Tokens = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Proteins or crops, one after the other.

    Attributes:
        tokens: (tokens,), int64 ids.
        offsets: (crops + 1,), int64 on the CPU; where each crop begins and the last one ends.
        rows: (crops,), int64 on the CPU; which protein each crop belongs to.
    """

    tokens: Tensor
    offsets: Tensor
    rows: Tensor

    @property
    def num_tokens(self) -> int:
        """Tokens with `<cls>` and `<eos>`."""
        return len(self.tokens)


@dataclass(frozen=True, kw_only=True)
class MaskedBatch(Batch):
    """A batch with hidden residues.

    Attributes:
        positions: (masked,), int64; where the hidden residues stand in `tokens`.
        targets: (masked,), int64; their token ids.
        num_residues: residues, hidden ones included.
    """

    positions: Tensor
    targets: Tensor
    num_residues: int


@dataclass(frozen=True, kw_only=True)
class LabelledBatch(Batch):
    """A batch of proteins with their labels; the windows of a long one are all in the same batch.

    Attributes:
        spans: of each protein, where its windows lie; one alone where it is whole.
        targets: (proteins,) or (residues,) classes, int64, or values, float32; (proteins, labels), float32.
        num_residues: residues of the proteins.
    """

    spans: Sequence[Sequence[Span]]
    targets: Tensor
    num_residues: int


AnyBatch = TypeVar("AnyBatch", bound=MaskedBatch | LabelledBatch)
PlannedBatch = TypeVar("PlannedBatch", bound=MaskedBatch | LabelledBatch, covariant=True)


class BatchSource(Protocol[PlannedBatch]):
    """What each step of a training run sees."""

    def micro_batches(self, step: int) -> Sequence[PlannedBatch]:
        """Return the micro-batches of one step, whose gradients are accumulated."""
        ...


def make_crop(residues: Tokens, start: int, stop: int) -> Tokens:
    """Cut a crop or window out of a protein; `<cls>` only at the true start, `<eos>` only at the true end, as in ESM-2.

    Args:
        residues: (residues,), the whole protein without special tokens.
        start: the first residue, from 0.
        stop: one past the last residue.

    Returns:
        (tokens,), uint8.

    >>> make_crop(np.array([20, 15, 4], dtype=np.uint8), 0, 2).tolist()
    [0, 20, 15]
    """
    front = [CLS] if start == 0 else []
    back = [EOS] if stop == len(residues) else []
    return np.concatenate([np.array(front, np.uint8), residues[start:stop], np.array(back, np.uint8)])


def concatenate(crops: Sequence[Tokens], rows: Sequence[int] | NDArray[np.int64]) -> Batch:
    """Put crops one after the other.

    Args:
        crops: each (tokens,), uint8.
        rows: which protein each belongs to.
    """
    return Batch(
        tokens=torch.from_numpy(np.concatenate(crops).astype(np.int64)),
        offsets=torch.from_numpy(crop_offsets(crops)),
        rows=torch.from_numpy(np.asarray(rows, dtype=np.int64)),
    )


def split_by_budget(lengths: Sequence[int] | NDArray[np.int64], micro_batch_tokens: int) -> Iterator[slice]:
    """Group consecutive proteins so that no group holds more tokens than the budget; one too long stands alone.

    >>> list(split_by_budget([3, 4, 9, 2, 2], 8))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None)]
    """
    start, filled = 0, 0
    for index, length in enumerate(lengths):
        if filled and filled + length > micro_batch_tokens:
            yield slice(start, index)
            start, filled = index, 0
        filled += int(length)
    if filled:
        yield slice(start, len(lengths))


def balance(lengths: Sequence[int], micro_batch_tokens: int) -> list[list[int]]:
    """Divide proteins into as few micro-batches as the budget allows, of nearly equal size, so no worker waits long.

    A micro-batch may exceed the budget by less than its shortest protein; none is empty, however small the budget.

    >>> balance([3, 4, 9, 2, 2], 10)
    [[2, 4], [0, 1, 3]]
    """
    num_micro_batches = min(-(-sum(lengths) // micro_batch_tokens), len(lengths))
    micro_batches = [list[int]() for _ in range(num_micro_batches)]
    fill = [(0, number) for number in range(num_micro_batches)]
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        filled, emptiest = fill[0]
        heapq.heapreplace(fill, (filled + lengths[index], emptiest))
        micro_batches[emptiest].append(index)
    return [sorted(part) for part in micro_batches]


@dataclass(frozen=True, kw_only=True)
class MaskedCrop:
    """A crop or window with hidden residues.

    Attributes:
        tokens: (tokens,), uint8; as the model is shown them.
        positions: (masked,), int64; where the hidden residues stand in `tokens`.
        targets: (masked,), uint8; their token ids.
        row: which protein it belongs to.
    """

    tokens: Tokens
    positions: NDArray[np.int64]
    targets: Tokens
    row: int


def concatenate_masked(crops: Sequence[MaskedCrop]) -> MaskedBatch:
    """Put crops with hidden residues one after the other."""
    batch = concatenate([crop.tokens for crop in crops], [crop.row for crop in crops])
    starts = batch.offsets.tolist()
    positions = np.concatenate([crop.positions + start for crop, start in zip(crops, starts, strict=False)])
    targets = np.concatenate([crop.targets for crop in crops]).astype(np.int64)
    return MaskedBatch(
        tokens=batch.tokens,
        offsets=batch.offsets,
        rows=batch.rows,
        positions=torch.from_numpy(positions),
        targets=torch.from_numpy(targets),
        num_residues=int(((batch.tokens != CLS) & (batch.tokens != EOS)).sum()),
    )


def crop_offsets(crops: Sequence[Tokens]) -> NDArray[np.int64]:
    """Find where each crop begins and the last one ends, (crops + 1,)."""
    return np.cumsum([0, *map(len, crops)], dtype=np.int64)
