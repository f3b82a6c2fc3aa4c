"""The one inference engine: concatenates proteins, computes on worker threads, gives results in the input's order.

What is computed is the caller's: a `InferenceJob` says what comes of a batch of whole proteins, and how the windows of
a protein that is longer than the model's window are computed and joined.
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

# Held at once, with their results, and lost when a run is killed: some seconds of a small model, fewer tokens of a
# large one, down to a few micro-batches.
_TOKENS_PER_CHUNK, _MIN_TOKENS_PER_CHUNK, _TOKENS_PER_GPU_CHUNK = 65_536, 8_192, 1_048_576
_LARGEST_SMALL_MODEL = SIZES["t6_8M"]
# And never more than a gigabyte of residues' vectors.
_NUMBERS_PER_CHUNK = 1 << 28


class HasSequence(Protocol):
    """Anything with a sequence of residues."""

    @property
    def sequence(self) -> str:
        """Upper-case residues of the alphabet."""
        ...


class HasTokens(Protocol):
    """A crop that is computed as it stands, such as a copy of a protein with one residue masked."""

    @property
    def tokens(self) -> Tokens:
        """(tokens,), uint8."""
        ...


Protein = TypeVar("Protein", bound=HasSequence)
Crop = TypeVar("Crop", bound=HasTokens)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class WindowedJob(Generic[Result]):
    """What becomes of proteins longer than a window.

    Attributes:
        window_residues: the longest stretch that is computed at once.
        windows: from a batch of windows to the vectors of each one's tokens, on the CPU.
        join: from the vectors of a protein's windows, and where these lie, to its result.
    """

    window_residues: int
    windows: Callable[[Batch], Iterable[Tensor]]
    join: Callable[[Sequence[Tensor], Sequence[Span]], Result]


@dataclass(frozen=True, kw_only=True)
class InferenceJob(Generic[Result]):
    """What the engine computes of each protein; all of it on several threads, without gradients.

    Attributes:
        whole: from a batch of whole proteins, with `<cls>` and `<eos>`, to one result each. The batch's rows number the
            proteins of the engine's call from 0.
        long: what becomes of longer ones; None: every protein is whole.
    """

    whole: Callable[[Batch], Iterable[Result]]
    long: WindowedJob[Result] | None = None

    def spans(self, num_residues: int) -> list[Span]:
        """Lay windows over a protein; one alone where it is computed whole."""
        return window_spans(num_residues, num_residues if self.long is None else self.long.window_residues)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How proteins are grouped and computed.

    Attributes:
        pool: computes micro-batches side by side.
        micro_batch_tokens: the most tokens of a micro-batch; a longer protein is a micro-batch of its own.
        tokens_per_chunk: about the tokens that are held, with their results, before these are handed over.
    """

    pool: WorkerPool
    micro_batch_tokens: int = MICRO_BATCH_TOKENS
    tokens_per_chunk: int = _TOKENS_PER_CHUNK

    def run(self, computation: InferenceJob[Result], proteins: Iterable[Protein]) -> Iterator[tuple[Protein, Result]]:
        """Compute something for each protein.

        Args:
            computation: what.
            proteins: read as they are needed; a bounded number of them is held.

        Yields:
            Each protein with its result, in the input's order.

        Raises:
            TooLongForMemoryError: a protein does not fit into memory even alone.
        """
        for chunk in self.run_committed(computation, proteins):
            yield from chunk

    def run_committed(
        self, computation: InferenceJob[Result], proteins: Iterable[Protein]
    ) -> Iterator[list[tuple[Protein, Result]]]:
        """Compute as `run` does, and yield the results of so many proteins together as are computed together.

        Where chunks and micro-batches begin depends on the proteins alone, not on the workers: who takes up a run after
        a chunk gets the same numbers, to the bit.
        """
        running = deque[_Chunk[Protein, Result]]()

        def micro_batches() -> Iterator[_MicroBatch]:
            first_row = 0
            for members in self._chunks(proteins):
                running.append(_Chunk(members, first_row, computation, self.micro_batch_tokens))
                first_row += len(members)
                yield from running[-1].micro_batches()

        # The micro-batches of the next chunk are on their way while the last ones of this chunk are computed.
        for parts in self.pool.map(lambda one: compute_or_split(computation, one), micro_batches(), num_per_worker=2):
            running[0].receive(parts)
            if running[0].is_complete:
                yield running.popleft().results()

    def run_crops(
        self, compute: Callable[[Batch], Iterable[Result]], crops: Iterable[Crop]
    ) -> Iterator[tuple[Crop, Result]]:
        """Compute something for each of many crops that were made, not read; none is cut or looked for twice.

        Args:
            compute: from a batch of crops to one result each.
            crops: taken as they are needed; a bounded number of them is held.

        Yields:
            Each crop with its result, in the order given.

        Raises:
            TooLongForMemoryError: a crop does not fit into memory even alone.
        """
        running, computation = deque[Sequence[Crop]](), InferenceJob(whole=compute)

        def micro_batches() -> Iterator[_MicroBatch]:
            for members in _chunk_by_tokens(crops, lambda crop: len(crop.tokens), self.tokens_per_chunk):
                for part in split_by_budget([len(crop.tokens) for crop in members], self.micro_batch_tokens):
                    running.append(members[part])
                    yield _MicroBatch.of([crop.tokens for crop in members[part]])

        for parts in self.pool.map(lambda one: compute_or_split(computation, one), micro_batches(), num_per_worker=2):
            for crop, (_, result) in zip(running.popleft(), parts, strict=True):
                yield crop, result

    def _chunks(self, proteins: Iterable[Protein]) -> Iterator[list[Protein]]:
        return _chunk_by_tokens(proteins, lambda protein: len(protein.sequence) + 2, self.tokens_per_chunk)


