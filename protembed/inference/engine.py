"""The inference engine: it groups proteins into micro-batches, computes on worker threads, and keeps the input's order.

The caller decides what is computed: an `InferenceJob` computes a result for each whole protein of a batch, and merges
the windows of a protein that is longer than the model's window.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from protembed.config.common import GPU_MICRO_BATCH_TOKENS, MICRO_BATCH_TOKENS, DeviceConfig
from protembed.config.model_sizes import SIZES, EncoderShape
from protembed.data.alphabet import encode
from protembed.data.batching import Batch, Tokens, concatenate, make_crop, split_by_budget
from protembed.data.windows import Span, window_spans
from protembed.device import WorkerPool, is_out_of_memory, worker_pool
from protembed.errors import TooLongForMemoryError

# The tokens that are held with their results, and lost when a run is killed: some seconds of work of a small model,
# fewer tokens for a large one, down to a few micro-batches.
_TOKENS_PER_CHUNK, _MIN_TOKENS_PER_CHUNK, _TOKENS_PER_GPU_CHUNK = 65_536, 8_192, 1_048_576
_LARGEST_SMALL_MODEL = SIZES["t6_8M"]
# A chunk holds a gigabyte of residues' vectors at most.
_NUMBERS_PER_CHUNK = 1 << 28


class HasSequence(Protocol):
    """Anything with a sequence of residues."""

    @property
    def sequence(self) -> str:
        """Upper-case residues of the alphabet."""
        ...


class HasTokens(Protocol):
    """A crop that is computed unchanged, such as a copy of a protein with one residue masked."""

    @property
    def tokens(self) -> Tokens:
        """Token ids, (tokens,), uint8."""
        ...


Protein = TypeVar("Protein", bound=HasSequence)
Crop = TypeVar("Crop", bound=HasTokens)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class WindowedJob(Generic[Result]):
    """How proteins longer than a window are computed.

    Attributes:
        window_residues: The length of a window, in residues.
        compute: Computes the vectors of each window's tokens, on the CPU, from a batch of windows.
        merge: Merges the vectors of a protein's windows to its result, given the windows' spans.
    """

    window_residues: int
    compute: Callable[[Batch], Iterable[Tensor]]
    merge: Callable[[Sequence[Tensor], Sequence[Span]], Result]


@dataclass(frozen=True, kw_only=True)
class InferenceJob(Generic[Result]):
    """What the engine computes for each protein, on several threads and without gradients.

    Attributes:
        compute: Computes one result for each protein of a batch of whole proteins, with `<cls>` and `<eos>`. The
            batch's rows number the proteins of the engine's call from 0.
        windowed: How proteins longer than a window are computed; None if every protein is computed whole.
    """

    compute: Callable[[Batch], Iterable[Result]]
    windowed: WindowedJob[Result] | None = None

    def windows(self, num_residues: int) -> list[Span]:
        """Divide a protein into windows; a single one if it is computed whole."""
        return window_spans(num_residues, num_residues if self.windowed is None else self.windowed.window_residues)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Groups proteins into micro-batches, and computes them.

    Attributes:
        pool: The workers that compute micro-batches in parallel.
        micro_batch_tokens: The maximum number of tokens of a micro-batch; a longer protein is a micro-batch by itself.
        tokens_per_chunk: The approximate number of tokens that are held, with their results, before these are yielded.
    """

    pool: WorkerPool
    micro_batch_tokens: int = MICRO_BATCH_TOKENS
    tokens_per_chunk: int = _TOKENS_PER_CHUNK

    def run(self, job: InferenceJob[Result], proteins: Iterable[Protein]) -> Iterator[tuple[Protein, Result]]:
        """Compute a result for each protein.

        Args:
            job: What is computed.
            proteins: The proteins, read when they are needed; a bounded number of them is held.

        Yields:
            Each protein with its result, in the input's order.

        Raises:
            TooLongForMemoryError: A single protein does not fit into memory.
        """
        for chunk in self.run_committed(job, proteins):
            yield from chunk

    def run_committed(
        self, job: InferenceJob[Result], proteins: Iterable[Protein]
    ) -> Iterator[list[tuple[Protein, Result]]]:
        """Compute as `run` does, and yield the results of whole chunks of proteins.

        Where chunks and micro-batches begin depends on the proteins alone, not on the workers, so that a run that is
        resumed after a chunk gives the same numbers, bit for bit.
        """
        running = deque[_Chunk[Protein, Result]]()

        def micro_batches() -> Iterator[_MicroBatch]:
            first_row = 0
            for members in self._chunks(proteins):
                running.append(_Chunk(members, first_row, job, self.micro_batch_tokens))
                first_row += len(members)
                yield from running[-1].micro_batches()

        # The micro-batches of the next chunk are queued while the last ones of this chunk are computed.
        for crop_results in self.pool.map(
            lambda batch: compute_or_split(job, batch), micro_batches(), num_per_worker=2
        ):
            running[0].add(crop_results)
            if running[0].is_complete:
                yield running.popleft().results()

    def run_crops(
        self, compute: Callable[[Batch], Iterable[Result]], crops: Iterable[Crop]
    ) -> Iterator[tuple[Crop, Result]]:
        """Compute a result for each of many crops, without dividing them into windows or looking for identical ones.

        Args:
            compute: Computes one result for each crop of a batch.
            crops: The crops, read when they are needed; a bounded number of them is held.

        Yields:
            Each crop with its result, in the order given.

        Raises:
            TooLongForMemoryError: A single crop does not fit into memory.
        """
        running, job = deque[Sequence[Crop]](), InferenceJob(compute=compute)

        def micro_batches() -> Iterator[_MicroBatch]:
            for members in _chunk_by_tokens(crops, lambda crop: len(crop.tokens), self.tokens_per_chunk):
                for part in split_by_budget([len(crop.tokens) for crop in members], self.micro_batch_tokens):
                    running.append(members[part])
                    yield _MicroBatch.from_crops([crop.tokens for crop in members[part]])

        for crop_results in self.pool.map(
            lambda batch: compute_or_split(job, batch), micro_batches(), num_per_worker=2
        ):
            for crop, (_, result) in zip(running.popleft(), crop_results, strict=True):
                yield crop, result

    def _chunks(self, proteins: Iterable[Protein]) -> Iterator[list[Protein]]:
        return _chunk_by_tokens(proteins, lambda protein: len(protein.sequence) + 2, self.tokens_per_chunk)


