"""The inference engine: it cuts items into crops, computes these on worker threads, and keeps the input's order.

The caller says what an item is: an `InferenceJob` cuts it into crops, computes a part of its result from each crop, and
joins the parts.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch

from protembed.config.common import GPU_MICRO_BATCH_TOKENS, MICRO_BATCH_TOKENS, DeviceConfig
from protembed.config.model_sizes import SIZES, EncoderShape
from protembed.data.alphabet import encode
from protembed.data.batching import Batch, Tokens, concatenate, make_crop, split_by_budget
from protembed.device import WorkerPool, worker_pool
from protembed.errors import TooLongForMemoryError
from protembed.inference.computation import Computation
from protembed.resources import is_out_of_memory

# The tokens that are held with their results, and lost when a run is killed: some seconds of work of a small model,
# fewer tokens for a large one, down to a few micro-batches.
_TOKENS_PER_CHUNK, _MIN_TOKENS_PER_CHUNK, _TOKENS_PER_GPU_CHUNK = 65_536, 8_192, 1_048_576
_LARGEST_SMALL_MODEL = SIZES["t6_8M"]
# The tokens for which each layer of a model is loaded once, if not all fit into memory: an H200 computes a layer of
# ESM-2 15B for so many in 85 ms, and copies it in 25 ms; a CPU needs minutes for them, and seconds for the copy.
TOKENS_PER_ROUND = 65_536
# A chunk holds a gigabyte of residues' vectors at most.
_NUMBERS_PER_CHUNK = 1 << 28

Item = TypeVar("Item")
Result = TypeVar("Result")


class LoadableLayers(Protocol):
    """Layers of an encoder whose weights are not all in memory."""

    def load(self, number: int) -> None:
        """Read the weights of a layer, from 0, in place of those of another."""


class HasSequence(Protocol):
    """Anything with a sequence."""

    @property
    def sequence(self) -> str:
        """Upper-case residues of the alphabet."""


@dataclass(frozen=True, kw_only=True)
class InferenceJob(Generic[Result]):
    """What the engine computes for each item, on several threads and without gradients.

    The crops of a chunk are computed longest first, and identical proteins of a chunk once. Crops of a divided protein
    are never in one batch with whole proteins.

    Attributes:
        crops: Cuts an item into crops: token ids, (tokens,), uint8, of each.
        compute: Computes a part for each crop of a batch, whose rows number the items of the engine's call from 0. It
            pauses before each layer of the encoder.
        join: Joins the parts of an item, in the order of its crops, to its result.
        is_streamed: Whether the crops of an item may be too many to be held. All crops are computed in their order
            then, and a chunk may end within an item. Otherwise items have a `sequence`, as `HasSequence`.
    """

    crops: Callable[[Any], Iterable[Tokens]]
    compute: Callable[[Batch], Computation[Iterable[Any]]]
    join: Callable[[Any, Sequence[Any]], Result]
    is_streamed: bool = False

    def num_tokens(self, item: object) -> int:
        """Count the tokens that are computed for an item."""
        return sum(map(len, self.crops(item)))


def whole_proteins(compute: Callable[[Batch], Computation[Iterable[Result]]]) -> InferenceJob[Result]:
    """Make a job that computes a result for each protein, which is a single crop with `<cls>` and `<eos>`."""
    return InferenceJob(
        crops=lambda protein: [make_crop(encode(protein.sequence), 0, len(protein.sequence))],
        compute=compute,
        join=lambda protein, parts: parts[0],
    )


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Groups crops into micro-batches, and computes them.

    Attributes:
        micro_batch_tokens: The maximum number of tokens of a micro-batch; a longer crop is a micro-batch by itself.
        tokens_per_chunk: The approximate number of tokens that are held, with their results, before these are yielded.
        layers: The encoder's layers, if they are loaded one after the other: micro-batches are computed together then,
            layer by layer. None if all layers are in memory.
        tokens_per_round: The approximate number of tokens that are computed together, for which each layer is loaded
            once.
    """

    pool: WorkerPool
    micro_batch_tokens: int = MICRO_BATCH_TOKENS
    tokens_per_chunk: int = _TOKENS_PER_CHUNK
    layers: LoadableLayers | None = None
    tokens_per_round: int = TOKENS_PER_ROUND

    def run(
        self, job: InferenceJob[Result], items: Iterable[Item], on_crop: Callable[[int], None] = lambda num_tokens: None
    ) -> Iterator[tuple[Item, Result]]:
        """Compute a result for each item.

        Args:
            job: What is computed.
            items: What the job cuts into crops, such as proteins, read when needed; a bounded number of them is held.
            on_crop: Called with the number of tokens of each crop when it is computed.

        Yields:
            Each item with its result, in the input's order.

        Raises:
            TooLongForMemoryError: A single crop does not fit into memory.
        """
        for chunk in self.run_committed(job, items, on_crop):
            yield from chunk

    def run_committed(
        self, job: InferenceJob[Result], items: Iterable[Item], on_crop: Callable[[int], None] = lambda num_tokens: None
    ) -> Iterator[list[tuple[Item, Result]]]:
        """Compute as `run` does, and yield the results of whole chunks of items; of single ones in a streamed job.

        Where chunks and micro-batches begin depends on the items alone, not on the workers, so that a run that is
        resumed after a chunk gives the same numbers, bit for bit.
        """
        queue, finished = _Queue[Item](job, self.tokens_per_chunk), list[tuple[Item, Result]]()
        micro_batches = (
            crops[part]
            for crops in queue.groups(items)
            for part in split_by_budget([len(crop.tokens) for crop in crops], self.micro_batch_tokens)
        )
        computed = self._compute(_Attempt(job, crops) for crops in micro_batches)
        for parts in chain(computed, [[]]):  # after the last crop, an item may still wait for its end to be seen
            for crop, part in parts:
                crop.entry.add(crop.number, part)
                on_crop(len(crop.tokens))
            for item, entry, ends_chunk in queue.take_complete():
                finished.append((item, entry.result))
                if ends_chunk:
                    yield finished
                    finished = []

    def _compute(self, attempts: Iterable["_Attempt"]) -> Iterator[list[tuple["_Crop", Any]]]:
        """Compute micro-batches; those of the next chunk are queued while the last ones of a chunk are computed."""
        if self.layers is None:
            yield from self.pool.map(_compute_or_split, attempts, num_per_worker=2)
            return
        for together in chunk_by_tokens(attempts, lambda attempt: attempt.num_tokens, self.tokens_per_round):
            yield from _compute_by_layers(self.pool, self.layers, together)


