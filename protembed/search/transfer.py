"""Labels of queries from those of their neighbours: classes, several labels, or a value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.config.common import LabelKind
from protembed.errors import TableError
from protembed.io.tables import LABEL_SEPARATOR, read_number
from protembed.search.neighbours import Neighbours

# More different whole numbers than this are values, not classes.
_MAX_NUMBERED_CLASSES = 20
# An estimated value is right if it differs from the measured one by at most this share of the standard deviation.
_TOLERANCE = 0.5
_HALF_A_VOTE = 0.5


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """What some proteins have according to others.

    Attributes:
        labels: Whether each protein has each label, (proteins, labels), bool; None for values.
        values: Value of each protein, (proteins,), float64; None for labels.
    """

    labels: NDArray[np.bool_] | None = None
    values: NDArray[np.float64] | None = None


@dataclass(frozen=True, kw_only=True)
class KnownLabels:
    """The labels of the proteins of a database that have one.

    Attributes:
        kind: A class, any number of labels, or a value.
        names: Classes or labels, in the order of the table; empty for values.
        members: A sparse matrix with a one where a protein has a label, (proteins, labels), float64; None for values.
        values: Value of each protein, (proteins,), float64; None for labels.
    """

    kind: LabelKind
    names: Sequence[str] = ()
    members: Any = None
    values: NDArray[np.float64] | None = None

    @classmethod
    def make(cls, texts: Sequence[str], codes: NDArray[np.int64], kind: LabelKind | None, path: str) -> "KnownLabels":
        """Read labels as classes, several labels or values.

        Args:
            texts: Different cells of the table.
            codes: Index of each protein's cell, (proteins,), int64.
            kind: How they are read; None to infer it.
            path: Name of the table, for messages.

        Raises:
            TableError: A cell is no number, and values are read.
        """
        from scipy import sparse  # here, because it takes long to import

        kind = kind or infer_kind(texts)
        if kind == "value":
            values = [_value(text, path) for text in texts]
            return cls(kind=kind, values=np.array(values)[codes])
        cells = [[*dict.fromkeys(_split(text))] if kind == "labels" else [text] for text in texts]
        names = list(dict.fromkeys(name for cell in cells for name in cell))
        index_of = {name: index for index, name in enumerate(names)}
        columns = [[index_of[name] for name in cells[code]] for code in codes.tolist()]
        ends = np.cumsum([0, *map(len, columns)])
        flat = np.array([column for row in columns for column in row], np.int64)
        members = sparse.csr_array((np.ones(len(flat)), flat, ends), shape=(len(codes), len(names)))
        return cls(kind=kind, names=names, members=members)

    def of(self, indices: NDArray[np.int64]) -> Guesses:
        """Return the labels of some proteins, by their indices; the most frequent, or the mean, where one is -1."""
        if self.values is not None:
            return Guesses(values=np.where(indices >= 0, self.values[indices], self.values.mean()))
        labels = self.members[np.maximum(indices, 0)].toarray() > 0
        labels[indices < 0] = np.arange(len(self.names)) == self._counts.argmax()
        return Guesses(labels=labels)

    @property
    def _counts(self) -> NDArray[np.float64]:
        counts: NDArray[np.float64] = self.members.sum(0)
        return counts

    def votes(self, neighbours: Neighbours) -> NDArray[np.float64]:
        """Compute the share of each label among the neighbours of queries, (queries, labels), float64."""
        votes: NDArray[np.float64] = (_weights(neighbours, self.members.shape[0]) @ self.members).toarray()
        return votes

    def transfer(self, neighbours: Neighbours, threshold: float) -> tuple[Guesses, NDArray[np.float64]]:
        """Give queries the labels of their neighbours.

        A neighbour counts less by a factor of e for each standard deviation that its z-score is below the largest one.

        Args:
            neighbours: Neighbours of the queries among these proteins.
            threshold: Least share of a label among the neighbours, if a protein may have several.

        Returns:
            The labels, and what their reliability depends on, (queries, features), float64.
        """
        nearest = np.where(neighbours.rows >= 0, neighbours.z_scores, -np.inf).max(1)
        nearest = np.where(np.isfinite(nearest), nearest, 0.0)
        if self.values is not None:
            weights = _weights(neighbours, len(self.values))
            means = weights @ self.values
            spread = np.sqrt(np.maximum(weights @ self.values**2 - means**2, 0.0)) / max(self.values.std(), 1e-12)
            return Guesses(values=means), np.column_stack([spread, nearest])
        votes = self.votes(neighbours)
        is_best = np.arange(votes.shape[1]) == votes.argmax(1)[:, None]
        labels = is_best if self.kind == "class" else (votes >= threshold) | is_best
        number = labels.sum(1)
        share = _log_odds((votes * labels).sum(1) / number, neighbours.rows.shape[1])
        frequency = (labels * np.log(self._counts / self.members.shape[0])).sum(1) / number
        return Guesses(labels=labels), np.column_stack([share, nearest, frequency])

    def right(self, guesses: Guesses, truth: Guesses) -> NDArray[np.float64]:
        """Compute which fraction of each protein's guessed labels is right, (proteins,), float64; 0 or 1 for values."""
        if self.values is not None:
            return (self.error(guesses, truth) <= self.tolerance).astype(np.float64)
        assert guesses.labels is not None and truth.labels is not None, "they are labels"
        shared: NDArray[np.float64] = (guesses.labels & truth.labels).sum(1) / guesses.labels.sum(1)
        return shared

    @property
    def tolerance(self) -> float:
        """Largest difference of a value that is right."""
        return 0.0 if self.values is None else _TOLERANCE * float(self.values.std())

    def error(self, guesses: Guesses, truth: Guesses) -> NDArray[np.float64]:
        """Compute the absolute errors of values, (proteins,), float64."""
        assert guesses.values is not None and truth.values is not None, "they are values"
        return np.abs(guesses.values - truth.values)

    def quality(self, guesses: Guesses, truth: Guesses) -> NDArray[np.float64]:
        """Compute how good guesses are, (proteins,), float64: absolute errors, or the F1 of each protein's labels."""
        if self.values is not None:
            return self.error(guesses, truth)
        assert guesses.labels is not None and truth.labels is not None, "they are labels"
        quality: NDArray[np.float64] = (
            2 * (guesses.labels & truth.labels).sum(1) / (guesses.labels.sum(1) + truth.labels.sum(1))
        )
        return quality

    def text(self, guesses: Guesses, row: int) -> str:
        """Write what a protein has as the table does."""
        if guesses.values is not None:
            return f"{guesses.values[row]:.6g}"
        assert guesses.labels is not None, "they are labels"
        return LABEL_SEPARATOR.join(self.names[index] for index in np.flatnonzero(guesses.labels[row]).tolist())