def _chunk_by_tokens(
    items: Iterable[Item], count_tokens: Callable[[Item], int], min_tokens: int
) -> Iterator[list[Item]]:
    """Group consecutive items until a group has a minimum number of tokens."""
    group: list[Item] = []
    num_tokens = 0
    for item in items:
        group.append(item)
        num_tokens += count_tokens(item)
        if num_tokens >= min_tokens:
            yield group
            group, num_tokens = [], 0
    if group:
        yield group


@contextmanager
def inference_engine(
    config: DeviceConfig, device: torch.device, shape: EncoderShape, width: int | None = None
) -> Iterator[Engine]:
    """Make the engine for a device and an encoder, with its workers.

    Args:
        config: The number of threads.
        device: The device of the encoder.
        shape: The shape of the encoder.
        width: The numbers that are held for each token; by default those of one layer.
    """
    max_tokens = _NUMBERS_PER_CHUNK // (width or shape.dim)
    with worker_pool(config, device, num_gpu_workers=2) as pool:
        if device.type == "cpu":
            yield Engine(pool=pool, tokens_per_chunk=min(max_tokens, _tokens_per_chunk(shape)))
        else:
            tokens_per_chunk = min(max_tokens, _TOKENS_PER_GPU_CHUNK)
            yield Engine(pool=pool, micro_batch_tokens=GPU_MICRO_BATCH_TOKENS, tokens_per_chunk=tokens_per_chunk)


def _tokens_per_chunk(shape: EncoderShape) -> int:
    small = _LARGEST_SMALL_MODEL
    fraction = small.num_layers * small.dim**2 / (shape.num_layers * shape.dim**2)
    return min(_TOKENS_PER_CHUNK, max(_MIN_TOKENS_PER_CHUNK, int(fraction * _TOKENS_PER_CHUNK)))


@dataclass(frozen=True, kw_only=True)
class _MicroBatch:
    """Crops that are computed together: whole proteins, or windows of long ones.

    Attributes:
        crops: Token ids of each crop, (tokens,), uint8.
        rows: The protein of each crop, numbered over all chunks.
        names: The names of these proteins; None for those without one.
        indices: For each crop, the number of its sequence among the unique ones of the chunk, and of its window in it.
        is_windows: Whether the crops are windows of long proteins.
    """

    crops: Sequence[Tokens]
    rows: Sequence[int]
    names: Sequence[str | None]
    indices: Sequence[tuple[int, int]]
    is_windows: bool

    @classmethod
    def from_crops(cls, crops: Sequence[Tokens]) -> "_MicroBatch":
        """Make a micro-batch of crops that belong to no chunk of proteins."""
        rows = range(len(crops))
        indices, names = [(row, 0) for row in rows], [None] * len(crops)
        return cls(crops=crops, rows=rows, names=names, indices=indices, is_windows=False)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, part: slice) -> "_MicroBatch":
        return _MicroBatch(
            crops=self.crops[part],
            rows=self.rows[part],
            names=self.names[part],
            indices=self.indices[part],
            is_windows=self.is_windows,
        )


