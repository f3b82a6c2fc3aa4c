"""Clusters of proteins: stored beside a corpus, sampled in training.

Stored clusters are two arrays: `members.npy` (proteins,) int64, the rows of the corpus cluster by cluster, and
`cluster_offsets.npy` (clusters + 1,) int64, the start of each cluster in it, and the end of the last one.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protembed.data.clusters import Keys
from protembed.data.sampling import ROWS_PER_BLOCK, Rows, TokenCounts, row_blocks
from protembed.io.arrays import array_file, open_array

_MEMBERS, _OFFSETS = "members.npy", "cluster_offsets.npy"


def write_clusters(directory: Path, keys: Keys) -> None:
    """Store rows in the order of the keys of their clusters, (proteins,), uint64; within a cluster, in their own."""
    members = np.argsort(keys, kind="stable")
    keys = keys[members]
    with array_file(directory / _MEMBERS, (), np.int64) as stream:
        stream.append(members)
    is_start = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=is_start[1:])
    with array_file(directory / _OFFSETS, (), np.int64) as stream:
        stream.append(np.append(np.flatnonzero(is_start), len(keys)))


@dataclass(frozen=True, eq=False)
class Clusters:
    """The proteins of a corpus cluster by cluster, as `write_clusters` stored them.

    Training samples each cluster once, by one of its members, so that large families do not dominate.

    Attributes:
        members: (proteins,), int64; rows of the corpus, each in exactly one cluster.
        offsets: (clusters + 1,), int64; start of each cluster in `members`, and end of the last one.
        rows_per_block: Clusters that are drawn, or whose tokens are counted, at once.

    Source: Lin et al. 2023, supplement A.1: ESM-2 draws UniRef50 clusters, and then UniRef90 members.
    """

    members: NDArray[np.int64]
    offsets: NDArray[np.int64]
    rows_per_block: int = ROWS_PER_BLOCK

    @classmethod
    def open(cls, directory: Path) -> "Clusters | None":
        """Map the clusters in the directory of a corpus into memory; return None if there are none."""
        if not (directory / _OFFSETS).exists():
            return None
        return cls(open_array(directory / _MEMBERS), open_array(directory / _OFFSETS))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def draw(self, rng: np.random.Generator) -> Rows:
        """Shuffle the clusters, and draw a member of each, (clusters,), int64."""
        drawn = rng.permutation(len(self))
        for block in row_blocks(len(drawn), self.rows_per_block):
            starts, stops = (self.offsets[drawn[block] + end] for end in (0, 1))
            indices = starts + (rng.random(len(starts)) * (stops - starts)).astype(np.int64)
            drawn[block] = self.members[indices]
        return drawn

    def max_tokens(self, count: TokenCounts) -> int:
        """Sum the tokens of the longest member of each cluster."""
        total = 0
        for block in row_blocks(len(self), self.rows_per_block):
            offsets = self.offsets[block.start : block.stop + 1]
            counts = count(self.members[offsets[0] : offsets[-1]])
            total += int(np.maximum.reduceat(counts, offsets[:-1] - offsets[0]).sum())
        return total
