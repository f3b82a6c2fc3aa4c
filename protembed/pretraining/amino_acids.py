"""How a model predicts each masked amino acid: its losses, its most likely amino acids, and its probabilities."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.data.alphabet import AMINO_ACIDS, NUM_AMINO_ACIDS
from protembed.evaluation.metrics import ClassMetrics, class_metrics

Matrix = NDArray[np.float64]

_SHAPE = (NUM_AMINO_ACIDS, NUM_AMINO_ACIDS)


@dataclass(frozen=True, kw_only=True, eq=False)
class AminoAcidPredictions:
    """Predictions of masked residues, summed for each amino acid that was masked; all in the order of the alphabet.

    Attributes:
        losses: (20,), float64; losses in nats.
        counts: (20, 20), int64; how often each amino acid (column) was the most likely one for each masked one (row).
        probabilities: (20, 20), float64; probabilities of each amino acid (column) for each masked one (row).
    """

    losses: NDArray[np.float64]
    counts: NDArray[np.int64]
    probabilities: Matrix

    @classmethod
    def zero(cls) -> "AminoAcidPredictions":
        """Return the sums over no residue."""
        return cls(losses=np.zeros(NUM_AMINO_ACIDS), counts=np.zeros(_SHAPE, np.int64), probabilities=np.zeros(_SHAPE))

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "AminoAcidPredictions":
        """Make the predictions that `plain` has converted."""
        return cls(
            losses=np.array(values["losses"], np.float64),
            counts=np.array(values["counts"], np.int64),
            probabilities=np.array(values["probabilities"], np.float64),
        )

    def plain(self) -> dict[str, Any]:
        """Convert the sums to lists, which JSON can hold."""
        return {name: array.tolist() for name, array in vars(self).items()}

    def add(self, targets: NDArray[np.int64], log_probs: NDArray[np.float32]) -> None:
        """Add the masked residues of a batch.

        Args:
            targets: Masked amino acids, (masked,), int64, from 0.
            log_probs: Logarithms of the predicted probabilities, (masked, 20), float32.
        """
        np.subtract.at(self.losses, targets, log_probs[np.arange(len(targets)), targets])
        # np.add.at on both matrices would take more than twice as long, which a GPU would wait for.
        cells = targets[:, None] * NUM_AMINO_ACIDS + np.arange(NUM_AMINO_ACIDS)  # (masked, 20); flat indices
        sums = np.bincount(cells.ravel(), np.exp(log_probs, dtype=np.float64).ravel(), minlength=self.counts.size)
        counts = np.bincount(cells[:, 0] + log_probs.argmax(1), minlength=self.counts.size)
        np.add(self.probabilities, sums.reshape(_SHAPE), out=self.probabilities)
        np.add(self.counts, counts.reshape(_SHAPE), out=self.counts)

    @property
    def num_masked(self) -> NDArray[np.int64]:
        """How often each amino acid was masked, (20,)."""
        return np.asarray(self.counts.sum(1))

    @property
    def accuracy(self) -> float:
        """Fraction of the masked residues whose most likely amino acid is right."""
        return float(self.counts.trace() / self.counts.sum())

    @property
    def most_frequent(self) -> tuple[str, float]:
        """The amino acid that was masked most often, and its fraction of all: the accuracy of always guessing it."""
        index = int(self.num_masked.argmax())
        return AMINO_ACIDS[index], float(self.num_masked[index] / self.counts.sum())

    def metrics(self) -> list[ClassMetrics]:
        """Measure each amino acid separately."""
        return class_metrics(AMINO_ACIDS, self.losses, self.counts)

    def mean_probabilities(self) -> Matrix:
        """Return the mean predicted probability of each amino acid (column) for each masked one (row), (20, 20).

        Rows add up to 1; that of an amino acid that was never masked is NaN.
        """
        masked = self.num_masked[:, None]
        return self.probabilities / np.where(masked > 0, masked, np.nan)

    def rows(self) -> Iterator[tuple[str, str, int, float | None]]:
        """Yield the rows of `confusions.tsv`: two amino acids, a count, and a mean probability, if it is known."""
        means = self.mean_probabilities()
        for (row, column), count in np.ndenumerate(self.counts):
            mean = None if np.isnan(means[row, column]) else float(means[row, column])
            yield AMINO_ACIDS[row], AMINO_ACIDS[column], int(count), mean

    def log_odds(self) -> Matrix:
        """Compare the mean probabilities with those over all masked residues, (20, 20), in bits.

        A value of 1 means that the model predicts the amino acid (column) twice as often where the other one (row) is
        masked as it does elsewhere. As in BLOSUM matrices, pairs that the context cannot distinguish are positive.
        Values are NaN where an amino acid was never masked, or never predicted with a positive probability.
        """
        means = self.probabilities.sum(0) / self.counts.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            odds = np.log2(self.mean_probabilities() / means)
        return np.where(np.isfinite(odds), odds, np.nan)


def similarity_to_blosum62(log_odds: Matrix) -> float | None:
    """Correlate the log odds of pairs of different amino acids, (20, 20), with BLOSUM62; None where they do not vary.

    Both directions of a pair are averaged, so there are 190 values; those of unknown pairs are left out.

    Returns:
        Pearson's correlation. BLOSUM62 scores how often one amino acid replaces another in related proteins.

    Source: Henikoff and Henikoff 1992, "Amino acid substitution matrices from protein blocks".
    """
    from Bio.Align import substitution_matrices  # a tenth of a second, and only a report needs it

    blosum = substitution_matrices.load("BLOSUM62")
    pairs = [(i, j) for i in range(NUM_AMINO_ACIDS) for j in range(i)]
    values = np.array([(log_odds[i, j] + log_odds[j, i]) / 2 for i, j in pairs])
    scores = np.array([blosum[AMINO_ACIDS[i]][AMINO_ACIDS[j]] for i, j in pairs], np.float64)
    is_known = ~np.isnan(values)
    if is_known.sum() < 3 or values[is_known].std() < 1e-9:
        return None
    return float(np.corrcoef(values[is_known], scores[is_known])[0, 1])