_CropResults = list[tuple[tuple[int, int], Any]]


def compute_or_split(job: InferenceJob[Result], batch: _MicroBatch) -> _CropResults:
    """Compute a micro-batch, or its halves if memory does not suffice; a crop's result does not depend on the others.

    Raises:
        TooLongForMemoryError: A single crop does not fit into memory.
    """
    compute: Callable[[Batch], Iterable[Any]] = job.compute
    if batch.is_windows:
        assert job.windowed is not None
        compute = job.windowed.compute
    try:
        with torch.inference_mode():
            return list(zip(batch.indices, compute(concatenate(batch.crops, batch.rows)), strict=True))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(batch) == 1:
            raise TooLongForMemoryError(len(batch.crops[0]), batch.names[0]) from error
    # Outside the handler, which keeps the tensors of the failed attempt alive.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    middle = len(batch) // 2
    return compute_or_split(job, batch[:middle]) + compute_or_split(job, batch[middle:])


class _Chunk(Generic[Protein, Result]):
    """A bounded number of proteins and their results; identical sequences among them are computed once."""

    def __init__(
        self, members: Sequence[Protein], first_row: int, job: InferenceJob[Result], micro_batch_tokens: int
    ) -> None:
        self._members, self._first_row = members, first_row
        self._job, self._micro_batch_tokens = job, micro_batch_tokens
        self._rows: dict[str, int] = {}
        for row, member in enumerate(members, start=first_row):
            self._rows.setdefault(member.sequence, row)
        self._windows = [job.windows(len(sequence)) for sequence in self._rows]
        self._results: list[dict[int, Any]] = [{} for _ in self._windows]
        self._num_missing = sum(map(len, self._windows))

    @property
    def is_complete(self) -> bool:
        """Whether every crop has been computed."""
        return self._num_missing == 0

    def micro_batches(self) -> Iterator[_MicroBatch]:
        """Yield micro-batches of the windows of long proteins, then of whole proteins, longest first."""
        crops, indices, rows = [], [], []
        for number, (sequence, row) in enumerate(self._rows.items()):
            residues = encode(sequence)
            for window, (start, stop) in enumerate(self._windows[number]):
                crops.append(make_crop(residues, start, stop))
                indices.append((number, window))
                rows.append(row)
        for is_windows in (True, False):
            # Longest first, so that no worker computes a very long protein while the others are idle at the end.
            chosen = [
                index for index, (number, _) in enumerate(indices) if (len(self._windows[number]) > 1) == is_windows
            ]
            chosen.sort(key=lambda index: -len(crops[index]))
            lengths = np.array([len(crops[index]) for index in chosen], dtype=np.int64)
            for part in split_by_budget(lengths, self._micro_batch_tokens):
                yield _MicroBatch(
                    crops=[crops[index] for index in chosen[part]],
                    rows=[rows[index] for index in chosen[part]],
                    names=[self._name(rows[index]) for index in chosen[part]],
                    indices=[indices[index] for index in chosen[part]],
                    is_windows=is_windows,
                )

    def _name(self, row: int) -> str | None:
        return getattr(self._members[row - self._first_row], "id", None)

    def add(self, crop_results: _CropResults) -> None:
        """Add the results of a micro-batch."""
        for (number, window), result in crop_results:
            self._results[number][window] = result
        self._num_missing -= len(crop_results)

    def results(self) -> list[tuple[Protein, Result]]:
        """Return each protein with its result; identical proteins share one."""
        merged = dict(zip(self._rows, map(self._merge, self._results, self._windows), strict=True))
        return [(member, merged[member.sequence]) for member in self._members]

    def _merge(self, results: dict[int, Any], spans: Sequence[Span]) -> Result:
        if len(spans) == 1:
            result: Result = results[0]
            return result
        assert self._job.windowed is not None
        with torch.inference_mode():
            return self._job.windowed.merge([results[window] for window in range(len(spans))], spans)
