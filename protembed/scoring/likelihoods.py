"""The log-likelihoods of proteins: eight bytes each, which grow on disk and survive a kill."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
from numpy.typing import NDArray

from protembed.data.fasta import Record
from protembed.inference.marginals import LogProbabilities, PositionQuery
from protembed.io.growing import GrowingFiles
from protembed.io.result import Claim
from protembed.io.writing import output_errors

_FILE, _COUNT = "likelihoods", "num_proteins"


class LikelihoodStore:
    """Keeps the log-likelihood of each protein, in the order of the input.

    Args:
        files: The growing files of the result.
        values: Log-likelihoods, (proteins,), float64, of which those that are committed are set.

    Attributes:
        values: Log-likelihoods in nats, (proteins,), float64.
        num_committed: Proteins that are safe on disk, including those of an earlier process.
    """

    def __init__(self, claim: Claim, files: GrowingFiles, values: NDArray[np.float64]) -> None:
        self._claim, self._files, self.values = claim, files, values
        self.num_committed = self._num_added = files.progress.get(_COUNT, 0)

    @classmethod
    @contextmanager
    def open(cls, claim: Claim, num_proteins: int) -> Iterator["LikelihoodStore"]:
        """Begin a result, or resume the unfinished one."""
        path = claim.growing("values")
        with ExitStack() as stack:
            files, values = GrowingFiles(claim, {_FILE: path}, stack), np.zeros(num_proteins)
            num_committed = files.progress.get(_COUNT, 0)
            values[:num_committed] = np.fromfile(path, count=num_committed)
            yield cls(claim, files, values)

    def add(self, record: Record, query: PositionQuery, log_probs: LogProbabilities) -> None:
        """Add the next protein: the sum of the log probabilities of its residues."""
        self._append(float(query.select_own(log_probs).sum(dtype=np.float64)))

    def repeat(self, record: Record, row: int) -> None:
        """Add the next protein, whose sequence is that of an earlier row, from 0."""
        self._append(float(self.values[row]))

    def _append(self, likelihood: float) -> None:
        self.values[self._num_added] = likelihood
        self._num_added += 1

    def commit(self) -> None:
        """Make everything added so far safe."""
        with output_errors(self._claim.output):
            self._files[_FILE].write(self.values[self.num_committed : self._num_added].tobytes())
        self._files.commit({_COUNT: self._num_added})
        self.num_committed = self._num_added
