"""Several processes that work on one run, as torchrun starts them. Rank 0 alone writes files and messages.

Every process draws the crops of the whole step, but masks and computes only every n-th of its micro-batches. What a
step sees therefore does not depend on the number of processes. Gradients are summed as by DistributedDataParallel, but
explicitly and once per step: its hooks support one backward pass at a time, and here several micro-batches are
differentiated concurrently.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from protembed.device import WorkerPool, process_rank, world_size
from protembed.errors import ConfigError, PeerProcessError, ProtembedError

# Rank 0 may build the corpus of a large database while the others wait.
_CORPUS_TIMEOUT = timedelta(hours=24)

# What the first process stores when it fails, and how long others that fail too wait for it.
_FAILURE, _FAILURE_TIMEOUT = "protembed/failure", timedelta(seconds=5)

Item = TypeVar("Item")


@contextmanager
def _peer_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerProcessError from error


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: Number of this process, from 0.
        slow_group: The same processes with a long timeout, for values that rank 0 may take hours to compute; None if
            there is only one process.
        is_sharded: Whether each process holds only some rows of every weight, as in `training/sharding.py`. All
            processes must then compute equally many micro-batches, one after the other.
    """

    rank: int = 0
    size: int = 1
    slow_group: dist.ProcessGroup | None = None
    is_sharded: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this process has rank 0, which writes files and messages."""
        return self.rank == 0

    @property
    def num_shards(self) -> int:
        """The number of processes that each hold a part of the weights; 1 if every process holds all."""
        return self.size if self.is_sharded else 1

    def shard(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's share of items that all processes have."""
        return items[self.rank :: self.size]

    def all_reduce(self, tensors: Sequence[Tensor], *, is_slow: bool = False) -> None:
        """Replace each tensor by its sum over all processes, in place; all must call it with the same shapes.

        Processes wait for one another up to half an hour, or up to a day if `is_slow`, for tensors on the CPU.
        """
        if self.size > 1:
            group = self.slow_group if is_slow else None
            with _peer_errors():
                works = [dist.all_reduce(tensor, group=group, async_op=True) for tensor in tensors]
                for work in works:
                    work.wait()

    def exchange(self, parts: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
        """Send one part to each process, and concatenate the parts that they send to this one.

        Args:
            parts: Flat tensors in the order of the processes' ranks.
            sizes: Number of elements that each process sends to this one.
        """
        received = parts[0].new_empty(sum(sizes))
        with _peer_errors():
            dist.all_to_all_single(received, torch.cat([*parts]), [*sizes], [len(part) for part in parts])
        return received

    def all_reduce_sum(self, *numbers: float) -> list[float]:
        """Sum numbers over all processes, in float64."""
        sums = torch.tensor(numbers, dtype=torch.float64)
        self.all_reduce([sums])
        return sums.tolist()

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        return self.all_reduce_sum(flag)[0] > 0

    def barrier(self) -> None:
        """Wait until all processes have called this method."""
        self.all_reduce_sum(0.0)

    def broadcast_object(self, value: Any) -> Any:
        """Return the value of rank 0, which JSON can hold, in all processes; they wait for it up to a day."""
        if self.size == 1:
            return value
        text = json.dumps(value).encode() if self.is_first else b""
        length, content = torch.tensor([len(text)]), torch.frombuffer(bytearray(text or b" "), dtype=torch.uint8)
        with _peer_errors():
            dist.broadcast(length, 0, group=self.slow_group)
            content = content if self.is_first else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(content, 0, group=self.slow_group)
        return json.loads(bytes(content.tolist()))


SINGLE_PROCESS = ProcessGroup()


def _check_environment() -> None:
    """Check that the variables of torchrun are complete; a scheduler or MPI may set some of them.

    Raises:
        ConfigError: One is missing.
    """
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            expected = f"{name} is not set: start the processes with torchrun, or unset WORLD_SIZE for a single one"
            raise ConfigError("WORLD_SIZE", os.environ["WORLD_SIZE"], expected)


@contextmanager
def joined_processes(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, if it did, each on its device; leave them at the end of the block.

    Raises:
        ConfigError: The variables of torchrun are incomplete.
        PeerProcessError: Within the block, if another process has ended early.
    """
    if world_size() == 1:
        yield SINGLE_PROCESS
        return
    _check_environment()
    # Numbers on the CPU are exchanged by gloo, gradients by the backend of their device.
    backend = "gloo"
    if device.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    dist.init_process_group(backend)
    try:
        slow_group = dist.new_group(backend="gloo", timeout=_CORPUS_TIMEOUT)
        yield ProcessGroup(process_rank(), world_size(), slow_group)
    finally:
        dist.destroy_process_group()


@contextmanager
def errors_reported_once(processes: ProcessGroup) -> Iterator[None]:
    """Let the first process alone report an error of the block that several processes have.

    In the others it becomes a PeerProcessError, which the command line does not print. An error that the first process
    does not have is unchanged.
    """
    try:
        yield
    except ProtembedError as error:
        if processes.size == 1 or isinstance(error, PeerProcessError):
            raise
        if processes.is_first:
            dist.distributed_c10d._get_default_store().set(_FAILURE, "")
        elif _first_has_failed():
            raise PeerProcessError from error
        raise


def _first_has_failed() -> bool:
    """Return whether the first process fails within some seconds."""
    try:
        dist.distributed_c10d._get_default_store().wait([_FAILURE], _FAILURE_TIMEOUT)
    except dist.DistStoreError:
        return False
    except dist.DistNetworkError:  # without torchrun, the first process holds the store, and has ended
        return True
    return True


@dataclass(frozen=True, kw_only=True)
class Executor:
    """The threads, processes and precision of a computation.

    Attributes:
        precision: Type of the inputs of matrix products in training; the weights are always float32.
    """

    pool: WorkerPool
    processes: ProcessGroup = SINGLE_PROCESS
    precision: torch.dtype = torch.float32
