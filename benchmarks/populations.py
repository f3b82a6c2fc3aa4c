"""Simulated populations of proteins: labels, and the predictions of two models.

Each sampler draws proteins and returns functions that compute their metrics, for two models of the same kind. The
second model is slightly worse than the first and correlated with it.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from protembed.evaluation.metrics import (
    Measure,
    classification_measure,
    multilabel_measure,
    regression_measure,
    residue_classification_measure,
)

Sampler = Callable[[np.random.Generator, int], tuple[Measure, Measure]]

SIX_CLASSES = np.array([0.45, 0.25, 0.15, 0.08, 0.05, 0.02])
TWELVE_CLASSES = np.array([0.3, 0.2, 0.14, 0.1, 0.08, 0.06, 0.04, 0.03, 0.02, 0.015, 0.01, 0.005])


def noises(rng: np.random.Generator, *shape: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw the errors of two models, correlated by 0.6."""
    first = rng.normal(size=shape)
    return first, 0.6 * first + 0.8 * rng.normal(size=shape)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def classes(fractions: NDArray[np.float64], signal: float) -> Sampler:
    """Make proteins with one of several classes, and calibrated classifiers."""

    def sample(rng: np.random.Generator, num: int) -> tuple[Measure, Measure]:
        truth = rng.choice(len(fractions), size=num, p=fractions)
        measures = []
        for strength, noise in zip((signal, 0.8 * signal), noises(rng, num, len(fractions)), strict=True):
            seen = strength * np.eye(len(fractions))[truth] + noise
            measures.append(classification_measure(truth, softmax(strength * seen + np.log(fractions))))
        return measures[0], measures[1]

    return sample


def residue_classes(fractions: NDArray[np.float64], signal: float, mean_length: int) -> Sampler:
    """Make proteins whose residues have classes: proteins differ in length, composition and difficulty."""

    def sample(rng: np.random.Generator, num: int) -> tuple[Measure, Measure]:
        lengths = 5 + rng.poisson(mean_length * rng.gamma(2, 0.5, size=num))
        owners, starts = np.repeat(np.arange(num), lengths), lengths.cumsum()[:-1]
        composition = rng.dirichlet(4 * fractions, size=num)
        truth = (rng.random(len(owners))[:, None] > composition.cumsum(1)[owners][:, :-1]).sum(1)
        ease = 1 + 0.4 * rng.normal(size=(num, 1))
        measures = []
        for strength, noise in zip((signal, 0.85 * signal), noises(rng, len(owners), len(fractions)), strict=True):
            seen = strength * ease[owners] * np.eye(len(fractions))[truth] + noise
            probabilities = softmax(strength * seen + np.log(fractions))
            measures.append(residue_classification_measure(np.split(truth, starts), np.split(probabilities, starts)))
        return measures[0], measures[1]

    return sample


def labels(num_labels: int, rarest: float, signal: float) -> Sampler:
    """Make proteins with any of several labels, from common to rare, and calibrated predictors."""
    fractions = np.geomspace(0.4, rarest, num_labels)

    def sample(rng: np.random.Generator, num: int) -> tuple[Measure, Measure]:
        tendency = np.exp(0.5 * rng.normal(size=(num, 1)) - 0.125)
        truth = (rng.random((num, num_labels)) < fractions * tendency).astype(float)
        measures = []
        for strength, noise in zip((signal, 0.8 * signal), noises(rng, num, num_labels), strict=True):
            seen = strength * truth + noise
            logits = strength * seen - strength**2 / 2 + np.log(fractions / (1 - fractions))
            measures.append(multilabel_measure(truth, 1 / (1 + np.exp(-logits))))
        return measures[0], measures[1]

    return sample


def values(error: float, *, heavy: bool = False) -> Sampler:
    """Make proteins with a value: normal with normal errors, or skewed with errors of four degrees of freedom."""

    def sample(rng: np.random.Generator, num: int) -> tuple[Measure, Measure]:
        truth = rng.normal(size=num)
        tails = np.sqrt(2 / rng.chisquare(4, size=num)) if heavy else np.ones(num)
        measures = []
        for strength, noise in zip((error, 1.2 * error), noises(rng, num), strict=True):
            predicted = truth + strength * noise * tails
            measures.append(regression_measure(np.exp(0.7 * truth) if heavy else truth, predicted))
        return measures[0], measures[1]

    return sample


def residue_values(error: float, mean_length: int) -> Sampler:
    """Make proteins whose residues have values; values and errors have a component shared by the protein."""

    def sample(rng: np.random.Generator, num: int) -> tuple[Measure, Measure]:
        lengths = 2 + rng.poisson(mean_length * rng.gamma(2, 0.5, size=num))
        owners = np.repeat(np.arange(num), lengths)
        truth = 0.6 * rng.normal(size=num)[owners] + 0.8 * rng.normal(size=len(owners))
        measures = []
        of_proteins, of_residues = noises(rng, num), noises(rng, len(owners))
        for strength, shared, individual in zip((error, 1.2 * error), of_proteins, of_residues, strict=True):
            predicted = 0.7 * truth + strength * (0.6 * shared[owners] + 0.8 * individual)
            measures.append(regression_measure(truth, predicted, owners))
        return measures[0], measures[1]

    return sample


def gains(mean: float) -> Sampler:
    """Make proteins with masked residues, and the gains of two models on them, in nats."""

    def sample(rng: np.random.Generator, num: int) -> tuple[Measure, Measure]:
        counts = 1.0 + rng.poisson(40 * rng.gamma(2, 0.5, size=num))
        first, second = (_gain(rng, counts, mean) for _ in range(2))
        return first, second

    return sample


def _gain(rng: np.random.Generator, counts: NDArray[np.float64], mean: float) -> Measure:
    of_proteins = mean + 2 * mean * rng.normal(size=len(counts))
    sums = counts * of_proteins + 0.3 * np.sqrt(counts) * rng.normal(size=len(counts))
    return lambda draws: {"gain": draws @ sums / (draws @ counts)}


POPULATIONS: Mapping[str, Sampler] = {
    "2 classes, one of 20 %": classes(np.array([0.8, 0.2]), 1.8),
    "6 classes, the rarest of 2 %": classes(SIX_CLASSES, 2.0),
    "12 classes, the rarest of 0.5 %": classes(TWELVE_CLASSES, 2.5),
    "residues of 3 classes": residue_classes(np.array([0.45, 0.35, 0.2]), 1.5, 40),
    "residues of 5 classes, the rarest of 1 %": residue_classes(np.array([0.5, 0.3, 0.14, 0.05, 0.01]), 1.8, 40),
    "12 labels, the rarest of 2 %": labels(12, 0.02, 1.6),
    "24 labels, the rarest of 0.5 %": labels(24, 0.005, 1.6),
    "values": values(0.8),
    "values, skewed, heavy errors": values(0.8, heavy=True),
    "values of residues": residue_values(0.8, 8),
    "nats per masked residue": gains(0.02),
}
