"""Hashes of sequences and of their k-mers, the same in every file, run and tool."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.config.finetune import MAX_TRAINING_KMERS
from protembed.data.alphabet import FIRST_AMINO_ACID, NUM_AMINO_ACIDS, encode

_MIN_KMER_LENGTH = 5
# The largest accepted chance that a protein unrelated to the sampled ones, of their median length and with equally
# frequent amino acids, shares a k-mer with them.
_MAX_CHANCE_MATCHES = 0.01


def sequence_sha256(sequence: str) -> bytes:
    """Hash a sequence of letters.

    >>> sequence_sha256("MKT").hex()[:8]
    '366893d2'
    """
    return hashlib.sha256(sequence.encode()).digest()


def hash_texts(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Hash each text to 64 bits, (texts,)."""
    return np.frombuffer(b"".join([sequence_sha256(text)[:8] for text in texts]), np.uint64)


def hash_fraction(sequence: str, seed: int = 0) -> float:
    """Map a sequence to a number from 0 to 1, uniformly over proteins; copies of a sequence get the same number."""
    salted = sequence_sha256(f"{sequence}/{seed}" if seed else sequence)
    return int.from_bytes(salted[:8], "big") / 2**64


def kmer_indices(sequence: str, length: int) -> NDArray[np.int64]:
    """Index the k-mers of standard residues in a sequence, one after the other, (k-mers,).

    Each has a number from 0 to 20**length - 1; a length of up to 14 residues fits 64 bits.
    """
    residues = encode(sequence).astype(np.int64) - FIRST_AMINO_ACID
    if len(residues) < length:
        return np.zeros(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(residues, length)
    standard = windows[((windows >= 0) & (windows < NUM_AMINO_ACIDS)).all(1)]
    return np.asarray(standard @ NUM_AMINO_ACIDS ** np.arange(length))


def _kmer_hashes(sequence: str, length: int) -> NDArray[np.int64]:
    """Hash the k-mers of a protein, (k-mers,), from 0 to 2**63 - 1.

    Source: Steele et al. 2014, "Fast splittable pseudorandom number generators", the mixing function of SplitMix64.
    """
    mixed = kmer_indices(sequence, length).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class KmerSample:
    """The k-mers with the lowest hashes among all k-mers of some proteins.

    Attributes:
        length: Length of the k-mers, in residues.
        hashes: Hashes of the k-mers, (k-mers,), int64, ascending.
    """

    length: int
    hashes: NDArray[np.int64]

    @classmethod
    def from_sequences(
        cls, sequences: Sequence[str], *, max_kmers: int = MAX_TRAINING_KMERS, block_size: int = 1000
    ) -> "KmerSample":
        """Sample the k-mers of proteins; the more and the longer the proteins, the longer the k-mers.

        Args:
            sequences: Amino-acid sequences, upper case, at least one.
            max_kmers: Largest number of k-mers in the sample.
            block_size: Number of proteins that are hashed at once; it changes nothing in the result.
        """
        lengths = [len(sequence) for sequence in sequences]
        num_pairs = min(sum(lengths), max_kmers) * float(np.median(lengths))
        length = _MIN_KMER_LENGTH
        while num_pairs > _MAX_CHANCE_MATCHES * NUM_AMINO_ACIDS**length:
            length += 1
        hashes = np.zeros(0, np.int64)
        for start in range(0, len(sequences), block_size):
            new = [_kmer_hashes(sequence, length) for sequence in sequences[start : start + block_size]]
            hashes = np.unique(np.concatenate([hashes, *new]))[:max_kmers]
        return cls(length=length, hashes=hashes)

    def shares_kmer(self, sequence: str) -> bool:
        """Return whether a protein has a k-mer of the sample."""
        hashes = _kmer_hashes(sequence, self.length)
        indices = np.searchsorted(self.hashes, hashes)
        is_within = indices < len(self.hashes)
        return bool((self.hashes[indices[is_within]] == hashes[is_within]).any())
