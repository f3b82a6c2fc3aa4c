"""Several processes on one run, as torchrun starts them: how their numbers become one. Rank 0 speaks and writes.

Every process draws the whole step and takes every n-th of its micro-batches, so that what a step sees does not depend
on the number of processes. Gradients are summed by the rule of DistributedDataParallel, but once a step and by hand:
micro-batches are differentiated side by side, and its hooks see only one backward pass at a time.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from protembed.device import WorkerPool, process_rank, world_size
from protembed.errors import PeerProcessError

Item = TypeVar("Item")

# Rank 0 may build the corpus of a large database while the others wait.
_CORPUS_TIMEOUT = timedelta(hours=24)


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: which one this is.
        size: how many there are.
        patient_group: the same processes, for what the first one may take long to decide; None where it is alone.
    """

    rank: int = 0
    size: int = 1
    patient_group: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0

    def shard(self, items: Sequence[Item]) -> Sequence[Item]:
        """Take this process's part of what all of them have."""
        return items[self.rank :: self.size]

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in place; all must call it with the same shapes."""
        if self.size > 1:
            with _noticing_losses():
                works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
                for work in works:
                    work.wait()

    def all_reduce_sum(self, *numbers: float) -> list[float]:
        """Sum numbers over all processes, in float64."""
        if self.size == 1:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.float64)
        with _noticing_losses():
            dist.all_reduce(sums)
        return sums.tolist()

    def any(self, flag: bool) -> bool:
        """Tell whether any process says so."""
        return self.all_reduce_sum(flag)[0] > 0

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.all_reduce_sum(0.0)

    def broadcast_object(self, value: Any) -> Any:
        """Give all processes what the first one has: anything that JSON can hold. It may take hours to have it."""
        if self.size == 1:
            return value
        text = json.dumps(value).encode() if self.is_first else b""
        length, content = torch.tensor([len(text)]), torch.frombuffer(bytearray(text or b" "), dtype=torch.uint8)
        with _noticing_losses():
            dist.broadcast(length, 0, group=self.patient_group)
            content = content if self.is_first else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(content, 0, group=self.patient_group)
        return json.loads(bytes(content.tolist()))


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def _noticing_losses() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerProcessError from error


@contextmanager
def joined_processes(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, if it did, and leave them in the end.

    Args:
        device: that this process computes on.

    Raises:
        LostProcessError: within the block, when another process has ended before its time.
    """
    if world_size() == 1:
        yield SINGLE_PROCESS
        return
    # Numbers that the host decides upon go by gloo, gradients by what suits their device.
    backend = "gloo"
    if device.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    dist.init_process_group(backend)
    try:
        patient_group = dist.new_group(backend="gloo", timeout=_CORPUS_TIMEOUT)
        yield ProcessGroup(process_rank(), world_size(), patient_group)
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Who computes a step, and in what numbers.

    Attributes:
        pool: the threads of this process.
        processes: the processes of the run.
        precision: of matrix products in training; the weights are float32 always.
    """

    pool: WorkerPool
    processes: ProcessGroup = SINGLE_PROCESS
    precision: torch.dtype = torch.float32
