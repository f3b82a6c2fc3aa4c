"""The seeded order in which a training sees proteins, divided into steps of nearly equal size.

An epoch sees every protein once, or one member of every cluster. It costs eight bytes of memory a protein: whatever
else is needed is computed block by block.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# The second entry of the seed of an epoch's generator; batching.py has the others.
ORDER_STREAM = 0

_BLOCK = 1 << 20

Rows = NDArray[np.int64]
TokenCounts = Callable[[Rows], NDArray[np.int64]]


class Sampler(Protocol):
    """What an epoch is made of."""

    def draw(self, rng: np.random.Generator) -> Rows:
        """Draw an epoch's proteins in their order, (drawn,), int64."""
        ...

    def most_tokens(self, count: TokenCounts) -> int:
        """Bound the tokens of any epoch from above."""
        ...


class UniformSampler:
    """Each protein once.

    Args:
        num_proteins: how many there are.
    """

    def __init__(self, num_proteins: int) -> None:
        self._num_proteins = num_proteins

    def draw(self, rng: np.random.Generator) -> Rows:
        """Shuffle all rows."""
        return rng.permutation(self._num_proteins)

    def most_tokens(self, count: TokenCounts) -> int:
        """Sum the tokens of all proteins."""
        blocks = row_blocks(self._num_proteins)
        return sum(int(count(np.arange(block.start, block.stop)).sum()) for block in blocks)


class EpochSampler:
    """A seeded order of proteins, anew in each epoch, divided into steps.

    Step k of an epoch takes the proteins whose first token falls into the k-th of equal stretches of the epoch's
    tokens. The number of steps is therefore the same in every epoch, and a step is found without walking to it.

    Args:
        sampler: what an epoch is made of.
        count: tokens of some proteins as a step sees them, cropped; (rows,) to (rows,).
        longest: the most tokens of one protein.
        tokens_per_batch: the most tokens of a step; only a protein longer than half of it can make a step exceed it.
        seed: the run's seed.
    """

    def __init__(self, sampler: Sampler, count: TokenCounts, longest: int, batch_tokens: int, seed: int) -> None:
        self._sampler, self._count, self._seed = sampler, count, seed
        # A step overshoots its stretch by less than its last protein.
        stretch = max(batch_tokens - longest, batch_tokens // 2)
        self.steps_per_epoch = max(1, -(-sampler.most_tokens(count) // stretch))
        self._epoch = -1
        self._order = self._boundaries = np.empty(0, np.int64)

    def rows(self, step: int) -> Rows:
        """Return the proteins of a step, (proteins,), in their order."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = self._sampler.draw(np.random.default_rng([self._seed, ORDER_STREAM, epoch]))
            self._boundaries = self._divide(self._order)
            self._epoch = epoch
        return self._order[self._boundaries[index] : self._boundaries[index + 1]]

    def _divide(self, order: Rows) -> NDArray[np.int64]:
        """Find where each step begins in the order, and the last one ends, (steps + 1,)."""
        blocks = row_blocks(len(order))
        all_reduce_sum = [int(self._count(order[block]).sum()) for block in blocks]
        edges = np.linspace(0, sum(all_reduce_sum), self.steps_per_epoch + 1)
        boundaries = np.full(self.steps_per_epoch + 1, len(order))
        begin = 0  # tokens before the block
        for block, total in zip(blocks, all_reduce_sum, strict=True):
            counts = self._count(order[block])
            starts = begin + np.cumsum(counts) - counts
            inside = slice(*np.searchsorted(edges, [begin, begin + total]))
            boundaries[inside] = block.start + np.searchsorted(starts, edges[inside])
            begin += total
        return boundaries


def row_blocks(length: int) -> list[slice]:
    """Divide rows into blocks that are computed one after the other."""
    return [slice(start, min(start + _BLOCK, length)) for start in range(0, length, _BLOCK)]


def token_counts(offsets: NDArray[np.int64], crop_residues: int) -> TokenCounts:
    """Make the function that counts a protein's tokens as a crop shows them, from its boundaries in a corpus.

    Args:
        offsets: (proteins + 1,), int64; where each protein begins and the last one ends.
        crop_residues: longer proteins are cropped to this many residues.
    """

    def count(rows: Rows) -> NDArray[np.int64]:
        lengths = np.asarray(offsets[rows + 1]) - offsets[rows]
        # A crop of a longer protein has one special token at most.
        return np.asarray(np.minimum(lengths, crop_residues) + np.where(lengths <= crop_residues, 2, 1))

    return count
