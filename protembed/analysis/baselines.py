"""What a model must beat: the amino acids' frequencies, and those after their left neighbour."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.data.alphabet import AMINO_ACID_IDS, FIRST_AMINO_ACID, NUM_AMINO_ACIDS
from protembed.data.batching import MaskedBatch
from protembed.data.corpus import Corpus

# A pair of residues is as well known as its counts and so many more of the plain composition allow.
_PRIOR_COUNT = 20.0


class Composition:
    """How often each amino acid, and each pair of neighbours, occurs in a corpus.

    Args:
        corpus: the training proteins.

    Attributes:
        unigram: (20,), float64 probabilities in the order of the alphabet, each counted once more than it occurs.
        bigram: (20, 20), float64 probabilities of the second residue after the first.
    """

    def __init__(self, corpus: Corpus) -> None:
        singles = np.ones(NUM_AMINO_ACIDS)
        pairs = np.zeros((NUM_AMINO_ACIDS, NUM_AMINO_ACIDS))
        for row in range(len(corpus)):
            classes = corpus[row].astype(np.int64) - FIRST_AMINO_ACID
            singles += np.bincount(classes[_is_class(classes)], minlength=NUM_AMINO_ACIDS)
            both = _is_class(classes[:-1]) & _is_class(classes[1:])
            flat = classes[:-1][both] * NUM_AMINO_ACIDS + classes[1:][both]
            pairs += np.bincount(flat, minlength=NUM_AMINO_ACIDS**2).reshape(pairs.shape)
        self.unigram = singles / singles.sum()
        self.bigram = (pairs + _PRIOR_COUNT * self.unigram) / (pairs.sum(1, keepdims=True) + _PRIOR_COUNT)

    def losses(self, batches: list[MaskedBatch]) -> dict[str, float]:
        """Measure both models on hidden residues, as mean nats per residue.

        The bigram model falls back to the unigram where the left neighbour is hidden, non-standard or absent.
        """
        unigram, bigram = torch.from_numpy(self.unigram).log(), torch.from_numpy(self.bigram).log()
        sums, count = {"unigram_loss": 0.0, "bigram_loss": 0.0}, 0
        for batch in batches:
            targets, left = batch.targets - FIRST_AMINO_ACID, _left_neighbours(batch)
            knows_left = (left >= 0) & (left < NUM_AMINO_ACIDS)
            single = unigram[targets]
            paired = bigram[left.clamp(0, NUM_AMINO_ACIDS - 1), targets]
            sums["unigram_loss"] -= single.sum().item()
            sums["bigram_loss"] -= torch.where(knows_left, paired, single).sum().item()
            count += len(targets)
        return {name: value / count for name, value in sums.items()}


def _left_neighbours(batch: MaskedBatch) -> Tensor:
    """Look up the shown residue to the left of each hidden one as a class, (masked,); -1 at the start of a crop."""
    starts_crop = torch.isin(batch.positions, batch.offsets)
    left = batch.tokens[(batch.positions - 1).clamp(min=0)] - AMINO_ACID_IDS.start
    return left.masked_fill(starts_crop, -1)


def _is_class(classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    return (classes >= 0) & (classes < NUM_AMINO_ACIDS)
