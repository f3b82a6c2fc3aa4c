"""Logistic regression with an L1 penalty where examples are many, inputs few, and a second copy of them too large."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

# Numbers of the inputs that are turned into float64 at once: 8 MB.
_AT_ONCE = 1 << 20
_MOST_STEPS, _MOST_SWEEPS, _MOST_HALVINGS = 100, 1000, 30
# The loss falls by less than this share of itself in the last step.
_TOLERANCE = 1e-10
# The share of a fall that the gradient promises which has to come true, as in Armijo's rule.
_ENOUGH = 1e-4


Logits = Sequence[NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Some examples, as they lie in memory; neither copied nor laid side by side.

    Attributes:
        inputs: (inputs, examples), float32.
        is_true: (examples,), bool.
    """

    inputs: NDArray[np.floating]
    is_true: NDArray[np.bool_]

    def parts(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Cut the examples into a few at a time: which, and their (1 + inputs, some) with a constant one first."""
        at_once = max(1, _AT_ONCE // len(self.inputs))
        for start in range(0, len(self.is_true), at_once):
            inputs = self.inputs[:, start : start + at_once]
            yield slice(start, start + inputs.shape[1]), np.concatenate([np.ones((1, inputs.shape[1])), inputs])


def fit_sparse_logistic(groups: Sequence[Examples], strength: float) -> NDArray[np.float64]:
    """Minimise |weight| + strength · log loss, summed over all examples.

    Newton's method: each step minimises the penalty and a quadratic of the loss, coordinate by coordinate. It reads the
    inputs twice a step, and holds a matrix of (1 + inputs)² in between.

    Args:
        groups: the examples.
        strength: C, of the loss against the penalty.

    Returns:
        (1 + inputs,): the bias, which is penalised like a weight, and the weights.

    Raises:
        ValueError: all examples are true, or none is.

    Source: Yuan, Ho and Lin 2012, "An improved GLMNET for L1-regularized logistic regression", of which liblinear's
        solver is one form: the loss, the penalty of the bias and the line search are the same.
    """
    problem = _Problem(groups=groups, strength=strength)
    weight = np.zeros(problem.size)
    logits: Logits = [np.zeros(len(one.is_true)) for one in groups]
    loss = problem.loss(weight, logits)
    for _ in range(_MOST_STEPS):
        gradient, curvature = problem.quadratic(logits)
        step = _penalised_step(weight, gradient, curvature)
        weight, logits = problem.search(weight, logits, step, gradient)
        before, loss = loss, problem.loss(weight, logits)
        if before - loss <= _TOLERANCE * before:
            break
    return weight


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """What is minimised: the examples, and the strength of their loss against the penalty."""

    groups: Sequence[Examples]
    strength: float

    def __post_init__(self) -> None:
        num_true = sum(int(one.is_true.sum()) for one in self.groups)
        if num_true in (0, sum(len(one.is_true) for one in self.groups)):
            raise ValueError("examples of one kind alone teach nothing")

    @property
    def size(self) -> int:
        """Weights, with the bias."""
        return 1 + len(self.groups[0].inputs)

    def loss(self, weight: NDArray[np.float64], logits: Logits) -> float:
        """Add up loss and penalty, from weights and the logits that they give."""
        pairs = zip(self.groups, logits, strict=True)
        losses = (np.logaddexp(0, np.where(one.is_true, -own, own)).sum() for one, own in pairs)
        return float(np.abs(weight).sum() + self.strength * sum(losses))

    def quadratic(self, logits: Logits) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Differentiate the loss without its penalty once, (1 + inputs,), and twice, (1 + inputs, 1 + inputs)."""
        gradient, curvature = np.zeros(self.size), np.zeros((self.size, self.size))
        for one, own in zip(self.groups, logits, strict=True):
            for part, inputs in one.parts():
                probabilities = expit(own[part])
                gradient += inputs @ (probabilities - one.is_true[part])
                # The curvature leads to the minimum and does not say where it is: float32 does, in half the time.
                scaled = (inputs * np.sqrt(probabilities * (1 - probabilities))).astype(np.float32)
                curvature += scaled @ scaled.T
        return self.strength * gradient, self.strength * curvature

    def search(
        self, weight: NDArray[np.float64], logits: Logits, step: NDArray[np.float64], gradient: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], Logits]:
        """Go along a step as far as the loss falls by a part of what the gradient promises."""
        changes = [np.concatenate([step @ inputs for _, inputs in one.parts()]) for one in self.groups]
        before = self.loss(weight, logits)
        promised = gradient @ step + np.abs(weight + step).sum() - np.abs(weight).sum()
        for halving in range(_MOST_HALVINGS):
            share = 0.5**halving
            there = [own + share * change for own, change in zip(logits, changes, strict=True)]
            if self.loss(weight + share * step, there) <= before + _ENOUGH * share * promised:
                return weight + share * step, there
        return weight, logits


def _penalised_step(
    weight: NDArray[np.float64], gradient: NDArray[np.float64], curvature: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Minimise gradient · step + step · curvature · step / 2 + |weight + step|, by coordinate descent."""
    step, slope = np.zeros_like(weight), gradient.copy()
    # An input that is zero in all examples has no curvature, and stays out.
    diagonal = np.diag(curvature) + 1e-12
    for _ in range(_MOST_SWEEPS):
        largest = 0.0
        for place in np.flatnonzero((weight + step != 0) | (np.abs(slope) > 1)).tolist():
            own = diagonal[place]
            aim = weight[place] + step[place] - slope[place] / own
            change = np.sign(aim) * max(abs(aim) - 1 / own, 0.0) - weight[place] - step[place]
            if change:
                step[place] += change
                slope += change * curvature[place]
                largest = max(largest, abs(change) * own)  # how far the slope has moved; the penalty's is one
        if largest < 1e-6:
            break
    return step