def _chunk_by_tokens(items: Iterable[Item], num_tokens: Callable[[Item], int], wanted: int) -> Iterator[list[Item]]:
    """Take consecutive items together until they have as many tokens as wanted."""
    group: list[Item] = []
    filled = 0
    for item in items:
        group.append(item)
        filled += num_tokens(item)
        if filled >= wanted:
            yield group
            group, filled = [], 0
    if group:
        yield group


@contextmanager
def inference_engine(
    config: DeviceConfig, device: torch.device, shape: EncoderShape, width: int | None = None
) -> Iterator[Engine]:
    """Make the engine for a device and an encoder, with its workers.

    Args:
        config: how many threads.
        device: where is computed.
        shape: of the encoder.
        width: the numbers that are held of a token; by default those of one layer.
    """
    most = _NUMBERS_PER_CHUNK // (width or shape.dim)
    with worker_pool(config, device, num_gpu_workers=2) as pool:
        if device.type == "cpu":
            yield Engine(pool=pool, tokens_per_chunk=min(most, _tokens_per_chunk(shape)))
        else:
            tokens_per_chunk = min(most, _TOKENS_PER_GPU_CHUNK)
            yield Engine(pool=pool, micro_batch_tokens=GPU_MICRO_BATCH_TOKENS, tokens_per_chunk=tokens_per_chunk)


def _tokens_per_chunk(shape: EncoderShape) -> int:
    small = _LARGEST_SMALL_MODEL
    share = small.num_layers * small.dim**2 / (shape.num_layers * shape.dim**2)
    return min(_TOKENS_PER_CHUNK, max(_MIN_TOKENS_PER_CHUNK, int(share * _TOKENS_PER_CHUNK)))


@dataclass(frozen=True, kw_only=True)
class _MicroBatch:
    """Crops that are computed together: whole proteins, or windows of long ones.

    Attributes:
        crops: each (tokens,), uint8.
        rows: the protein of each, over all chunks.
        names: of these proteins, where they have some.
        places: of each, the unique sequence of its chunk and which window of it this is.
        is_windows: which of the two.
    """

    crops: Sequence[Tokens]
    rows: Sequence[int]
    names: Sequence[str | None]
    places: Sequence[tuple[int, int]]
    is_windows: bool

    @classmethod
    def of(cls, crops: Sequence[Tokens]) -> "_MicroBatch":
        """Make a micro-batch of crops that belong to nothing but themselves."""
        rows = range(len(crops))
        places, names = [(row, 0) for row in rows], [None] * len(crops)
        return cls(crops=crops, rows=rows, names=names, places=places, is_windows=False)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, part: slice) -> "_MicroBatch":
        return _MicroBatch(
            crops=self.crops[part],
            rows=self.rows[part],
            names=self.names[part],
            places=self.places[part],
            is_windows=self.is_windows,
        )


