"""What was found in the vectors of a finished result, and in what is recorded about its proteins."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from protembed.embedding.input_residues import InputResidues
from protembed.embedding.spread import MIN_VECTORS, Spread
from protembed.embedding.stored_proteins import Repetitions, StoredProteins, find_repetitions
from protembed.embedding.stored_result import StoredResult
from protembed.embedding.vector_statistics import VectorStatistics, choose_sample

# The standard deviation of a normal distribution, as a multiple of its median absolute deviation.
_DEVIATIONS_PER_MAD = 1.4826
# Norms whose median deviation is a smaller part of them differ by rounding alone.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found in a result.

    Attributes:
        spread: How the vectors spread; None if there are too few, or all are alike.
    """

    result: StoredResult
    proteins: StoredProteins
    vectors: VectorStatistics
    spread: Spread | None
    residues: InputResidues

    @classmethod
    def make(cls, result: StoredResult, residues: InputResidues | None = None) -> "Diagnosis":
        """Read a result once, and measure what is in it.

        Args:
            result: The result.
            residues: Residues of its input; None to count X alone, from its table of identifiers.

        Raises:
            VerificationError: A file of the result is damaged.
        """
        proteins = StoredProteins.read(result)
        vectors = VectorStatistics.read(result, proteins.num_residues)
        return cls(
            result=result,
            proteins=proteins,
            vectors=vectors,
            spread=Spread.measure(vectors),
            residues=residues or InputResidues.from_table(proteins),
        )

    @property
    def per_residue(self) -> bool:
        """Whether there is one vector per residue."""
        return bool(self.result.meta["per_residue"])

    @property
    def sampled_residues(self) -> str | None:
        """Amino acid of each vector of the spread; None if it is not known, or there is one vector per protein."""
        if self.residues.sampled is None or self.spread is None:
            return None
        sample = choose_sample(self.vectors.num_rows, len(self.vectors.mean))
        return "".join(self.residues.sampled[np.isin(sample, self.spread.sampled)].tolist())

    @cached_property
    def usual_norm(self) -> tuple[float, float]:
        """Median of the norms, and their robust standard deviation; NaN if they are too few or too similar."""
        norms = self.vectors.norms[np.isfinite(self.vectors.norms)]
        if len(norms) < MIN_VECTORS:
            return np.nan, np.nan
        median = float(np.median(norms))
        deviation = _DEVIATIONS_PER_MAD * float(np.median(np.abs(norms - median)))
        return (median, deviation) if deviation > _ROUNDING * median else (np.nan, np.nan)

    @cached_property
    def deviations(self) -> NDArray[np.float64]:
        """Distance of each norm from the median, in robust standard deviations, (proteins,); NaN where unknown."""
        median, deviation = self.usual_norm
        return (self.vectors.norms - median) / deviation

    @cached_property
    def repeated_sequences(self) -> Repetitions:
        """Proteins that have the same sequence."""
        return find_repetitions(self.proteins.sequences)

    @cached_property
    def num_sharing(self) -> int:
        """Number of proteins that have the same vector as a protein with another sequence."""
        hashes = self.vectors.hashes
        if hashes is None:
            return 0
        pairs = np.unique(np.stack([hashes, self.proteins.sequences], axis=1), axis=0)
        vectors, num_sequences = np.unique(pairs[:, 0], return_counts=True)
        return int(np.isin(hashes, vectors[num_sequences > 1]).sum())

    @cached_property
    def is_windowed(self) -> NDArray[np.bool_]:
        """Which proteins were computed in several windows, (proteins,)."""
        return self.proteins.num_windows > 1
