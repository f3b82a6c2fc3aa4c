"""The inference engine: it cuts items into crops, computes these on worker threads, and keeps the input's order.

The caller says what an item is: an `InferenceJob` cuts it into crops, computes a part of its result from each crop, and
joins the parts.
"""

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
from protembed.inference.computation import Computation, run_to_end
from protembed.resources import is_out_of_memory

# The tokens that are held with their results, and lost when a run is killed: some seconds of work of a small model,
# fewer tokens for a large one, down to a few micro-batches.
_TOKENS_PER_CHUNK, _MIN_TOKENS_PER_CHUNK, _TOKENS_PER_GPU_CHUNK = 65_536, 8_192, 1_048_576
_LARGEST_SMALL_MODEL = SIZES["t6_8M"]
# A chunk holds a gigabyte of residues' vectors at most.
_NUMBERS_PER_CHUNK = 1 << 28

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    """

    pool: WorkerPool
    micro_batch_tokens: int = MICRO_BATCH_TOKENS
    tokens_per_chunk: int = _TOKENS_PER_CHUNK

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
        # The micro-batches of the next chunk are queued while the last ones of this chunk are computed.
        computed = self.pool.map(lambda crops: compute_or_split(job, crops), micro_batches, num_per_worker=2)
        for parts in chain(computed, [[]]):  # after the last crop, an item may still wait for its end to be seen
            for crop, part in parts:
                crop.entry.add(crop.number, part)
                on_crop(len(crop.tokens))
            for item, entry, ends_chunk in queue.take_complete():
                finished.append((item, entry.result))
                if ends_chunk:
                    yield finished
                    finished = []


@contextmanager
def inference_engine(
    config: DeviceConfig, device: torch.device, shape: EncoderShape, width: int | None = None
) -> Iterator[Engine]:
    """Make the engine for a device and an encoder, with its workers.

    Its chunks are smaller if more numbers are held for each token (`width`) than those of one layer.
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
        for members in _chunk_by_tokens(proteins, lambda protein: len(protein.sequence) + 2, self._tokens_per_chunk):
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

        return _chunk_by_tokens(crops(), lambda crop: len(crop.tokens), self._tokens_per_chunk)


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


def compute_or_split(job: InferenceJob[Any], crops: Sequence[_Crop]) -> list[tuple[_Crop, Any]]:
    """Compute a micro-batch, or its halves if memory does not suffice; a crop's part does not depend on the others.

    Raises:
        TooLongForMemoryError: A single crop does not fit into memory.
    """
    try:
        with torch.inference_mode():
            batch = concatenate([crop.tokens for crop in crops], [crop.entry.row for crop in crops])
            return list(zip(crops, run_to_end(job.compute(batch)), strict=True))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(crops) == 1:
            name = getattr(crops[0].entry.item, "id", None)
            raise TooLongForMemoryError(len(crops[0].tokens), name) from error
    # Outside the handler, which keeps the tensors of the failed attempt alive.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    middle = len(crops) // 2
    return compute_or_split(job, crops[:middle]) + compute_or_split(job, crops[middle:])
