"""The time, memory and disk space that an embedding will need, estimated from the input and a short measurement."""

import heapq
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from protembed.callbacks import Callbacks
from protembed.config.embed import EmbedOptions
from protembed.config.model_sizes import EncoderShape
from protembed.data.fasta import ReadStatistics, Record
from protembed.data.hashing import hash_fraction
from protembed.device import peak_memory
from protembed.embedding.job import EmbeddingJob
from protembed.embedding.request import EmbeddingRequest
from protembed.inference.engine import Engine, InferenceJob, Result
from protembed.io.reading import Paths, as_paths, unchanged_inputs
from protembed.io.writing import seekable_inputs

# A small model computes such a sample in a few seconds on one core. A larger sample would be more precise, but slower.
_NUM_SAMPLED, _SAMPLED_RESIDUES, _MIN_SECONDS = 64, 600, 1.0
# In bytes: a number as text, the lines about a protein beside its vectors, the overhead of a dataset in HDF5, and a
# float32 number in memory, where the vectors of two chunks are held at once.
_TEXT_BYTES_PER_NUMBER, _IDS_BYTES, _DATASET_BYTES, _BYTES_PER_HELD_NUMBER = 12, 350, 500, 2 * 4


@dataclass
class Workload:
    """The size of a computation, once `count` has read the proteins; its other attributes are those of `EmbedPlan`.

    Attributes:
        operations: Multiplications and additions of all matrix products.
        sample: A sample of the proteins, chosen by sequence hash; very long ones are cut off.
    """

    shape: EncoderShape
    num_proteins: int = 0
    num_residues: int = 0
    longest: int = 0
    num_windows: int = 0
    num_windowed: int = 0
    operations: float = 0.0
    sample: list[Record] = field(default_factory=list)

    def count(self, records: Iterable[Record], computation: InferenceJob[Result]) -> None:
        """Count all proteins; keep only the sample in memory."""
        entries = heapq.nsmallest(_NUM_SAMPLED, self._counted(records, computation))
        self.sample = [record for _, _, record in entries]

    def _counted(
        self, records: Iterable[Record], computation: InferenceJob[Result]
    ) -> Iterator[tuple[float, int, Record]]:
        """Count each protein; yield it, cut off, behind the numbers by which the sample is chosen."""
        for record in records:
            num_windows = sum(1 for _ in computation.crops(record))
            self.num_proteins += 1
            self.num_residues += len(record.sequence)
            self.longest = max(self.longest, len(record.sequence))
            self.num_windows += num_windows
            self.num_windowed += num_windows > 1
            self.operations += self.operations_of(record, computation)
            short = replace(record, sequence=record.sequence[:_SAMPLED_RESIDUES])
            yield hash_fraction(record.sequence), self.num_proteins, short

    def operations_of(self, record: Record, computation: InferenceJob[Result]) -> float:
        """Count the multiplications and additions of a protein's matrix products."""
        return count_operations(self.shape, map(len, computation.crops(record)))

    def seconds(self, engine: Engine, computation: InferenceJob[Result]) -> float:
        """Compute the sample, and estimate from it how long all proteins will take, in seconds."""
        if not self.sample:
            return 0.0
        operations, began = 0.0, time.monotonic()
        while time.monotonic() - began < _MIN_SECONDS:
            for record, _ in engine.run(computation, self.sample):
                operations += self.operations_of(record, computation)
        return self.operations / operations * (time.monotonic() - began)


def count_operations(shape: EncoderShape, lengths: Iterable[int]) -> float:
    """Count the multiplications and additions of the matrix products of crops with these numbers of tokens."""
    per_layer = sum(2 * tokens * shape.num_layer_weights + 4 * tokens**2 * shape.dim for tokens in lengths)
    return shape.num_layers * per_layer


@dataclass(frozen=True, kw_only=True)
class EmbedPlan:
    """What a run would compute, and the time, memory and disk space that it would need.

    Attributes:
        output: Path of the result; None for stdout.
        longest: Residues of the longest protein.
        num_windows: Windows of all proteins; a protein that fits into a window counts as one.
        num_windowed: Proteins that are computed in several windows.
        seconds: Estimated time of the computation, from a short measurement.
        memory_bytes: Peak memory.
        disk_bytes: Peak disk space of the result and the files beside it.
        notes: Sentences about how it will be computed.
        warnings: Messages about the model and the input.
    """

    output: Path | None
    num_proteins: int
    num_residues: int
    longest: int
    num_windows: int
    num_windowed: int
    dim: int
    seconds: float
    memory_bytes: int
    disk_bytes: int
    notes: Sequence[str] = ()
    warnings: Sequence[str]


def _disk_bytes(request: EmbeddingRequest, workload: Workload) -> int:
    num_rows = workload.num_residues if request.config.per_residue else workload.num_proteins
    itemsize = np.dtype(request.config.store_dtype).itemsize
    # Other formats than .npy are made from an array of rows, which exists until they are complete.
    is_converted = request.format_name != "npy" and (request.format_name != "tsv" or request.result.output is not None)
    per_number = (_TEXT_BYTES_PER_NUMBER if request.format_name == "tsv" else itemsize) + itemsize * is_converted
    per_protein = _IDS_BYTES + (_DATASET_BYTES if request.format_name == "h5" else 0)
    return num_rows * request.dim * per_number + workload.num_proteins * per_protein


def plan_embedding(fasta: Paths, options: EmbedOptions | None = None) -> EmbedPlan:
    """Count the proteins, and compute a few of them to estimate the time for all; nothing is written.

    Args:
        fasta: Paths of the FASTA files; `-` is stdin.
        options: All options of the command; the defaults if None.

    Raises:
        ProtembedError: The input, the model or the output is invalid; see `protembed.errors`.
    """
    options, files = options or EmbedOptions(), as_paths("fasta", fasta)
    request, notes = EmbeddingRequest.make(files, options), list[str]()
    job = EmbeddingJob.load(request, request.precision(), Callbacks(on_note=notes.append))
    statistics, comparison, workload = ReadStatistics(), job.compare_input(), Workload(request.model.shape)
    with unchanged_inputs(), seekable_inputs(files) as paths:
        workload.count(comparison.observe(request.selection.read(paths, statistics)), job.computation)
    with job.engine() as engine:
        seconds = workload.seconds(engine, job.computation)
        held_tokens = engine.tokens_per_chunk + workload.longest
    is_held = request.config.per_residue or workload.num_windowed > 0
    held_bytes = _BYTES_PER_HELD_NUMBER * job.numbers_per_token * held_tokens * is_held
    return EmbedPlan(
        output=request.result.output,
        num_proteins=workload.num_proteins,
        num_residues=workload.num_residues,
        longest=workload.longest,
        num_windows=workload.num_windows,
        num_windowed=workload.num_windowed,
        dim=request.dim,
        seconds=seconds,
        memory_bytes=peak_memory(job.checkpoint.device) + held_bytes,
        disk_bytes=_disk_bytes(request, workload),
        notes=notes,
        warnings=job.warnings(statistics, comparison),
    )
