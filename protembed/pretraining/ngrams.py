"""Unigram and bigram models of a corpus, the baselines of pretraining."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.data.alphabet import AMINO_ACID_IDS, CLS, FIRST_AMINO_ACID, NUM_AMINO_ACIDS, TOKENS
from protembed.data.batching import MaskedBatch
from protembed.pretraining.corpus import Corpus

# Pseudocounts of the pairs that begin with each residue, distributed by the unigram probabilities.
_PRIOR_COUNT = 20.0
_RESIDUES_PER_BLOCK = 1 << 22


class NgramModel:
    """Probabilities of each amino acid, and of each amino acid after its left neighbour, in a corpus.

    They do not depend on the number of residues that are counted at once.

    Attributes:
        unigram: (20,), float64; probabilities in the order of the alphabet, with one pseudocount each.
        bigram: (20, 20), float64; probabilities of the second residue given the first.
    """

    def __init__(self, corpus: Corpus, *, residues_per_block: int = _RESIDUES_PER_BLOCK) -> None:
        singles, pairs = _count(corpus, residues_per_block)
        singles = singles[AMINO_ACID_IDS] + 1
        pairs = pairs[AMINO_ACID_IDS, AMINO_ACID_IDS]
        self.unigram = singles / singles.sum()
        self.bigram = (pairs + _PRIOR_COUNT * self.unigram) / (pairs.sum(1, keepdims=True) + _PRIOR_COUNT)

    def nats(self, batch: MaskedBatch) -> dict[str, Tensor]:
        """Compute the loss of both models on each masked residue of a batch, in nats.

        The bigram model falls back to the unigram if the left neighbour is masked, non-standard or absent.

        Returns:
            Losses of `unigram` and `bigram`, (masked,), float64.
        """
        unigram, bigram = torch.from_numpy(self.unigram).log(), torch.from_numpy(self.bigram).log()
        targets, left = batch.targets - FIRST_AMINO_ACID, _left_neighbours(batch)
        has_left = (left >= 0) & (left < NUM_AMINO_ACIDS)
        single = unigram[targets]
        paired = bigram[left.clamp(0, NUM_AMINO_ACIDS - 1), targets]
        return {"unigram": -single, "bigram": -torch.where(has_left, paired, single)}

    def losses(self, batches: Sequence[MaskedBatch]) -> dict[str, float]:
        """Compute the mean loss of both models over all masked residues, in nats per residue."""
        nats = [self.nats(batch) for batch in batches]
        return {name: torch.cat([values[name] for values in nats]).mean().item() for name in ("unigram", "bigram")}


def _count(corpus: Corpus, residues_per_block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the tokens of a corpus, (tokens,), and the pairs of neighbours within a protein, (tokens, tokens)."""
    num_tokens = len(TOKENS)
    singles = np.zeros(num_tokens, np.int64)
    pairs = np.zeros(num_tokens**2, np.int64)
    for start in range(0, corpus.num_residues, residues_per_block):
        tokens = corpus.tokens[start : start + residues_per_block + 1]  # one more, for the pair across the boundary
        singles += np.bincount(tokens[:residues_per_block], minlength=num_tokens)
        left = tokens[:-1].astype(np.uint16)
        first, last = np.searchsorted(corpus.offsets, [start, start + len(left)], side="right")
        left[corpus.offsets[first:last] - start - 1] = CLS  # the last residue of a protein has no right neighbour
        pairs += np.bincount(left * np.uint16(num_tokens) + tokens[1:], minlength=num_tokens**2)
    return singles, pairs.reshape(num_tokens, num_tokens)


def _left_neighbours(batch: MaskedBatch) -> Tensor:
    """Return the class of the residue before each masked one, (masked,); -1 at the start of a crop."""
    starts_crop = torch.isin(batch.positions, batch.offsets)
    left = batch.tokens[(batch.positions - 1).clamp(min=0)] - AMINO_ACID_IDS.start
    return left.masked_fill(starts_crop, -1)
