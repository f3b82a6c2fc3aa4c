"""Zero-shot scores of variants: the likelihood of the mutated residues relative to those of the wild type.

Source: Meier et al. 2021, "Language models enable zero-shot prediction of the effects of mutations on protein
function", section 3; the formulas are in `protembed.config.score`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import tee

import numpy as np

from protembed.config.score import ScoreMethod
from protembed.data.alphabet import AMINO_ACIDS, FIRST_AMINO_ACID, encode
from protembed.inference.engine import Engine, InferenceJob
from protembed.inference.marginals import LogProbabilities, Marginals, PositionQuery
from protembed.scoring.positions import MutatedPositions
from protembed.scoring.variants import Variant

_COLUMN = {letter: column for column, letter in enumerate(AMINO_ACIDS)}


def _queries(mutated: MutatedPositions) -> Iterator[PositionQuery]:
    """Make a query for the mutated positions of each wild type."""
    for sequence, positions in mutated.positions.items():
        yield PositionQuery(residues=encode(sequence), positions=np.array(sorted(positions), dtype=np.int64) - 1)


@dataclass(frozen=True, kw_only=True)
class VariantScorer:
    """Scores variants by one of three methods; higher is likelier, and the wild type has 0.

    Attributes:
        mutated: Positions of all variants that will be scored.
        on_crop: Called with the number of tokens of each protein or window that the model has computed.
    """

    marginals: Marginals
    method: ScoreMethod
    mutated: MutatedPositions
    on_crop: Callable[[int], None] = lambda num_tokens: None

    def num_tokens(self) -> int:
        """Count the tokens that the model has to compute."""
        if self.method != "pseudo-perplexity":
            return sum(map(self._job.num_tokens, _queries(self.mutated)))
        return sum(
            (number + 1) * self._job.num_tokens(PositionQuery.amino_acids(sequence))
            for sequence, number in self.mutated.num_variants.items()
            if number
        )

    def scores(self, engine: Engine, variants: Iterable[Variant]) -> Iterator[tuple[Variant, float]]:
        """Score variants that were added to `mutated`, one at a time; yield each with its score, in nats."""
        if self.method == "pseudo-perplexity":
            return self._pseudo_perplexity(engine, variants)
        return self._marginals(engine, variants)

    @property
    def _job(self) -> InferenceJob[LogProbabilities]:
        return self.marginals.unmasked() if self.method == "wildtype-marginals" else self.marginals.masked()

    def _marginals(self, engine: Engine, variants: Iterable[Variant]) -> Iterator[tuple[Variant, float]]:
        rows: dict[tuple[str, int], LogProbabilities] = {}
        computed = engine.run(self._job, _queries(self.mutated), self.on_crop)
        for wild_type, (query, log_probs) in zip(self.mutated.positions, computed, strict=True):
            for index, row in zip(query.positions.tolist(), log_probs, strict=True):
                rows[wild_type, index + 1] = row
        for variant in variants:
            score = 0.0
            for mutation in variant.mutations:
                row = rows[variant.wild_type, mutation.position]
                score += float(row[_COLUMN[mutation.mutant]]) - float(row[_COLUMN[mutation.wild_type]])
            yield variant, score

    def _pseudo_perplexity(self, engine: Engine, variants: Iterable[Variant]) -> Iterator[tuple[Variant, float]]:
        wild_types = [sequence for sequence, number in self.mutated.num_variants.items() if number]
        references = dict(zip(wild_types, self._likelihoods(engine, wild_types), strict=True))
        asked, scored = tee(variants)
        sequences = (variant.sequence if variant.mutations else "" for variant in asked)  # a wild type is not computed
        for variant, likelihood in zip(scored, self._likelihoods(engine, sequences), strict=True):
            yield variant, likelihood - references[variant.wild_type] if variant.mutations else 0.0

    def _likelihoods(self, engine: Engine, sequences: Iterable[str]) -> Iterator[float]:
        """Sum the log probabilities of the residues that each protein has, in nats."""
        for query, log_probs in engine.run(self._job, map(PositionQuery.amino_acids, sequences), self.on_crop):
            columns = query.residues[query.positions] - FIRST_AMINO_ACID
            yield float(log_probs[np.arange(len(columns)), columns].sum(dtype=np.float64))
