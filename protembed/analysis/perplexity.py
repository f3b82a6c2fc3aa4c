"""Perplexity on frozen masks, beside what the training composition alone would reach."""

import math
from collections.abc import Sequence

from protembed.analysis.baselines import Composition
from protembed.data.batching import MaskedBatch, validation_packs
from protembed.data.corpus import Corpora
from protembed.device import WorkerPool
from protembed.errors import NothingToMeasureError
from protembed.training.objectives import MaskedLM, evaluate

_LARGEST_EXPONENT = 700.0


def perplexity(loss: float) -> float:
    """Turn mean nats per residue into a perplexity; one that no number can hold is the largest that can be.

    >>> round(perplexity(2.995732), 3)
    20.0
    """
    return math.exp(min(loss, _LARGEST_EXPONENT))


class PerplexityMeter:
    """Measures a masked-LM objective on validation proteins whose hidden residues never change.

    Args:
        corpora: the training proteins, for the baselines, and the validation sets.
        objective: the model, measured as it stands at each call.
        window_residues: longer proteins are cut into windows of this length.
        tokens_per_pack: the most tokens of a pack.
        pool: computes packs side by side.

    Raises:
        NothingToMeasureError: a validation set has no standard residue.

    Attributes:
        unigram_loss: mean nats per hidden residue of the first set, from the training composition.
        bigram_loss: the same, given the left neighbour.
    """

    def __init__(
        self, corpora: Corpora, objective: MaskedLM, window_residues: int, tokens_per_pack: int, pool: WorkerPool
    ) -> None:
        self._objective, self._pool = objective, pool
        self._sets: Sequence[list[MaskedBatch]] = [
            validation_packs(corpus, window_residues, tokens_per_pack) for corpus in corpora.valid
        ]
        if not all(sum(len(pack.targets) for pack in packs) for packs in self._sets):
            raise NothingToMeasureError
        baselines = Composition(corpora.train).losses(self._sets[0])
        self.unigram_loss, self.bigram_loss = baselines["unigram_loss"], baselines["bigram_loss"]

    def measure(self) -> dict[str, float]:
        """Measure the model: loss, perplexity and accuracy on the first set, the loss on each further one."""
        first, *further = (evaluate(self._objective, packs, self._pool) for packs in self._sets)
        loss = first.mean().item()
        return {
            "valid_loss": loss,
            "valid_perplexity": perplexity(loss),
            "valid_accuracy": first.num_correct.item() / first.count,
            "unigram_perplexity": perplexity(self.unigram_loss),
            "bigram_perplexity": perplexity(self.bigram_loss),
            **{f"valid_loss_{number}": part.mean().item() for number, part in enumerate(further, start=2)},
        }
