"""Where and how things are computed: device and threads."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from protembed.config import ComputeConfig
from protembed.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")


def choose_device(config: ComputeConfig) -> torch.device:
    """Find the device to compute on.

    Raises:
        ConfigError: the device that was asked for is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if config.device == "auto":
        return torch.device(next(name for name, is_there in available.items() if is_there))
    if not available[config.device]:
        raise ConfigError("--device", config.device, "this machine or this build of torch has none")
    return torch.device(config.device)


def num_threads(config: ComputeConfig) -> int:
    """Count the CPU threads to use: as asked for, else as the scheduler grants, else the cores this process may use."""
    if config.threads is not None:
        return config.threads
    for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 0:
            return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerPool:
    """Threads that compute packs side by side, each operator on one thread; results come in the order of the packs.

    Two workers on two cores are faster than one pack on two OpenMP threads, and keep their pace on a busy machine,
    where OpenMP's threads wait for one another many times a layer. And since neither what a pack computes nor the order
    in which results are taken up depends on the number of workers, no bit of a result does.

    Use as a context manager; within it torch's operators use one thread in the calling thread too.

    Args:
        num_workers: packs computed at the same time.
    """

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers

    def __enter__(self) -> "WorkerPool":
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(1)
        # The number of intra-op threads belongs to each thread, hence the initializer.
        self._pool = ThreadPoolExecutor(self._num_workers, initializer=torch.set_num_threads, initargs=(1,))
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads_before)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Apply a function to each item, several at a time; results in the items' order."""
        return self._pool.map(function, items)


def worker_pool(config: ComputeConfig, device: torch.device) -> WorkerPool:
    """Make the pool for a device: one worker for each thread of a CPU, one alone for a GPU."""
    return WorkerPool(num_threads(config) if device.type == "cpu" else 1)
