"""Hashes of sequences and of their k-mers: the same in every file, run and tool."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.config.finetune import MAX_TRAINING_KMERS
from protembed.data.alphabet import FIRST_AMINO_ACID, NUM_AMINO_ACIDS, encode


def sequence_sha256(sequence: str) -> bytes:
    """Hash a sequence of letters.

    >>> sequence_sha256("MKT").hex()[:8]
    '366893d2'
    """
    return hashlib.sha256(sequence.encode()).digest()


def hash_fraction(sequence: str, seed: int = 0) -> float:
    """Map a sequence to a number from 0 to 1, spread evenly over proteins; copies of one are never parted by it.

    Args:
        sequence: of letters.
        seed: another one spreads the same proteins anew.
    """
    salted = sequence_sha256(f"{sequence}/{seed}" if seed else sequence)
    return int.from_bytes(salted[:8], "big") / 2**64


_SHORTEST = 5
# Of unrelated proteins, as long as the median and with equally frequent amino acids, this share would seem related.
_CHANCE = 0.01
_PROTEINS_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class KmerSample:
    """The k-mers with the lowest hashes.

    Attributes:
        length: The length of the k-mers, in residues.
        hashes: (k-mers,), int64, ascending.
    """

    length: int
    hashes: NDArray[np.int64]

    @classmethod
    def from_sequences(cls, sequences: Sequence[str]) -> "KmerSample":
        """Sample the k-mers of proteins; the more and the longer they are, the longer the k-mers.

        Args:
            sequences: Upper-case residues, one sequence at least.
        """
        lengths = [len(sequence) for sequence in sequences]
        num_pairs = min(sum(lengths), MAX_TRAINING_KMERS) * float(np.median(lengths))
        length = _SHORTEST
        while num_pairs > _CHANCE * NUM_AMINO_ACIDS**length:
            length += 1
        hashes = np.zeros(0, np.int64)
        for part in _parts(sequences):
            known = [_hashes(sequence, length) for sequence in part]
            hashes = np.unique(np.concatenate([hashes, *known]))[:MAX_TRAINING_KMERS]
        return cls(length=length, hashes=hashes)

    def shares_kmer(self, sequence: str) -> bool:
        """Return whether a protein has a k-mer of the sample."""
        hashes = _hashes(sequence, self.length)
        places = np.searchsorted(self.hashes, hashes)
        is_within = places < len(self.hashes)
        return bool((self.hashes[places[is_within]] == hashes[is_within]).any())


def _parts(sequences: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(sequences), _PROTEINS_AT_ONCE):
        yield sequences[start : start + _PROTEINS_AT_ONCE]


def _hashes(sequence: str, length: int) -> NDArray[np.int64]:
    """Hash the k-mers of a protein, (k-mers,), from 0 to 2**63 - 1.

    Source: Steele et al. 2014, "Fast splittable pseudorandom number generators", the mixing function of SplitMix64.
    """
    mixed = kmer_indices(sequence, length).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


def kmer_indices(sequence: str, length: int) -> NDArray[np.int64]:
    """Number the k-mers of standard residues in a sequence, one after the other.

    Args:
        sequence: Upper-case residues.
        length: The length of a k-mer, up to 14 residues.

    Returns:
        A number from 0 to 20**length - 1 for each, (k-mers,).
    """
    residues = encode(sequence).astype(np.int64) - FIRST_AMINO_ACID
    if len(residues) < length:
        return np.zeros(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(residues, length)
    standard = windows[((windows >= 0) & (windows < NUM_AMINO_ACIDS)).all(1)]
    return np.asarray(standard @ NUM_AMINO_ACIDS ** np.arange(length))
