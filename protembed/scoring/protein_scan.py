"""The scores of all single mutants of a protein."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protembed.config.common import Region
from protembed.data.alphabet import AMINO_ACIDS, FIRST_AMINO_ACID, NUM_AMINO_ACIDS, encode, is_amino_acid
from protembed.data.fasta import Record
from protembed.errors import NoProteinError, TooShortError
from protembed.scoring.mutations import Mutation
from protembed.scoring.protein_input import check_likelihood

NUM_SUBSTITUTIONS = NUM_AMINO_ACIDS - 1


class ScannedMutant(NamedTuple):
    """A single mutant and its score, in nats."""

    mutation: Mutation
    score: float


def scanned_positions(residues: NDArray[np.uint8], region: Region) -> NDArray[np.int64]:
    """Find the positions of a protein that are scanned: the standard amino acids of the region.

    Args:
        residues: Token ids of the protein, (residues,), uint8.
        region: The region.

    Returns:
        Positions, (positions,), int64, from 0, ascending.
    """
    part = region.within(len(residues)) or slice(0)
    return np.flatnonzero(is_amino_acid(residues[part])) + (part.start or 0)


def check_scannable(record: Record, region: Region) -> None:
    """Check that a protein has a residue that is scanned.

    Raises:
        NoAminoAcidError: It has none of the 20 amino acids.
        TooShortError: It ends before the region begins.
        NoProteinError: The region has none of the 20 amino acids.
    """
    check_likelihood(record)
    residues = encode(record.sequence)
    if region.within(len(residues)) is None:
        raise TooShortError(record.path, record.line, record.id, len(residues), region.first)
    if not len(scanned_positions(residues, region)):
        reason = f"has none of the 20 amino acids in `region` {region}"
        raise NoProteinError(record.path, record.line, record.id, reason)


@dataclass(frozen=True, kw_only=True, eq=False)
class ProteinScan:
    """The scan of a protein.

    Attributes:
        positions: Scanned positions, (positions,), int64, from 0, ascending; residues that are none of the 20 amino
            acids are not scanned.
        log_probs: Log probabilities of the amino acids at the scanned positions, (positions, 20), float32, nats.
        measured: Measured values of the single mutants, (positions, 20), float64; NaN where there is none. None
            without measurements of this protein.
    """

    record: Record
    positions: NDArray[np.int64]
    log_probs: NDArray[np.float32]
    measured: NDArray[np.float64] | None = None

    @cached_property
    def wild_types(self) -> NDArray[np.int64]:
        """Index of the wild-type residue in the alphabet at each scanned position, (positions,), int64."""
        return encode(self.record.sequence)[self.positions].astype(np.int64) - FIRST_AMINO_ACID

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """Scores, log p(mutant) - log p(wild type), (positions, 20), float64, nats; the wild type has 0."""
        values = self.log_probs.astype(np.float64)
        scores: NDArray[np.float64] = values - np.take_along_axis(values, self.wild_types[:, None], axis=1)
        return scores

    @cached_property
    def means(self) -> NDArray[np.float64]:
        """Mean score of the 19 substitutions at each scanned position, (positions,), float64, nats."""
        means: NDArray[np.float64] = self.scores.sum(1) / NUM_SUBSTITUTIONS
        return means

    @property
    def num_mutants(self) -> int:
        """Number of single mutants."""
        return len(self.positions) * NUM_SUBSTITUTIONS

    @property
    def num_favoured(self) -> int:
        """Number of single mutants that the model finds likelier than the wild type."""
        return int((self.scores > 0).sum())

    def mutants(self) -> Iterator[ScannedMutant]:
        """Yield all single mutants, position by position, in the order of the alphabet."""
        rows = zip(self.positions.tolist(), self.wild_types.tolist(), self.scores.tolist(), strict=True)
        for position, wild_type, scores in rows:
            for column, score in enumerate(scores):
                if column != wild_type:
                    yield ScannedMutant(Mutation(AMINO_ACIDS[wild_type], position + 1, AMINO_ACIDS[column]), score)

    def best(self, number: int) -> list[ScannedMutant]:
        """List the mutants with the highest scores, the best first."""
        return nlargest(number, self.mutants(), key=lambda mutant: mutant.score)

    def measured_value(self, mutation: Mutation) -> float | None:
        """Look up the measured value of a scanned mutant; None without one."""
        if self.measured is None:
            return None
        row = int(np.searchsorted(self.positions, mutation.position - 1))
        value = float(self.measured[row, AMINO_ACIDS.index(mutation.mutant)])
        return None if np.isnan(value) else value
