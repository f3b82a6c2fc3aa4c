"""How likely a transferred label is right: a logistic regression on proteins whose relatives were left out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PENALTY = 1.0
_MAX_STEPS, _MIN_CHANGE = 50, 1e-8
_NORMAL_95 = 1.959964
_NUM_FOLDS, _NUM_BINS = 5, 10
# Beyond this, a probability is 0 or 1 to nine decimals.
_MAX_LOG_ODDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """A model of the probability that a label is right.

    Attributes:
        mean: Mean of each feature, (features,), float64.
        scale: Standard deviation of each feature, (features,), float64.
        lowest: Smallest value of each feature among the proteins of the fit, (features,), float64.
        highest: Largest value of each feature among them, (features,), float64.
        weights: Log odds at the mean, and their change with one standard deviation of each feature, (1 + features,).
        covariance: Covariance of the weights between samples of clusters, (1 + features, 1 + features).
        num_clusters: Clusters of the fit.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    weights: NDArray[np.float64]
    covariance: NDArray[np.float64]
    num_clusters: int

    @classmethod
    def fit(
        cls, features: NDArray[np.float64], right: NDArray[np.float64], clusters: NDArray[np.int64]
    ) -> "Reliability":
        """Fit the model.

        Args:
            features: What the reliability depends on, (proteins, features), float64.
            right: Fraction of each protein's labels that are right, (proteins,), float64.
            clusters: Cluster of each protein, (proteins,), int64; clusters are independent of one another.

        Source: Platt 1999, "Probabilistic outputs for support vector machines", for the targets; Liang and Zeger 1986,
        "Longitudinal data analysis using generalized linear models", for the covariance.
        """
        mean, scale = features.mean(0), features.std(0)
        scale = np.where(scale > 0, scale, 1.0)
        design = _design(features, mean, scale)
        num_right, size = right.sum(), len(right)
        high, low = (num_right + 1) / (num_right + 2), 1 / (size - num_right + 2)
        targets = right * high + (1 - right) * low
        weights, curvature = _maximize(design, targets)
        _, codes = np.unique(clusters, return_inverse=True)
        sums = np.zeros((codes.max() + 1, design.shape[1]))
        np.add.at(sums, codes, design * (targets - _probability(design @ weights))[:, None])
        inverse = np.linalg.inv(curvature)
        factor = len(sums) / max(len(sums) - 1, 1)
        return cls(
            mean=mean,
            scale=scale,
            lowest=features.min(0),
            highest=features.max(0),
            weights=weights,
            covariance=factor * inverse @ (sums.T @ sums) @ inverse,
            num_clusters=len(sums),
        )

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the reliability of some proteins, (proteins, features), and the ends of its 95 % interval.

        Features beyond those of the fit count as the most extreme of these, because nothing was seen there. After n
        clusters that were all right, the next one is right with probability (n + 1) / (n + 2): no reliability is above
        that, or as far below.

        Returns:
            Reliability, lower and upper end, (proteins, 3), float64.

        Source: Laplace 1774, the rule of succession.
        """
        design = _design(np.clip(features, self.lowest, self.highest), self.mean, self.scale)
        log_odds = design @ self.weights
        error = _NORMAL_95 * np.sqrt(np.maximum(((design @ self.covariance) * design).sum(1), 0.0))
        probability = _probability(np.stack([log_odds, log_odds - error, log_odds + error], axis=1))
        least = 1 / (self.num_clusters + 2)
        return np.clip(probability, [least, 0.0, least], [1 - least, 1 - least, 1.0])


def _design(
    features: NDArray[np.float64], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.column_stack([np.ones(len(features)), (features - mean) / scale])


def _probability(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -_MAX_LOG_ODDS, _MAX_LOG_ODDS))))


def _maximize(
    design: NDArray[np.float64], targets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the weights of the largest penalized likelihood by Newton's method, and its curvature there.

    A step that lowers the likelihood is halved: a whole one may lead to where all probabilities are 0 or 1, the
    curvature vanishes, and the steps become ever larger.

    Source: Boyd and Vandenberghe 2004, "Convex Optimization", section 9.5.
    """
    penalty = np.diag([0.0, *[_PENALTY] * (design.shape[1] - 1)])
    weights = np.zeros(design.shape[1])
    weights[0] = np.log(targets.mean() / (1 - targets.mean()))
    for _ in range(_MAX_STEPS):
        probability = _probability(design @ weights)
        curvature = (design.T * (probability * (1 - probability))) @ design + penalty
        step = np.linalg.solve(curvature, design.T @ (targets - probability) - penalty @ weights)
        reached = _likelihood(design, targets, penalty, weights)
        while np.abs(step).max() >= _MIN_CHANGE and _likelihood(design, targets, penalty, weights + step) < reached:
            step /= 2
        weights += step
        if np.abs(step).max() < _MIN_CHANGE:
            break
    return weights, curvature


def _likelihood(
    design: NDArray[np.float64],
    targets: NDArray[np.float64],
    penalty: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> float:
    """Compute the logarithm of the penalized likelihood."""
    log_odds = design @ weights
    return float(targets @ log_odds - np.logaddexp(0, log_odds).sum() - weights @ penalty @ weights / 2)


def cross_fitted(
    features: NDArray[np.float64], right: NDArray[np.float64], clusters: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Compute the reliability of each protein by a model of other clusters, (proteins,); the arguments are `fit`'s."""
    _, codes = np.unique(clusters, return_inverse=True)
    folds = np.random.default_rng(0).permutation(codes.max() + 1)[codes] % _NUM_FOLDS
    reliability = np.zeros(len(right))
    for fold in np.unique(folds):
        is_tested = folds == fold
        model = Reliability.fit(features[~is_tested], right[~is_tested], clusters[~is_tested])
        reliability[is_tested] = model.predict(features[is_tested])[:, 0]
    return reliability


def calibration_error(reliability: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Compute the mean difference between reliability and the fraction that is right, over ten bins of equal size.

    Source: Nixon et al. 2019, "Measuring calibration in deep learning", the adaptive calibration error.

    >>> calibration_error(np.array([0.0, 0.5, 0.5, 1.0]), np.array([0.0, 0.0, 1.0, 1.0]))
    0.25
    """
    order = np.argsort(reliability, kind="stable")
    bins = np.array_split(order, min(_NUM_BINS, len(order)))
    return float(sum(len(rows) * abs(reliability[rows].mean() - right[rows].mean()) for rows in bins) / len(order))
