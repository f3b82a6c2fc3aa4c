"""Similarity of sequences, estimated from the 5-mers that they share; neighbours and clusters by it."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protembed.data.alphabet import NUM_AMINO_ACIDS
from protembed.data.hashing import kmer_indices

_K = 5
_NUM_KMERS = NUM_AMINO_ACIDS**_K
# The 5-mers that two unrelated proteins share: a few in repeats and low-complexity regions, and twice the number that
# equally frequent amino acids would share by chance. Among k from 4 to 6, and none to six shared k-mers, these values
# separate proteins of one 50 % cluster best from others: 94 % of them are nearer to each other than 98 % of proteins
# are to the nearest unrelated one (benchmarks/README.md).
_SHARED_BY_ANY, _SHARED_BY_CHANCE = 4.0, 2.0 / _NUM_KMERS
# Largest number of pairs of proteins that are compared at once, a bound on memory.
_MAX_PAIRS = 1 << 23

# (sequences, k-mers), float32 ones; scipy has no types.
KmerSets: TypeAlias = Any


def kmer_set(sequence: str) -> NDArray[np.int32]:
    """Find the 5-mers of standard residues in a sequence, each once, in ascending order, (5-mers,)."""
    return np.unique(kmer_indices(sequence, _K)).astype(np.int32)


def stack_kmer_sets(sets: Sequence[NDArray[np.int32]]) -> KmerSets:
    """Make one matrix of the 5-mers of several sequences, as `kmer_sets` does."""
    from scipy import sparse  # here, because it takes long to import

    ends = np.cumsum([0, *map(len, sets)])
    columns = np.concatenate([np.zeros(0, np.int32), *sets])
    return sparse.csr_array((np.ones(len(columns), np.float32), columns, ends), shape=(len(sets), _NUM_KMERS))


def kmer_sets(sequences: Sequence[str]) -> KmerSets:
    """Find the 5-mers of standard residues in each sequence.

    Returns:
        A sparse matrix with a one for each 5-mer that a sequence has, (sequences, 3,200,000), float32.
    """
    return stack_kmer_sets([kmer_set(sequence) for sequence in sequences])


def _estimate(
    shared: NDArray[np.floating], left: NDArray[np.float64], right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Estimate similarities from the number of shared 5-mers and those of each sequence, of shapes that broadcast."""
    unrelated = _SHARED_BY_ANY + _SHARED_BY_CHANCE * (left * right)
    smaller = np.minimum(left, right)
    fraction = (shared - unrelated) / np.maximum(smaller - unrelated, 1.0)
    return np.asarray(np.clip(fraction, 0.0, 1.0) ** (1 / _K))


def _sizes(sets: KmerSets) -> NDArray[np.float64]:
    sizes: NDArray[np.float64] = np.diff(sets.indptr).astype(np.float64)
    return sizes


def _similarities(left: KmerSets, right: KmerSets) -> NDArray[np.float64]:
    """Estimate the similarity of every pair, (left, right), float64."""
    return _estimate((left @ right.T).toarray(), _sizes(left)[:, None], _sizes(right)[None])


def pair_similarities(left: KmerSets, right: KmerSets) -> NDArray[np.float64]:
    """Estimate the similarity of each sequence to the one in the same row of another matrix, (sequences,), float64.

    It is that of `nearest`, except that equal sequences of too few 5-mers are not recognised.
    """
    return _estimate(left.multiply(right).sum(1), _sizes(left), _sizes(right))


def _blocks(sets: KmerSets, num_others: int, block_size: int) -> Iterator[tuple[range, KmerSets]]:
    size = max(1, min(block_size, _MAX_PAIRS // max(1, num_others)))
    for start in range(0, sets.shape[0], size):
        rows = range(start, min(start + size, sets.shape[0]))
        yield rows, sets[rows.start : rows.stop]


def nearest_sets(
    queries: KmerSets,
    references: KmerSets,
    *,
    groups: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    block_size: int = 512,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the most similar reference of each query by their 5-mers.

    Args:
        queries: 5-mers of the queries, from `kmer_sets`.
        references: Those of the references, at least one.
        groups: Group of each query, (queries,), and of each reference, (references,), int64: references of a query's
            own group do not count. None if there are no groups.
        block_size: Largest number of queries that are compared at once; it changes nothing in the result.

    Returns:
        The index of the reference, (queries,), int64, and its similarity, (queries,), float64, as in `nearest`; -1
        where no reference counts.
    """
    indices, similarities = np.zeros(queries.shape[0], np.int64), np.zeros(queries.shape[0])
    for rows, sets in _blocks(queries, references.shape[0], block_size):
        similarity = _similarities(sets, references)
        if groups is not None:
            similarity[groups[0][rows][:, None] == groups[1]] = -1.0
        indices[rows] = similarity.argmax(1)
        similarities[rows] = similarity.max(1)
    return indices, similarities


def nearest(
    queries: Sequence[str], references: Sequence[str], *, block_size: int = 512
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the most similar reference of each query.

    Args:
        queries: Amino-acid sequences, upper case.
        references: Amino-acid sequences, upper case, at least one.
        block_size: Largest number of queries that are compared at once; it changes nothing in the result.

    Returns:
        The index of the reference, (queries,), int64, and its similarity, (queries,), float64: an estimate of the
        fraction of identical residues, from 0 (no more common 5-mers than unrelated proteins have) to 1.

    Source: Ondov et al. 2016, "Mash", for estimating identity from the fraction of common k-mers; here it is the
    fraction of the shorter protein's k-mers, so that a fragment has similarity 1 to the whole protein.
    """
    indices, similarities = nearest_sets(kmer_sets(queries), kmer_sets(references), block_size=block_size)
    index_of = {sequence: index for index, sequence in reversed(list(enumerate(references)))}
    for row, query in enumerate(queries):
        if query in index_of:
            indices[row], similarities[row] = index_of[query], 1.0
    return indices, similarities


def greedy_clusters(sequences: Sequence[str], min_similarity: float, *, block_size: int = 512) -> list[str]:
    """Cluster similar sequences: the longest first, each with its most similar representative, or as a new one.

    Args:
        sequences: Amino-acid sequences, upper case.
        min_similarity: Smallest similarity of a member to its representative, as `nearest` estimates it.
        block_size: Largest number of sequences that are compared at once; it changes nothing in the result.

    Returns:
        The representative of each sequence; it does not depend on the order of the sequences.

    Source: Li and Godzik 2006, "CD-HIT", for the order.
    """
    unique = sorted(set(sequences), key=lambda sequence: (-len(sequence), sequence))
    sets, representatives, representative_of = kmer_sets(unique), list[int](), dict[str, str]()
    for rows, block in _blocks(sets, len(unique), block_size):
        to_earlier = _similarities(block, sets[representatives]) if representatives else np.zeros((len(rows), 0))
        within = _similarities(block, block)
        new = list[int]()  # representatives in this block, as its rows
        for row, index in enumerate(rows):
            similarity = np.concatenate([to_earlier[row], within[row, new]])
            if len(similarity) and similarity.max() >= min_similarity:
                candidates = [*representatives, *(rows[new_row] for new_row in new)]
                representative_of[unique[index]] = unique[candidates[int(similarity.argmax())]]
            else:
                representative_of[unique[index]] = unique[index]
                new.append(row)
        representatives += [rows[row] for row in new]
    return [representative_of[sequence] for sequence in sequences]
