"""Zero-shot scores of variants: the likelihood of the mutated residues relative to those of the wild type.

Source: Meier et al. 2021, "Language models enable zero-shot prediction of the effects of mutations on protein
function", section 3; the formulas are in `protembed.config.score`.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from protembed.config.score import ScoreMethod
from protembed.data.alphabet import AMINO_ACIDS, encode
from protembed.inference.engine import Engine, InferenceJob
from protembed.inference.marginals import LogProbabilities, Marginals, PositionQuery
from protembed.scoring.baselines import SubstitutionMeans
from protembed.scoring.positions import MutatedPositions
from protembed.scoring.variants import Variant

_COLUMN = {letter: column for column, letter in enumerate(AMINO_ACIDS)}


def _queries(mutated: MutatedPositions) -> Iterator[PositionQuery]:
    """Make a query for the mutated positions of each wild type."""
    for sequence, positions in mutated.positions.items():
        yield PositionQuery(residues=encode(sequence), positions=np.array(sorted(positions), dtype=np.int64) - 1)


class Likelihood(NamedTuple):
    """A pseudo-log-likelihood, or the difference of two.

    Attributes:
        total: Sum over the residues, nats.
        per_residue: Mean over the residues, nats; the difference of two means for a difference.
    """

    total: float
    per_residue: float

    def minus(self, other: "Likelihood") -> "Likelihood":
        """Subtract a likelihood, by sum and by mean."""
        return Likelihood(self.total - other.total, self.per_residue - other.per_residue)


class Score(NamedTuple):
    """The score of a variant.

    Attributes:
        total: The score, nats; 0 for the wild type.
        per_residue: Difference of the means over the residues, nats, where the score is a difference of
            pseudo-log-likelihoods; NaN for sums over mutated positions.
    """

    total: float
    per_residue: float


@dataclass(frozen=True, kw_only=True)
class VariantScorer:
    """Scores variants by one of three methods; higher is likelier, and the wild type has 0.

    Insertions and deletions have the difference of pseudo-log-likelihoods by every method, because their residues have
    no counterparts in the wild type.

    Attributes:
        mutated: Positions of all variants that will be scored.
        on_crop: Called with the number of tokens of each protein or window that the model has computed.
        means: Collection of the scores of all substitutions at the positions of wild types that the model computes.
    """

    marginals: Marginals
    method: ScoreMethod
    mutated: MutatedPositions
    on_crop: Callable[[int], None] = lambda num_tokens: None
    means: SubstitutionMeans = field(default_factory=SubstitutionMeans)

    def num_tokens(self) -> int:
        """Count the tokens that the model has to compute."""
        if self._is_by_position:
            num_tokens = sum(map(self._position_job.num_tokens, _queries(self.mutated)))
        else:
            num_tokens = sum(
                number * self._num_tokens(sequence) for sequence, number in self.mutated.num_variants.items()
            )
        shifted = self.mutated.shifted_lengths.items()
        num_tokens += sum(number * self._num_tokens(AMINO_ACIDS[0] * length) for (_, length), number in shifted)
        return num_tokens + sum(map(self._num_tokens, self._references()))

    def scores(self, engine: Engine, variants: Iterable[Variant]) -> Iterator[tuple[Variant, Score]]:
        """Score variants that were added to `mutated`, one at a time; yield each with its score, in nats.

        Args:
            engine: Engine that computes.
            variants: Variants, which can be read more than once.
        """
        rows = self._rows(engine) if self._is_by_position else {}
        references = self._reference_likelihoods(engine)
        sequences = (variant.sequence for variant in variants if self._is_whole(variant))
        likelihoods = self._likelihoods(engine, sequences)
        for variant in variants:
            if self._is_whole(variant):
                yield variant, Score(*next(likelihoods).minus(references[variant.wild_type]))
            else:
                per_residue = math.nan if self._is_by_position else 0.0
                yield variant, Score(self._sum_over_positions(rows, variant), per_residue)

    @property
    def _is_by_position(self) -> bool:
        return self.method != "pseudo-perplexity"

    @property
    def _position_job(self) -> InferenceJob[LogProbabilities]:
        return self.marginals.unmasked() if self.method == "wildtype-marginals" else self.marginals.masked()

    def _is_whole(self, variant: Variant) -> bool:
        """Whether a variant is scored by the likelihood of its whole sequence; a wild type is not computed again."""
        return variant.has_indels or (not self._is_by_position and bool(variant.mutations))

    def _references(self) -> list[str]:
        """List the wild types whose likelihoods are needed."""
        with_indels = {sequence for sequence, _ in self.mutated.shifted_lengths}
        numbers = self.mutated.num_variants
        return [
            sequence
            for sequence in self.mutated.positions
            if sequence in with_indels or (numbers[sequence] and not self._is_by_position)
        ]

    def _num_tokens(self, sequence: str) -> int:
        return self.marginals.masked().num_tokens(PositionQuery.amino_acids(sequence))

    def _rows(self, engine: Engine) -> dict[tuple[str, int], LogProbabilities]:
        """Compute the log probabilities, (20,), at each mutated position, from 1, of each wild type."""
        rows: dict[tuple[str, int], LogProbabilities] = {}
        computed = engine.run(self._position_job, _queries(self.mutated), self.on_crop)
        for wild_type, (query, log_probs) in zip(self.mutated.positions, computed, strict=True):
            self._add_means(query, log_probs)
            for index, row in zip(query.positions.tolist(), log_probs, strict=True):
                rows[wild_type, index + 1] = row
        return rows

    def _sum_over_positions(self, rows: dict[tuple[str, int], LogProbabilities], variant: Variant) -> float:
        score = 0.0
        for mutation in variant.substitutions:
            row = rows[variant.wild_type, mutation.position]
            score += float(row[_COLUMN[mutation.mutant]]) - float(row[_COLUMN[mutation.wild_type]])
        return score

    def _reference_likelihoods(self, engine: Engine) -> dict[str, Likelihood]:
        """Compute the likelihoods of the wild types that need one."""
        wild_types, found = self._references(), dict[str, Likelihood]()
        for sequence, (query, log_probs) in zip(wild_types, self._masked(engine, wild_types), strict=True):
            found[sequence] = _likelihood(query, log_probs)
            if not self._is_by_position:
                self._add_means(query, log_probs)
        return found

    def _likelihoods(self, engine: Engine, sequences: Iterable[str]) -> Iterator[Likelihood]:
        return (_likelihood(*computed) for computed in self._masked(engine, sequences))

    def _masked(self, engine: Engine, sequences: Iterable[str]) -> Iterator[tuple[PositionQuery, LogProbabilities]]:
        return engine.run(self.marginals.masked(), map(PositionQuery.amino_acids, sequences), self.on_crop)

    def _add_means(self, query: PositionQuery, log_probs: LogProbabilities) -> None:
        self.means.add(query.columns, log_probs - query.select_own(log_probs)[:, None])


def _likelihood(query: PositionQuery, log_probs: LogProbabilities) -> Likelihood:
    """Sum the log probabilities of the residues that a protein has, and average them."""
    total = float(query.select_own(log_probs).sum(dtype=np.float64))
    return Likelihood(total, total / max(len(query.positions), 1))