_CropResults = list[tuple[tuple[int, int], Any]]


def compute_or_split(computation: InferenceJob[Result], one: _MicroBatch) -> _CropResults:
    """Compute a micro-batch, or its halves where memory does not suffice; a crop's result does not depend on others.

    Raises:
        TooLongForMemoryError: one crop alone is too much.
    """
    compute: Callable[[Batch], Iterable[Any]] = computation.whole
    if one.is_windows:
        assert computation.long is not None
        compute = computation.long.windows
    try:
        with torch.inference_mode():
            return list(zip(one.places, compute(concatenate(one.crops, one.rows)), strict=True))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(one) == 1:
            raise TooLongForMemoryError(len(one.crops[0]), one.names[0]) from error
    # Outside the handler, which keeps the tensors of the failed attempt alive.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    middle = len(one) // 2
    return compute_or_split(computation, one[:middle]) + compute_or_split(computation, one[middle:])


class _Chunk(Generic[Protein, Result]):
    """A bounded number of proteins on their way; identical sequences among them are computed once."""

    def __init__(
        self, members: Sequence[Protein], first_row: int, computation: InferenceJob[Result], micro_batch_tokens: int
    ) -> None:
        self._members, self._first_row = members, first_row
        self._computation, self._micro_batch_tokens = computation, micro_batch_tokens
        self._rows: dict[str, int] = {}
        for row, member in enumerate(members, start=first_row):
            self._rows.setdefault(member.sequence, row)
        self._spans = [computation.spans(len(sequence)) for sequence in self._rows]
        self._parts: list[dict[int, Any]] = [{} for _ in self._spans]
        self._num_missing = sum(map(len, self._spans))

    @property
    def is_complete(self) -> bool:
        """Whether every crop has been computed."""
        return self._num_missing == 0

    def micro_batches(self) -> Iterator[_MicroBatch]:
        """Divide the chunk: the windows of long proteins, then whole ones, longest first."""
        crops, places, rows = [], [], []
        for number, (sequence, row) in enumerate(self._rows.items()):
            residues = encode(sequence)
            for window, (start, stop) in enumerate(self._spans[number]):
                crops.append(make_crop(residues, start, stop))
                places.append((number, window))
                rows.append(row)
        for is_windows in (True, False):
            # Longest first: no worker is left alone with a giant at the end.
            chosen = [index for index, (number, _) in enumerate(places) if (len(self._spans[number]) > 1) == is_windows]
            chosen.sort(key=lambda index: -len(crops[index]))
            lengths = np.array([len(crops[index]) for index in chosen], dtype=np.int64)
            for part in split_by_budget(lengths, self._micro_batch_tokens):
                yield _MicroBatch(
                    crops=[crops[index] for index in chosen[part]],
                    rows=[rows[index] for index in chosen[part]],
                    names=[self._name(rows[index]) for index in chosen[part]],
                    places=[places[index] for index in chosen[part]],
                    is_windows=is_windows,
                )

    def _name(self, row: int) -> str | None:
        return getattr(self._members[row - self._first_row], "id", None)

    def receive(self, parts: _CropResults) -> None:
        """Take up what was computed of a micro-batch."""
        for (number, window), part in parts:
            self._parts[number][window] = part
        self._num_missing -= len(parts)

    def results(self) -> list[tuple[Protein, Result]]:
        """Give each protein its result; identical proteins share one."""
        joined = dict(zip(self._rows, map(self._join, self._parts, self._spans), strict=True))
        return [(member, joined[member.sequence]) for member in self._members]

    def _join(self, parts: dict[int, Any], spans: Sequence[Span]) -> Result:
        if len(spans) == 1:
            result: Result = parts[0]
            return result
        assert self._computation.long is not None
        with torch.inference_mode():
            return self._computation.long.join([parts[window] for window in range(len(spans))], spans)
