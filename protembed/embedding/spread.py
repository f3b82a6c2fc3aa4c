"""How the vectors of a result spread: the cosines of pairs, and the directions in which they vary."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.embedding.vector_statistics import VectorStatistics

# Fewer vectors do not show how others would spread.
MIN_VECTORS = 10
# The part of a vector's norm below which nothing but rounding is left of it.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How a sample of vectors spreads.

    Attributes:
        cosines: Cosine of each pair of vectors, (pairs,), float32.
        centred_cosines: The same after the mean of all vectors was subtracted, (pairs,), float32.
        share_of_mean: Squared norm of the mean vector, as a share of the mean squared norm of the vectors.
        explained: Share of the variance in the first principal components, (components,), float64, ascending to 1.
        positions: Positions of the vectors along the first two principal components, (sampled, 2), float64.
        sampled: Indices of the vectors among all, (sampled,), int64.
    """

    cosines: NDArray[np.float32]
    centred_cosines: NDArray[np.float32]
    share_of_mean: float
    explained: NDArray[np.float64]
    positions: NDArray[np.float64]
    sampled: NDArray[np.int64]

    @classmethod
    def measure(cls, statistics: VectorStatistics) -> "Spread | None":
        """Measure the spread of a result's vectors; None if there are too few, or all are alike."""
        sample, mean_square = statistics.sample, float(statistics.mean_squares.sum())
        centred = sample - statistics.mean
        if len(sample) < MIN_VECTORS or np.square(centred).mean(0).sum() <= _ROUNDING**2 * mean_square:
            return None
        explained, positions = _principal_components(sample - sample.mean(0))
        smallest = _ROUNDING * np.sqrt(mean_square)
        return cls(
            cosines=_cosines(sample, smallest),
            centred_cosines=_cosines(centred, smallest),
            share_of_mean=float(np.square(statistics.mean).sum()) / mean_square,
            explained=explained,
            positions=positions,
            sampled=statistics.sampled,
        )

    def num_components(self, share: float) -> int:
        """Count the principal components that have this share of the variance."""
        return int(np.searchsorted(self.explained, share - _ROUNDING)) + 1


def _cosines(vectors: NDArray[np.float64], smallest: float) -> NDArray[np.float32]:
    """Compute the cosine of each pair of vectors, (pairs,), without vectors whose norm is too small to have one."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = (vectors / np.maximum(norms, smallest))[norms[:, 0] > smallest]
    rows, columns = np.triu_indices(len(unit), 1)
    cosines: NDArray[np.float32] = (unit @ unit.T)[rows, columns].astype(np.float32)
    return cosines


def _principal_components(centred: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the cumulated shares of variance of the components, and the vectors' positions along the first two."""
    is_wide = centred.shape[0] < centred.shape[1]
    # Both products have the same eigenvalues, except for zeros; the smaller one is cheaper.
    eigenvalues, eigenvectors = np.linalg.eigh(centred @ centred.T if is_wide else centred.T @ centred)
    eigenvalues, first = np.maximum(eigenvalues[::-1], 0), eigenvectors[:, ::-1][:, :2]
    positions = first * np.sqrt(eigenvalues[:2]) if is_wide else centred @ first
    # The sign of an eigenvector is arbitrary.
    is_flipped = np.abs(positions.min(0)) > positions.max(0)
    positions = np.where(is_flipped, -positions, positions)
    if positions.shape[1] < 2:
        positions = np.column_stack([positions, np.zeros(len(positions))])
    return np.minimum(eigenvalues.cumsum() / eigenvalues.sum(), 1), positions