def _weights(neighbours: Neighbours, size: int) -> Any:
    """Make the sparse matrix of how much each neighbour counts, (queries, size), whose rows add up to 1."""
    from scipy import sparse

    z_scores = np.where(neighbours.rows >= 0, neighbours.z_scores, -np.inf)
    weights = np.exp(z_scores - np.maximum(z_scores.max(1, keepdims=True), -1e9))
    weights /= np.maximum(weights.sum(1, keepdims=True), 1e-12)
    queries = np.repeat(np.arange(len(weights)), weights.shape[1])
    shape = (len(weights), size)
    return sparse.csr_array((weights.ravel(), (queries, np.maximum(neighbours.rows, 0).ravel())), shape=shape)


def _log_odds(shares: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """Compute the log odds of shares of a number of votes, which are finite even where all agree.

    Source: Jeffreys 1946, "An invariant form for the prior probability in estimation problems": half a vote is added on
    either side.
    """
    return np.asarray(np.log((shares * number + _HALF_A_VOTE) / ((1 - shares) * number + _HALF_A_VOTE)))


def infer_kind(texts: Sequence[str]) -> LabelKind:
    """Infer what labels are: several if a semicolon separates them, values if they are many or broken numbers.

    >>> infer_kind(["a", "b;c"]), infer_kind(["0.5", "2"]), infer_kind(["0", "1"])
    ('labels', 'value', 'class')
    """
    if any(LABEL_SEPARATOR in text for text in texts):
        return "labels"
    numbers = [number for text in texts if (number := read_number(text)) is not None]
    are_values = len(set(numbers)) > _MAX_NUMBERED_CLASSES or not all(number.is_integer() for number in numbers)
    return "value" if len(numbers) == len(texts) and are_values else "class"


def _split(text: str) -> list[str]:
    return [name for part in text.split(LABEL_SEPARATOR) if (name := part.strip())]


def _value(text: str, path: str) -> float:
    number = read_number(text)
    if number is None:
        raise TableError(path, f"the label {text[:40]!r} is no number", "correct it, or pass `label_kind` class")
    return number