@contextmanager
def inference_engine(
    config: DeviceConfig,
    device: torch.device,
    shape: EncoderShape,
    width: int | None = None,
    *,
    layers: LoadableLayers | None = None,
) -> Iterator[Engine]:
    """Make the engine for a device and an encoder, with its workers.

    Args:
        config: The number of threads.
        device: The device that computes.
        shape: The shape of the encoder.
        width: Numbers that are held for each token; None for those of one layer. If they are more, chunks are smaller.
        layers: The encoder's layers, if they are loaded one after the other.
    """
    max_tokens = _NUMBERS_PER_CHUNK // (width or shape.dim)
    with worker_pool(config, device, num_gpu_workers=2) as pool:
        is_gpu = device.type != "cpu"
        yield Engine(
            pool=pool,
            micro_batch_tokens=GPU_MICRO_BATCH_TOKENS if is_gpu else MICRO_BATCH_TOKENS,
            tokens_per_chunk=min(max_tokens, _TOKENS_PER_GPU_CHUNK if is_gpu else _tokens_per_chunk(shape)),
            layers=layers,
            tokens_per_round=min(max_tokens, TOKENS_PER_ROUND),
        )


def _tokens_per_chunk(shape: EncoderShape) -> int:
    small = _LARGEST_SMALL_MODEL
    fraction = small.num_layers * small.num_layer_weights / (shape.num_layers * shape.num_layer_weights)
    return min(_TOKENS_PER_CHUNK, max(_MIN_TOKENS_PER_CHUNK, int(fraction * _TOKENS_PER_CHUNK)))


# Chunks


class _Entry:
    """The computation of an item, whose parts arrive in any order."""

    def __init__(self, job: InferenceJob[Any], item: Any, row: int) -> None:
        self._job, self.item, self.row = job, item, row
        self._parts: list[Any] = []
        self._num_missing = 1  # one more than the crops that are not computed, until all are cut

    def cut(self) -> Iterator["_Crop"]:
        """Cut the item into its crops."""
        for number, tokens in enumerate(self._job.crops(self.item)):
            self._parts.append(None)
            self._num_missing += 1
            yield _Crop(tokens, self, number)
        self._num_missing -= 1

    def add(self, number: int, part: Any) -> None:
        """Add the part computed of a crop."""
        self._parts[number] = part
        self._num_missing -= 1

    @property
    def is_complete(self) -> bool:
        """Whether all crops are cut and computed."""
        return self._num_missing == 0

    @cached_property
    def result(self) -> Any:
        """The joined parts, which are not kept; identical proteins share one result."""
        with torch.inference_mode():
            result = self._job.join(self.item, self._parts)
        self._parts.clear()
        return result


class _Crop(NamedTuple):
    tokens: Tokens
    entry: _Entry
    number: int


class _Member(NamedTuple, Generic[Item]):
    item: Item
    entry: _Entry
    ends_chunk: bool


