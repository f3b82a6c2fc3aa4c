"""What a model must beat: the amino acids' frequencies, and those after their left neighbour."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.data.alphabet import AMINO_ACID_IDS, CLS, FIRST_AMINO_ACID, NUM_AMINO_ACIDS, TOKENS
from protembed.data.batching import MaskedBatch
from protembed.pretraining.corpus import Corpus

# A pair of residues is as well known as its counts and so many more of the plain composition allow.
_PRIOR_COUNT = 20.0
_RESIDUES_AT_ONCE = 1 << 22


class NgramModel:
    """How often each amino acid, and each pair of neighbours, occurs in a corpus.

    Args:
        corpus: the training proteins.

    Attributes:
        unigram: (20,), float64 probabilities in the order of the alphabet, each counted once more than it occurs.
        bigram: (20, 20), float64 probabilities of the second residue after the first.
    """

    def __init__(self, corpus: Corpus) -> None:
        singles, pairs = _count(corpus)
        singles = singles[AMINO_ACID_IDS] + 1
        pairs = pairs[AMINO_ACID_IDS, AMINO_ACID_IDS]
        self.unigram = singles / singles.sum()
        self.bigram = (pairs + _PRIOR_COUNT * self.unigram) / (pairs.sum(1, keepdims=True) + _PRIOR_COUNT)

    def nats(self, batch: MaskedBatch) -> dict[str, Tensor]:
        """Measure both models on each hidden residue of a batch, in nats.

        The bigram model falls back to the unigram where the left neighbour is hidden, non-standard or absent.

        Returns:
            (masked,), float64, for `unigram` and for `bigram`.
        """
        unigram, bigram = torch.from_numpy(self.unigram).log(), torch.from_numpy(self.bigram).log()
        targets, left = batch.targets - FIRST_AMINO_ACID, _left_neighbours(batch)
        knows_left = (left >= 0) & (left < NUM_AMINO_ACIDS)
        single = unigram[targets]
        paired = bigram[left.clamp(0, NUM_AMINO_ACIDS - 1), targets]
        return {"unigram": -single, "bigram": -torch.where(knows_left, paired, single)}

    def losses(self, batches: Sequence[MaskedBatch]) -> dict[str, float]:
        """Measure both models on all hidden residues, as mean nats per residue."""
        parts = [self.nats(batch) for batch in batches]
        return {name: torch.cat([part[name] for part in parts]).mean().item() for name in ("unigram", "bigram")}


def _count(corpus: Corpus) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the tokens of a corpus, (tokens,), and the pairs of neighbours within a protein, (tokens, tokens)."""
    num_tokens = len(TOKENS)
    singles = np.zeros(num_tokens, np.int64)
    pairs = np.zeros(num_tokens**2, np.int64)
    for start in range(0, corpus.num_residues, _RESIDUES_AT_ONCE):
        tokens = corpus.tokens[start : start + _RESIDUES_AT_ONCE + 1]  # one more, for the pair across the edge
        singles += np.bincount(tokens[:_RESIDUES_AT_ONCE], minlength=num_tokens)
        left = tokens[:-1].astype(np.uint16)
        first, last = np.searchsorted(corpus.offsets, [start, start + len(left)], side="right")
        left[corpus.offsets[first:last] - start - 1] = CLS  # the last residue of a protein has no right neighbour
        pairs += np.bincount(left * np.uint16(num_tokens) + tokens[1:], minlength=num_tokens**2)
    return singles, pairs.reshape(num_tokens, num_tokens)


def _left_neighbours(batch: MaskedBatch) -> Tensor:
    """Look up the shown residue to the left of each hidden one as a class, (masked,); -1 at the start of a crop."""
    starts_crop = torch.isin(batch.positions, batch.offsets)
    left = batch.tokens[(batch.positions - 1).clamp(min=0)] - AMINO_ACID_IDS.start
    return left.masked_fill(starts_crop, -1)
