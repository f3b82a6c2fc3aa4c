"""Crops and windows, packing under a token budget, and the seeded order.

A batch is packed: the tokens of its proteins stand one after the other, and nothing is padded. What a step of training
sees is a function of (seed, step) alone, drawn with numpy on the CPU.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.config import TOKENS_PER_PACK, BatchConfig, MaskingConfig
from protembed.data.alphabet import CLS, EOS
from protembed.data.corpus import Corpus
from protembed.data.masking import mask_for_validation, mask_tokens
from protembed.data.splits import sequence_sha256

# Which of a run's random decisions a generator serves; the second entry of its seed.
_ORDER_STREAM, _CROP_STREAM = 0, 1

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
    """A batch of whole proteins with one label each.

    Attributes:
        targets: (proteins,), int64 classes or float32 values.
        num_residues: residues.
    """

    targets: Tensor
    num_residues: int


AnyBatch = TypeVar("AnyBatch", bound=MaskedBatch | LabelledBatch)
PlannedBatch = TypeVar("PlannedBatch", bound=MaskedBatch | LabelledBatch, covariant=True)


class BatchPlan(Protocol[PlannedBatch]):
    """What each step of a training run sees."""

    def packs(self, step: int) -> Sequence[PlannedBatch]:
        """Return the packs of one step, whose gradients are accumulated."""
        ...


def cut(residues: Tokens, start: int, stop: int) -> Tokens:
    """Cut a crop or window out of a protein; `<cls>` only at the true start, `<eos>` only at the true end, as in ESM-2.

    Args:
        residues: (residues,), the whole protein without special tokens.
        start: the first residue, from 0.
        stop: one past the last residue.

    Returns:
        (tokens,), uint8.

    >>> cut(np.array([20, 15, 4], dtype=np.uint8), 0, 2).tolist()
    [0, 20, 15]
    """
    front = [CLS] if start == 0 else []
    back = [EOS] if stop == len(residues) else []
    return np.concatenate([np.array(front, np.uint8), residues[start:stop], np.array(back, np.uint8)])


def pack(crops: Sequence[Tokens], rows: Sequence[int] | NDArray[np.int64]) -> Batch:
    """Put crops one after the other.

    Args:
        crops: each (tokens,), uint8.
        rows: which protein each belongs to.
    """
    return Batch(
        tokens=torch.from_numpy(np.concatenate(crops).astype(np.int64)),
        offsets=torch.from_numpy(_offsets_of(crops)),
        rows=torch.from_numpy(np.asarray(rows, dtype=np.int64)),
    )


def split_by_budget(lengths: Sequence[int] | NDArray[np.int64], tokens_per_pack: int) -> Iterator[slice]:
    """Group consecutive proteins so that no group holds more tokens than the budget; one too long stands alone.

    >>> list(split_by_budget([3, 4, 9, 2, 2], 8))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None)]
    """
    start, filled = 0, 0
    for index, length in enumerate(lengths):
        if filled and filled + length > tokens_per_pack:
            yield slice(start, index)
            start, filled = index, 0
        filled += int(length)
    if filled:
        yield slice(start, len(lengths))


class EpochOrder:
    """A seeded order of proteins, anew in each epoch, divided into steps of nearly equal size.

    Step k of an epoch takes the proteins whose first token falls into the k-th of equal stretches of the epoch's
    tokens. The number of steps is therefore the same in every epoch, and a step is found without walking to it.

    Args:
        lengths: (proteins,), tokens of each as a step sees it, cropped.
        tokens_per_batch: the most tokens of a step; only a protein longer than half of it can make a step exceed it.
        seed: the run's seed.
    """

    def __init__(self, lengths: NDArray[np.int64], tokens_per_batch: int, seed: int) -> None:
        self._lengths, self._seed = lengths, seed
        # A step overshoots its stretch by less than its last protein.
        stretch = max(tokens_per_batch - int(lengths.max()), tokens_per_batch // 2)
        self.steps_per_epoch = max(1, -(-int(lengths.sum()) // stretch))
        self._epoch = -1
        self._order = np.empty(0, np.int64)
        self._boundaries = np.empty(0, np.int64)

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the proteins of a step, (proteins,), in their order."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._plan(epoch)
        return self._order[self._boundaries[index] : self._boundaries[index + 1]]

    def _plan(self, epoch: int) -> None:
        rng = np.random.default_rng([self._seed, _ORDER_STREAM, epoch])
        self._order = rng.permutation(len(self._lengths))
        ends = np.cumsum(self._lengths[self._order])
        starts = ends - self._lengths[self._order]
        stretches = np.linspace(0, ends[-1], self.steps_per_epoch + 1)
        self._boundaries = np.searchsorted(starts, stretches)
        self._epoch = epoch


class PretrainingPlan:
    """What each step of pretraining sees: seeded proteins, seeded crops, seeded masks.

    Args:
        corpus: the proteins.
        batches: crop length and token budgets.
        masking: the masking rule's shares.
        seed: the run's seed.
    """

    def __init__(self, corpus: Corpus, batches: BatchConfig, masking: MaskingConfig, seed: int) -> None:
        self._corpus, self._batches, self._masking, self._seed = corpus, batches, masking, seed
        num_residues = np.minimum(corpus.lengths, batches.crop_residues)
        # A crop of a longer protein has one special token at most.
        lengths = num_residues + np.where(corpus.lengths <= batches.crop_residues, 2, 1)
        self._order = EpochOrder(lengths, batches.tokens_per_batch, seed)
        self.steps_per_epoch = self._order.steps_per_epoch

    def packs(self, step: int) -> list[MaskedBatch]:
        """Draw a step, masks included, and divide it into packs under the budget."""
        rng = np.random.default_rng([self._seed, _CROP_STREAM, step])
        rows = self._order.rows(step)
        crops = [self._crop(int(row), rng) for row in rows]
        if not crops:
            return []
        offsets = _offsets_of(crops)
        masked = mask_tokens(np.concatenate(crops), offsets, self._masking, rng)
        return [
            _masked_pack(
                masked.tokens, masked.positions, masked.targets, offsets[part.start : part.stop + 1], rows[part]
            )
            for part in split_by_budget(np.diff(offsets), self._batches.tokens_per_pack)
        ]

    def _crop(self, row: int, rng: np.random.Generator) -> Tokens:
        residues = self._corpus[row]
        length = min(len(residues), self._batches.crop_residues)
        start = int(rng.integers(len(residues) - length + 1))
        return cut(residues, start, start + length)


def validation_packs(corpus: Corpus, window_residues: int, tokens_per_pack: int) -> list[MaskedBatch]:
    """Hide the frozen choice of residues of whole proteins, cut them into windows, and pack those.

    Every hidden residue is in exactly one window, for windows are consecutive.

    Args:
        corpus: the validation proteins.
        window_residues: the longest stretch that is computed at once.
        tokens_per_pack: the most tokens of a pack.
    """
    windows, chosen, targets, rows = [], [], [], []
    for row in range(len(corpus)):
        masked = mask_for_validation(corpus[row], sequence_sha256(corpus.sequence(row)))
        is_target = np.zeros(len(masked.tokens), dtype=bool)
        is_target[masked.positions] = True
        for start in range(0, len(masked.tokens), window_residues):
            stop = min(start + window_residues, len(masked.tokens))
            windows.append(cut(masked.tokens, start, stop))
            chosen.append(np.flatnonzero(is_target[start:stop]) + (start == 0))
            targets.append(corpus[row][start:stop][is_target[start:stop]])
            rows.append(row)
    order = np.argsort([-len(window) for window in windows], kind="stable")  # equal lengths together: fuller packs
    windows, chosen, targets = ([items[i] for i in order] for items in (windows, chosen, targets))
    packs = []
    for part in split_by_budget([len(window) for window in windows], tokens_per_pack):
        offsets = _offsets_of(windows[part])
        positions = np.concatenate([at + start for at, start in zip(chosen[part], offsets[:-1], strict=True)])
        tokens = np.concatenate(windows[part])
        packs.append(
            _masked_pack(tokens, positions, np.concatenate(targets[part]), offsets, np.array(rows)[order[part]])
        )
    return packs


class LabelledPlan:
    """What each step of fine-tuning sees: whole proteins and their labels in a seeded order.

    Args:
        proteins: each (residues,), uint8.
        targets: (proteins,), int64 classes or float32 values.
        tokens_per_batch: the most tokens of a step; only a protein longer than half of it can make a step exceed it.
        seed: the run's seed.
    """

    def __init__(self, proteins: Sequence[Tokens], targets: Tensor, tokens_per_batch: int, seed: int) -> None:
        self._proteins, self._targets = proteins, targets
        lengths = np.array([len(protein) + 2 for protein in proteins], dtype=np.int64)
        self._order = EpochOrder(lengths, tokens_per_batch, seed)
        self.steps_per_epoch = self._order.steps_per_epoch

    def packs(self, step: int) -> list[LabelledBatch]:
        """Return the packs of a step; a giant that filled several steps' stretches leaves none to the later ones."""
        return labelled_packs(self._proteins, self._targets, self._order.rows(step))