class _Queue(Generic[Item]):
    """The items of one call of the engine, from their crops to their results."""

    def __init__(self, job: InferenceJob[Any], tokens_per_chunk: int) -> None:
        self._job, self._tokens_per_chunk = job, tokens_per_chunk
        self._waiting = deque[_Member[Item]]()

    def groups(self, items: Iterable[Item]) -> Iterator[list[_Crop]]:
        """Cut items into crops, and yield these in groups that share micro-batches."""
        return self._streamed(items) if self._job.is_streamed else self._longest_first(items)

    def take_complete(self) -> Iterator[_Member[Item]]:
        """Take the items that are complete, as far as no earlier one is incomplete."""
        while self._waiting and self._waiting[0].entry.is_complete:
            yield self._waiting.popleft()

    def _longest_first(self, proteins: Iterable[Any]) -> Iterator[list[_Crop]]:
        """Yield the crops of the divided proteins of each chunk, then its whole proteins.

        The longest come first, so that no worker computes a very long protein while the others are idle at the end.
        """
        first_row = 0
        for members in chunk_by_tokens(proteins, lambda protein: len(protein.sequence) + 2, self._tokens_per_chunk):
            entries: dict[str, _Entry] = {}
            for row, protein in enumerate(members, start=first_row):
                entry = entries.setdefault(protein.sequence, _Entry(self._job, protein, row))
                self._waiting.append(_Member(protein, entry, row + 1 == first_row + len(members)))
            first_row += len(members)
            crops = [list(entry.cut()) for entry in entries.values()]
            for is_divided in (True, False):
                chosen = [crop for of_entry in crops if (len(of_entry) > 1) == is_divided for crop in of_entry]
                yield sorted(chosen, key=lambda crop: -len(crop.tokens))

    def _streamed(self, items: Iterable[Item]) -> Iterator[list[_Crop]]:
        """Yield the crops of each chunk in their order; a chunk may end within an item."""

        def crops() -> Iterator[_Crop]:
            for row, item in enumerate(items):
                entry = _Entry(self._job, item, row)
                self._waiting.append(_Member(item, entry, True))
                yield from entry.cut()

        return chunk_by_tokens(crops(), lambda crop: len(crop.tokens), self._tokens_per_chunk)


def chunk_by_tokens(
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


# Micro-batches


class _Attempt:
    """An attempt to compute a micro-batch: it ends when the parts are there, or memory does not suffice."""

    def __init__(self, job: InferenceJob[Any], crops: Sequence[_Crop]) -> None:
        self._job, self.crops = job, crops
        self._computation: Computation[Iterable[Any]] | None = None
        self.parts: list[tuple[_Crop, Any]] | None = None
        self.is_running = True

    @property
    def num_tokens(self) -> int:
        """The number of tokens of all crops."""
        return sum(len(crop.tokens) for crop in self.crops)

    def advance(self) -> None:
        """Compute up to the next pause.

        Raises:
            TooLongForMemoryError: Memory does not suffice for a single crop.
        """
        try:
            with torch.inference_mode():
                if self._computation is None:
                    rows = [crop.entry.row for crop in self.crops]
                    self._computation = self._job.compute(concatenate([crop.tokens for crop in self.crops], rows))
                next(self._computation)
            return
        except StopIteration as end:
            self.parts = list(zip(self.crops, end.value, strict=True))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(self.crops) == 1:
                name = getattr(self.crops[0].entry.item, "id", None)
                raise TooLongForMemoryError(len(self.crops[0].tokens), name) from error
        self.is_running, self._computation = False, None

    def halves(self) -> list["_Attempt"]:
        """Divide a micro-batch that did not fit; a crop's part does not depend on the others."""
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        middle = len(self.crops) // 2
        return [_Attempt(self._job, crops) for crops in (self.crops[:middle], self.crops[middle:])]


def _compute_or_split(attempt: _Attempt) -> list[tuple[_Crop, Any]]:
    """Compute a micro-batch, or its halves if memory does not suffice."""
    while attempt.is_running:
        attempt.advance()
    if attempt.parts is None:
        return [part for half in attempt.halves() for part in _compute_or_split(half)]
    return attempt.parts


def _compute_by_layers(
    pool: WorkerPool, layers: LoadableLayers, attempts: Sequence[_Attempt]
) -> Iterator[list[tuple[_Crop, Any]]]:
    """Compute micro-batches together, layer by layer; those for which memory does not suffice are halved afterwards."""
    for layer in itertools.count(-1):  # first the embedding
        running = [attempt for attempt in attempts if attempt.is_running]
        if not running:
            break
        if layer >= 0:
            layers.load(layer)
        for _ in pool.map(_Attempt.advance, running):
            pass
    yield from (attempt.parts for attempt in attempts if attempt.parts is not None)
    if halves := [half for attempt in attempts if attempt.parts is None for half in attempt.halves()]:
        yield from _compute_by_layers(pool, layers, halves)
