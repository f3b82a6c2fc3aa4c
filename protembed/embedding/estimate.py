"""The time that a run over many proteins will take, estimated from the proteins and a short measurement."""

import heapq
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from protembed.config.model_sizes import EncoderShape
from protembed.data.fasta import Record
from protembed.data.hashing import hash_fraction
from protembed.inference.engine import Engine, InferenceJob, Result

# A small model computes such a sample in a few seconds on one core. A larger sample would be more precise, but slower.
_NUM_SAMPLED, _SAMPLED_RESIDUES, _MIN_SECONDS = 64, 600, 1.0


@dataclass
class Workload:
    """The size of a computation; complete when `count` has read the proteins.

    Attributes:
        longest: Residues of the longest protein.
        num_windows: Windows of all proteins; a protein that fits into a window counts as one.
        num_windowed: Proteins that are computed in several windows.
        operations: Multiplications and additions of all matrix products.
    """

    shape: EncoderShape
    num_proteins: int = 0
    num_residues: int = 0
    longest: int = 0
    num_windows: int = 0
    num_windowed: int = 0
    operations: float = 0.0
    _heap: list[tuple[float, int, Record]] = field(default_factory=list)

    def count(self, records: Iterable[Record], computation: InferenceJob[Result]) -> None:
        """Count all proteins; keep only the sample in memory."""
        for record in records:
            num_windows = sum(1 for _ in computation.crops(record))
            self.num_proteins += 1
            self.num_residues += len(record.sequence)
            self.longest = max(self.longest, len(record.sequence))
            self.num_windows += num_windows
            self.num_windowed += num_windows > 1
            self.operations += self.operations_of(record, computation)
            cropped = replace(record, sequence=record.sequence[:_SAMPLED_RESIDUES])
            entry = (-hash_fraction(record.sequence), self.num_proteins, cropped)
            if len(self._heap) < _NUM_SAMPLED:
                heapq.heappush(self._heap, entry)
            else:
                heapq.heappushpop(self._heap, entry)

    @property
    def sample(self) -> list[Record]:
        """A sample of the proteins, chosen by sequence hash; very long ones are cut off."""
        return [record for _, _, record in self._heap]

    def operations_of(self, record: Record, computation: InferenceJob[Result]) -> float:
        """Count the multiplications and additions of a protein's matrix products."""
        dim, total = self.shape.dim, 0.0
        for tokens in map(len, computation.crops(record)):
            total += self.shape.num_layers * (24 * tokens * dim**2 + 4 * tokens**2 * dim)
        return total

    def seconds(self, engine: Engine, computation: InferenceJob[Result]) -> float:
        """Compute the sample, and estimate from it how long all proteins will take, in seconds."""
        if not self.sample:
            return 0.0
        operations, began = 0.0, time.monotonic()
        while time.monotonic() - began < _MIN_SECONDS:
            for record, _ in engine.run(computation, self.sample):
                operations += self.operations_of(record, computation)
        return self.operations / operations * (time.monotonic() - began)
