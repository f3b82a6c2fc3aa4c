"""Statistics of attention heads: of one protein, and their means over all proteins."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.data.alphabet import AMINO_ACID_IDS, AMINO_ACIDS

STATISTICS = ("entropy", "mean_distance", "on_self", "on_neighbours", "on_cls", "on_eos")
ALL_STATISTICS = (*STATISTICS, *(f"on_{letter}" for letter in AMINO_ACIDS))
# Positions of a residue relative to the one that attends to it: four turns of a helix in both directions.
OFFSETS = range(-16, 17)

# Residues in one block of the statistics. The intermediate arrays of a whole map are larger than the map, and too small
# for the C library to return them to the system.
_ROWS_PER_BLOCK = 128


@dataclass(frozen=True, kw_only=True)
class HeadStatistics:
    """What each head does on average over all residues of all proteins.

    Attributes:
        means: Means in the order of `ALL_STATISTICS`, (statistics, layer, head), float64.
        on_offset: Fraction of the attention at each of `OFFSETS`, (offsets, layer, head), float64.
        even_on_offset: The same if attention were spread evenly over all tokens of a protein, (offsets,), float64.
        even_entropy: Entropy of such attention, nats.
        num_letters: Number of residues that are each amino acid, in the order of the alphabet, (20,), int64.
        num_residues: Number of residues of all proteins.
    """

    means: NDArray[np.float64]
    on_offset: NDArray[np.float64]
    even_on_offset: NDArray[np.float64]
    even_entropy: float
    num_letters: NDArray[np.int64]
    num_residues: int

    @property
    def composition(self) -> NDArray[np.float64]:
        """Fraction of the residues that are each amino acid, in the order of the alphabet, (20,), float64."""
        return self.num_letters / self.num_residues

    @property
    def even_fraction(self) -> float:
        """Fraction of evenly spread attention that falls on a token, such as the residue itself or `<cls>`."""
        return float(self.even_on_offset[OFFSETS.index(0)])


class HeadSums:
    """Adds up the statistics of proteins, one at a time."""

    def __init__(self) -> None:
        self._sums, self._offset_sums = np.zeros(()), np.zeros(())
        self._num_letters, self._lengths = np.zeros(len(AMINO_ACIDS), np.int64), list[int]()

    def add(self, sums: NDArray[np.float64], offset_sums: NDArray[np.float64], sequence: str) -> None:
        """Add a protein.

        Args:
            sums: Statistics in the order of `ALL_STATISTICS`, summed over residues, (statistics, layer, head).
            offset_sums: Attention at each of `OFFSETS`, summed over residues, (offsets, layer, head).
            sequence: One letter for each residue.
        """
        self._sums, self._offset_sums = self._sums + sums, self._offset_sums + offset_sums
        self._num_letters += [sequence.count(letter) for letter in AMINO_ACIDS]
        self._lengths.append(len(sequence))

    def means(self) -> HeadStatistics:
        """Average over all residues of all proteins, of which there is at least one."""
        lengths, counts = np.unique(self._lengths, return_counts=True)
        num_residues = int(lengths @ counts)
        num_pairs = np.maximum(lengths - np.abs(OFFSETS)[:, None], 0)  # (offsets, lengths)
        return HeadStatistics(
            means=self._sums / num_residues,
            on_offset=self._offset_sums / num_residues,
            even_on_offset=num_pairs / (lengths + 2) @ counts / num_residues,
            even_entropy=float((lengths * np.log(lengths + 2)) @ counts / num_residues),
            num_letters=self._num_letters,
            num_residues=num_residues,
        )


def head_statistics(weights: Tensor) -> Tensor:
    """Sum the statistics of each head over the residues of one protein.

    The entropy (nats) and the fractions on the residue itself, its two neighbours, `<cls>` and `<eos>` are over all
    tokens that a residue attends to; the mean distance (residues) is over the residues among them.

    Args:
        weights: Attention weights with special tokens, (head, length, length), on the CPU; rows sum to one.

    Returns:
        Sums in the order of `STATISTICS`, (statistics, head), float64.
    """
    return torch.stack([_statistics_of_head(head) for head in weights], dim=1)


def _statistics_of_head(weights: Tensor) -> Tensor:
    blocks = weights[1:-1].split(_ROWS_PER_BLOCK)  # attention of residues
    values = [_row_statistics(rows, number * _ROWS_PER_BLOCK) for number, rows in enumerate(blocks)]
    return torch.cat(values, dim=1).sum(-1, dtype=torch.float64)


def _row_statistics(rows: Tensor, start: int) -> Tensor:
    """Compute the statistics, (statistics, rows), of a block of residues from `start` on, (rows, length)."""
    to_residues = rows[:, 1:-1]  # (rows, residues)
    positions = torch.arange(to_residues.shape[-1])
    distance = (positions[start : start + len(rows), None] - positions).abs()
    on_residues = to_residues.sum(-1).clamp(min=torch.finfo(rows.dtype).tiny)
    per_residue = (
        torch.special.entr(rows).sum(-1),
        (to_residues * distance).sum(-1) / on_residues,
        to_residues.diagonal(start),
        (to_residues * (distance == 1)).sum(-1),
        rows[:, 0],
        rows[:, -1],
    )
    return torch.stack(per_residue)


def amino_acid_fractions(weights: Tensor, tokens: Tensor) -> Tensor:
    """Sum the attention from residues to each standard amino acid of one protein, for each head.

    Args:
        weights: Attention weights with special tokens, (head, length, length), on the CPU.
        tokens: Token ids, (length,), int64.

    Returns:
        Sums in the order of the alphabet, (20, head), float64.
    """
    # torch converts the summed array to float64 first, which for a whole layer would be as large as two layers.
    sums = ((rows.sum(0, dtype=torch.float64) for rows in head[1:-1].split(_ROWS_PER_BLOCK)) for head in weights)
    received = torch.stack([torch.stack([*blocks]).sum(0) for blocks in sums])  # (head, length)
    is_amino_acid = tokens[:, None] == torch.arange(AMINO_ACID_IDS.start, AMINO_ACID_IDS.stop)  # (length, 20)
    return is_amino_acid.T.to(torch.float64) @ received.T


def offset_sums(weights: Tensor) -> Tensor:
    """Sum the attention from residues to the residue at each of `OFFSETS` of one protein, for each head.

    Args:
        weights: Attention weights with special tokens, (head, length, length), on the CPU.

    Returns:
        Sums in the order of `OFFSETS`, (offsets, head), float64; zero where the protein is too short.
    """
    maps = weights[:, 1:-1, 1:-1]  # (head, residues, residues)
    num_residues = maps.shape[-1]
    sums = torch.zeros(len(OFFSETS), len(maps), dtype=torch.float64)
    for number, offset in enumerate(OFFSETS):
        if abs(offset) < num_residues:
            sums[number] = maps.diagonal(offset, 1, 2).sum(1, dtype=torch.float64)
    return sums
