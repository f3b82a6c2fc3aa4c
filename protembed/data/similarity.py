"""How similar proteins are, by the k-mers that they share: nearest neighbours, and greedy clusters."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protembed.data.alphabet import NUM_AMINO_ACIDS
from protembed.data.hashing import kmer_numbers

_K = 5
_NUM_KMERS = NUM_AMINO_ACIDS**_K
# What two unrelated proteins share: a few by repeats and simple stretches, and twice what equally frequent amino acids
# would give by chance. Of 4, 5 and 6, and of none to six, these told proteins of one 50 % cluster best from others:
# 94 % of them are nearer than the nearest stranger of 98 % of the proteins (benchmarks/README.md).
_SHARED_BY_ANY, _SHARED_BY_CHANCE = 4.0, 2.0 / _NUM_KMERS
# One substitution in the middle of a shorter one leaves so few 5-mers alike that it looks like a stranger's.
SHORTEST_COMPARED = 30
# Proteins compared at once: no more than so many pairs are held.
_MOST_PAIRS, _MOST_AT_ONCE = 1 << 23, 512

# (sequences, k-mers), float32 ones; scipy has no types.
KmerSets: TypeAlias = Any


def kmer_sets(sequences: Sequence[str]) -> KmerSets:
    """Note which 5-mers of standard residues occur in each sequence.

    Returns:
        (sequences, 3,200,000), float32 ones.
    """
    sets = [np.unique(kmer_numbers(sequence, _K)) for sequence in sequences]
    ends = np.cumsum([0, *map(len, sets)])
    columns = np.concatenate([np.zeros(0, np.int64), *sets])
    return sparse.csr_array((np.ones(len(columns), np.float32), columns, ends), shape=(len(sets), _NUM_KMERS))


def nearest(queries: Sequence[str], references: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the most similar reference of each query.

    Args:
        queries: upper-case sequences.
        references: upper-case sequences, at least one.

    Returns:
        The number of the reference, (queries,), and how similar it is, (queries,): an estimate of the share of
        identical residues, from 0 (no more 5-mers in common than strangers have) to 1.

    Source: Ondov et al. 2016, "Mash", for reading an identity off the share of common k-mers; here the share is of the
    shorter protein's, so that a fragment is as similar as can be to the whole.
    """
    numbers, similarities = np.zeros(len(queries), np.int64), np.zeros(len(queries))
    known = kmer_sets(references)
    for rows, part in _parts(kmer_sets(queries), len(references)):
        similarity = _similarities(part, known)
        numbers[rows] = similarity.argmax(1)
        similarities[rows] = similarity.max(1)
    same = {sequence: number for number, sequence in reversed(list(enumerate(references)))}
    for number, query in enumerate(queries):
        if query in same:
            numbers[number], similarities[number] = same[query], 1.0
    return numbers, similarities


def greedy_clusters(sequences: Sequence[str], min_similarity: float) -> list[str]:
    """Group similar sequences: the longest first, each with the most similar representative so far, or as a new one.

    Args:
        sequences: upper-case.
        min_similarity: to a representative, as `nearest` measures it.

    Returns:
        The representative of each sequence; it does not depend on the order of the sequences.

    Source: Li and Godzik 2006, "CD-HIT", for the order.
    """
    unique = sorted(set(sequences), key=lambda sequence: (-len(sequence), sequence))
    sets, representatives, chosen = kmer_sets(unique), list[int](), dict[str, str]()
    for rows, part in _parts(sets, len(unique)):
        known = _similarities(part, sets[representatives]) if representatives else np.zeros((len(rows), 0))
        among = _similarities(part, part)
        new = list[int]()
        for place, number in enumerate(rows):
            similarity = np.concatenate([known[place], among[place, new]])
            if len(similarity) and similarity.max() >= min_similarity:
                members = [*representatives, *(rows[other] for other in new)]
                chosen[unique[number]] = unique[members[int(similarity.argmax())]]
            else:
                chosen[unique[number]] = unique[number]
                new.append(place)
        representatives += [rows[place] for place in new]
    return [chosen[sequence] for sequence in sequences]


def _parts(sets: KmerSets, num_others: int) -> Iterator[tuple[range, KmerSets]]:
    at_once = max(1, min(_MOST_AT_ONCE, _MOST_PAIRS // max(1, num_others)))
    for start in range(0, sets.shape[0], at_once):
        rows = range(start, min(start + at_once, sets.shape[0]))
        yield rows, sets[rows.start : rows.stop]


def _similarities(left: KmerSets, right: KmerSets) -> NDArray[np.float64]:
    """Compare every sequence with every other, (left, right)."""
    shared = (left @ right.T).toarray()
    sizes_left, sizes_right = (np.diff(sets.indptr).astype(np.float64) for sets in (left, right))
    for_nothing = _SHARED_BY_ANY + _SHARED_BY_CHANCE * np.outer(sizes_left, sizes_right)
    smaller = np.minimum.outer(sizes_left, sizes_right)
    share = (shared - for_nothing) / np.maximum(smaller - for_nothing, 1.0)
    return np.asarray(np.clip(share, 0.0, 1.0) ** (1 / _K))
