"""Zero-shot scores of variants: the likelihood of the mutated residues relative to those of the wild type.

Source: Meier et al. 2021, "Language models enable zero-shot prediction of the effects of mutations on protein
function", section 3; the formulas are in `protembed.config.score`.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protembed.config.score import ScoreMethod
from protembed.data.alphabet import AMINO_ACIDS, FIRST_AMINO_ACID, encode
from protembed.inference.engine import Engine
from protembed.inference.marginals import LogProbabilities, Marginals, PositionQuery
from protembed.scoring.variants import Variant

_COLUMN = {letter: column for column, letter in enumerate(AMINO_ACIDS)}


@dataclass(kw_only=True)
class MutatedPositions:
    """The mutated positions of each wild type; complete once `add` has read all variants.

    Attributes:
        positions: Mutated positions of each wild type, from 1.
        num_variants: Number of variants of each wild type that have a mutation.
    """

    positions: dict[str, set[int]] = field(default_factory=dict)
    num_variants: Counter[str] = field(default_factory=Counter)

    def add(self, variants: Iterable[Variant]) -> None:
        """Collect the positions of variants; only wild types and positions are kept in memory."""
        for variant in variants:
            positions = self.positions.setdefault(variant.wild_type, set())
            positions.update(mutation.position for mutation in variant.mutations)
            self.num_variants[variant.wild_type] += bool(variant.mutations)

    @property
    def num_positions(self) -> int:
        """Number of mutated positions of all wild types."""
        return sum(map(len, self.positions.values()))

    def queries(self) -> Iterator[PositionQuery]:
        """Make a query for the mutated positions of each wild type that has any."""
        for sequence, positions in self.positions.items():
            if positions:
                yield PositionQuery(sequence=sequence, positions=np.array(sorted(positions), dtype=np.int64) - 1)


def pseudo_log_likelihood(query: PositionQuery, log_probabilities: LogProbabilities) -> float:
    """Sum the log probabilities of the residues that a protein has, in nats.

    Args:
        query: Protein and its positions.
        log_probabilities: Log probabilities of the 20 amino acids at these positions, (positions, 20), float32.
    """
    columns = encode(query.sequence)[query.positions] - FIRST_AMINO_ACID
    return float(log_probabilities[np.arange(len(columns)), columns].sum(dtype=np.float64))


class _WildTypeLogProbs:
    """The log probabilities of a wild type at its mutated positions."""

    def __init__(self, query: PositionQuery, log_probabilities: LogProbabilities) -> None:
        self._rows: Mapping[int, NDArray[np.float32]] = dict(
            zip(query.positions.tolist(), log_probabilities, strict=True)
        )

    def score(self, variant: Variant) -> float:
        """Sum log p(mutant) - log p(wild type) over a variant's positions."""
        return sum(
            float(row[_COLUMN[mutation.mutant]]) - float(row[_COLUMN[mutation.wild_type]])
            for mutation in variant.mutations
            for row in (self._rows[mutation.position - 1],)
        )


@dataclass(frozen=True, kw_only=True)
class VariantScorer:
    """Scores variants by one of three methods; higher is likelier, and the wild type has 0.

    Attributes:
        marginals: The model's log probabilities of amino acids.
        mutated: Positions of all variants that will be scored.
    """

    marginals: Marginals
    method: ScoreMethod
    mutated: MutatedPositions

    def num_tokens(self) -> int:
        """Count the tokens that the model has to compute."""
        if self.method != "pseudo-perplexity":
            is_masked = self.method == "masked-marginals"
            return sum(self.marginals.num_tokens(query, masked=is_masked) for query in self.mutated.queries())
        return sum(
            (self.mutated.num_variants[query.sequence] + 1)
            * self.marginals.num_tokens(PositionQuery.all_positions(query.sequence), masked=True)
            for query in self.mutated.queries()
        )

    def scores(self, engine: Engine, variants: Iterable[Variant]) -> Iterator[tuple[Variant, float]]:
        """Score variants in their order.

        Args:
            engine: Engine that runs the model.
            variants: Variants, all of which were added to `mutated`; consumed one at a time.

        Yields:
            Each variant and its score, in nats.
        """
        if self.method == "pseudo-perplexity":
            return self._pseudo_perplexity(engine, variants)
        return self._marginals(engine, variants)

    def _marginals(self, engine: Engine, variants: Iterable[Variant]) -> Iterator[tuple[Variant, float]]:
        ask = (
            self.marginals.masked_log_probs if self.method == "masked-marginals" else self.marginals.unmasked_log_probs
        )
        tables = {
            query.sequence: _WildTypeLogProbs(query, found) for query, found in ask(engine, self.mutated.queries())
        }
        for variant in variants:
            yield variant, tables[variant.wild_type].score(variant) if variant.mutations else 0.0

    def _pseudo_perplexity(self, engine: Engine, variants: Iterable[Variant]) -> Iterator[tuple[Variant, float]]:
        wild_types = (PositionQuery.all_positions(query.sequence) for query in self.mutated.queries())
        references = {
            query.sequence: pseudo_log_likelihood(query, found)
            for query, found in self.marginals.masked_log_probs(engine, wild_types)
        }
        waiting = deque[Variant]()

        def mutated() -> Iterator[PositionQuery]:
            for variant in variants:
                waiting.append(variant)
                if variant.mutations:
                    yield PositionQuery.all_positions(variant.sequence)

        for query, found in self.marginals.masked_log_probs(engine, mutated()):
            while not waiting[0].mutations:
                yield waiting.popleft(), 0.0
            variant = waiting.popleft()
            yield variant, pseudo_log_likelihood(query, found) - references[variant.wild_type]
        for variant in waiting:
            yield variant, 0.0
