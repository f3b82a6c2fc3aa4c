"""The seeded order in which training sees proteins, divided into steps of nearly equal size.

An epoch sees every protein once, or one member of every cluster. An epoch's order takes eight bytes of memory per
protein; everything else is computed block by block.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# The second entry of the seed of an epoch's generator; `pretraining/batches.py` has that of a step's.
ORDER_STREAM = 0
ROWS_PER_BLOCK = 1 << 20

Rows = NDArray[np.int64]
TokenCounts = Callable[[Rows], NDArray[np.int64]]


def row_blocks(num_rows: int, rows_per_block: int) -> list[slice]:
    """Divide rows into blocks that are computed one after the other."""
    return [slice(start, min(start + rows_per_block, num_rows)) for start in range(0, num_rows, rows_per_block)]


def token_counts(offsets: NDArray[np.int64], crop_residues: int) -> TokenCounts:
    """Return the function that counts the tokens of each protein's crop.

    The offsets hold the start of each protein in a corpus, and the end of the last one, (proteins + 1,).
    """

    def count(rows: Rows) -> NDArray[np.int64]:
        lengths = np.asarray(offsets[rows + 1]) - offsets[rows]
        # A crop of a longer protein has one special token at most.
        return np.asarray(np.minimum(lengths, crop_residues) + np.where(lengths <= crop_residues, 2, 1))

    return count


class Sampler(Protocol):
    """Which proteins an epoch sees, and in which order."""

    def draw(self, rng: np.random.Generator) -> Rows:
        """Draw an epoch's proteins in their order, (drawn,), int64."""

    def max_tokens(self, count: TokenCounts) -> int:
        """Return an upper bound on the tokens of any epoch."""


class UniformSampler:
    """Samples each protein once; counts the tokens of `rows_per_block` proteins at once."""

    def __init__(self, num_proteins: int, *, rows_per_block: int = ROWS_PER_BLOCK) -> None:
        self._num_proteins, self._rows_per_block = num_proteins, rows_per_block

    def draw(self, rng: np.random.Generator) -> Rows:
        """Shuffle all proteins, (proteins,), int64."""
        return rng.permutation(self._num_proteins)

    def max_tokens(self, count: TokenCounts) -> int:
        """Sum the tokens of all proteins."""
        blocks = row_blocks(self._num_proteins, self._rows_per_block)
        return sum(int(count(np.arange(block.start, block.stop)).sum()) for block in blocks)


class EpochSampler:
    """A seeded order of proteins, drawn again for each epoch and divided into steps.

    The tokens of an epoch are divided into equal segments, one per step; step k sees the proteins whose first token
    lies in the k-th segment. The number of steps is therefore the same in every epoch, and any step is found without
    computing those before it.

    Args:
        count: Function that counts the tokens of each protein's crop, (rows,) to (rows,).
        max_length: Largest number of tokens of one crop.
        batch_tokens: Largest number of tokens of a step; only a crop longer than half of it can make a step exceed it.
        rows_per_block: Proteins whose tokens are counted at once.

    Attributes:
        steps_per_epoch: Number of steps in which the sampler's proteins are seen once.
        max_epoch_tokens: Upper bound on the tokens of an epoch.
        max_step_tokens: Upper bound on the tokens of a step.
    """

    def __init__(
        self,
        sampler: Sampler,
        count: TokenCounts,
        max_length: int,
        batch_tokens: int,
        seed: int,
        *,
        rows_per_block: int = ROWS_PER_BLOCK,
    ) -> None:
        self._sampler, self._count, self._seed, self._rows_per_block = sampler, count, seed, rows_per_block
        # A step exceeds its segment by less than the length of its last crop.
        segment = max(batch_tokens - max_length, batch_tokens // 2)
        self.max_epoch_tokens = sampler.max_tokens(count)
        self.steps_per_epoch = max(1, -(-self.max_epoch_tokens // segment))
        self.max_step_tokens = -(-self.max_epoch_tokens // self.steps_per_epoch) + max_length
        self._epoch = -1
        self._order = self._boundaries = np.empty(0, np.int64)

    def rows(self, step: int) -> Rows:
        """Return the proteins of a step in their order, (proteins,), int64."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = self._sampler.draw(np.random.default_rng([self._seed, ORDER_STREAM, epoch]))
            self._boundaries = self._divide(self._order)
            self._epoch = epoch
        return self._order[self._boundaries[index] : self._boundaries[index + 1]]

    def _divide(self, order: Rows) -> NDArray[np.int64]:
        """Compute the start of each step in the order, and the end of the last one, (steps + 1,)."""
        blocks = row_blocks(len(order), self._rows_per_block)
        block_tokens = [int(self._count(order[block]).sum()) for block in blocks]
        edges = np.linspace(0, sum(block_tokens), self.steps_per_epoch + 1)
        boundaries = np.full(self.steps_per_epoch + 1, len(order))
        start = 0  # tokens before the block
        for block, num_tokens in zip(blocks, block_tokens, strict=True):
            counts = self._count(order[block])
            crop_starts = start + np.cumsum(counts) - counts
            inside = slice(*np.searchsorted(edges, [start, start + num_tokens]))
            boundaries[inside] = block.start + np.searchsorted(crop_starts, edges[inside])
            start += num_tokens
        return boundaries