def labelled_packs(proteins: Sequence[Tokens], targets: Tensor, rows: NDArray[np.int64]) -> list[LabelledBatch]:
    """Pack some of the labelled proteins, (rows,), in their order; arguments as for `LabelledPlan`."""
    parts = split_by_budget([len(proteins[row]) + 2 for row in rows], TOKENS_PER_PACK)
    return [_labelled_pack(proteins, targets, rows[part]) for part in parts]


def _offsets_of(crops: Sequence[Tokens]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, crops)], dtype=np.int64)


def _labelled_pack(proteins: Sequence[Tokens], targets: Tensor, rows: NDArray[np.int64]) -> LabelledBatch:
    chosen = [proteins[row] for row in rows]
    batch = pack([cut(protein, 0, len(protein)) for protein in chosen], rows)
    return LabelledBatch(
        tokens=batch.tokens,
        offsets=batch.offsets,
        rows=batch.rows,
        targets=targets[batch.rows],
        num_residues=sum(map(len, chosen)),
    )


def _masked_pack(
    tokens: Tokens, positions: NDArray[np.int64], targets: Tokens, offsets: NDArray[np.int64], rows: NDArray[np.int64]
) -> MaskedBatch:
    """Take the crops between the first and the last of `offsets` out of masked tokens."""
    start, stop = offsets[0], offsets[-1]
    inside = slice(*np.searchsorted(positions, [start, stop]))
    ids = tokens[start:stop].astype(np.int64)
    return MaskedBatch(
        tokens=torch.from_numpy(ids),
        offsets=torch.from_numpy(offsets - start),
        rows=torch.from_numpy(rows.astype(np.int64)),
        positions=torch.from_numpy(positions[inside] - start),
        targets=torch.from_numpy(targets[inside].astype(np.int64)),
        num_residues=int(((ids != CLS) & (ids != EOS)).sum()),
    )
