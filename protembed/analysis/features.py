"""What can be counted in a sequence without any model: composition, k-mers, and the letters around a residue."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from protembed.data.alphabet import FIRST_AMINO_ACID, NUM_AMINO_ACIDS, encode
from protembed.training.linear import Vectors

LONGEST_KMER = 3
# Residues on both sides of one: 15 positions, as secondary structure was predicted before there were language models.
WINDOW_SIDE = 7

# What is no standard amino acid, and what is no residue at all.
_OTHER, _OUTSIDE = NUM_AMINO_ACIDS, NUM_AMINO_ACIDS + 1
_NUM_LETTERS = NUM_AMINO_ACIDS + 2


def composition(sequences: Sequence[str]) -> NDArray[np.float32]:
    """Compute the share of each standard amino acid, (sequences, 20)."""
    counts = np.stack([np.bincount(_letters(sequence), minlength=_NUM_LETTERS) for sequence in sequences])
    shares: NDArray[np.float32] = (counts[:, :NUM_AMINO_ACIDS] / counts.sum(1, keepdims=True)).astype(np.float32)
    return shares


def kmer_counter(sequences: Sequence[str]) -> TfidfVectorizer:
    """Learn which runs of one to three residues there are, and how rare each is; its `transform` counts them."""
    vectorizer = TfidfVectorizer(
        analyzer="char", ngram_range=(1, LONGEST_KMER), lowercase=False, sublinear_tf=True, dtype=np.float32
    )
    return vectorizer.fit(sequences)


def letters_around(sequence: str, places: NDArray[np.int64]) -> Vectors:
    """Write out the letters around some residues of a protein.

    Args:
        sequence: upper-case residues.
        places: (n,), of the residues, from 0.

    Returns:
        (n, 15 · 22), sparse ones: at each of 15 positions one of 20 amino acids, any other, or none.
    """
    padded = np.pad(_letters(sequence), WINDOW_SIDE, constant_values=_OUTSIDE)
    width = 2 * WINDOW_SIDE + 1
    letters = padded[places[:, None] + np.arange(width)]  # (n, 15)
    columns = (letters + np.arange(width) * _NUM_LETTERS).ravel()
    ends = np.arange(len(places) + 1) * width
    shape = (len(places), width * _NUM_LETTERS)
    return sparse.csr_array((np.ones(len(columns), np.float32), columns, ends), shape=shape)


def _letters(sequence: str) -> NDArray[np.int64]:
    """Number the residues of a sequence, (residues,), from 0 to 19, and 20 for all others."""
    return np.minimum(encode(sequence).astype(np.int64) - FIRST_AMINO_ACID, _OTHER)
