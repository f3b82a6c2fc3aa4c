"""Where and how things are computed: device and threads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from protembed.config import ComputeConfig
from protembed.errors import ConfigError


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


@contextmanager
def intra_op_threads(number: int) -> Iterator[None]:
    """Let torch's operators use so many threads within the block, in this thread and those it starts."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
