"""Cores, memory and disk that this process may use: as the machine, a container, a scheduler or the user limits them.

Nothing here imports torch; memory of GPUs is in `protembed.device`.
"""

import math
import os
import re
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from protembed.config.common import DeviceConfig

_PROCESS = Path("/proc/self")
# A line of /proc/self/mountinfo: the group that is mounted, where, the version, and the resources of version 1.
_MOUNTED_GROUPS = re.compile(r"\S+ \S+ \S+ (\S+) (\S+) .*- (cgroup2?) \S* (\S+)")
_MEBIBYTE = 1 << 20
# The cores that a scheduler grants to a job: SLURM, Grid Engine, LSF (granted, then requested), PBS.
_GRANTED_CORES = ("SLURM_CPUS_PER_TASK", "NSLOTS", "LSB_DJOB_NUMPROC", "LSB_MAX_NUM_PROCESSORS", "NCPUS")
# Memory limits of a control group in bytes: of version 2, which slows processes down above the second, and version 1.
_MEMORY_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
# Limits of a process that `ulimit` sets, and Grid Engine and LSF for a job with a memory limit.
_PROCESS_LIMITS = (resource.RLIMIT_AS, resource.RLIMIT_DATA)


def environment_number(name: str, default: int) -> int:
    """Return the whole number in an environment variable; the default if it is not set, or is not such a number."""
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default


# Cores


def num_threads(config: DeviceConfig) -> int:
    """Return the number of CPU threads: as requested, else as the scheduler grants, else the available cores."""
    if config.threads is not None:
        return config.threads
    # Processes that torchrun starts share the cores of their machine. OMP_NUM_THREADS already counts per process, but
    # torchrun sets it to 1 where the user has not set it.
    num_sharing = environment_number("LOCAL_WORLD_SIZE", 1)
    openmp = environment_number("OMP_NUM_THREADS", 0)
    if openmp == 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        openmp = 0
    num_cores = available_cores()
    # A job on several machines is granted more cores than this one has.
    granted = min(next(filter(None, (environment_number(name, 0) for name in _GRANTED_CORES)), 0), num_cores)
    return granted // num_sharing or openmp or max(1, num_cores // num_sharing)


def available_cores() -> int:
    """Return the number of cores that this process may use; a fraction that a container grants is rounded up."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([num_cores, *(max(1, math.ceil(quota)) for quota in _cpu_quotas())])


def _cpu_quotas() -> Iterator[float]:
    """Yield the processor time per time that each control group of this process allows, in cores."""
    for group in _control_groups("cpu"):
        # "max 100000" without a limit; version 1 has a file for each of the two numbers, and -1 without a limit.
        times = [*_read_words(group / "cpu.max")] or [
            *_read_words(group / "cpu.cfs_quota_us"),
            *_read_words(group / "cpu.cfs_period_us"),
        ]
        if len(times) == 2 and all(time.isdecimal() for time in times) and int(times[1]):
            yield int(times[0]) / int(times[1])


# Memory


def available_memory() -> int:
    """Return the memory in bytes that this process may use: all of the machine's, or what limits it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([memory, *_scheduled_memory(), *_process_limits(), *_group_limits()])


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out: on a GPU, in torch, or where a library is loaded."""
    # The allocators of CPUs and Apple GPUs, and cuBLAS, raise a plain RuntimeError, and the loader an ImportError.
    texts = ("allocate memory", "out of memory", "ALLOC_FAILED", "failed to map segment")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


def _scheduled_memory() -> Iterator[int]:
    """Yield the memory that SLURM grants, which does not always limit a job by control groups; 0 is all of it."""
    num_cores = environment_number("SLURM_CPUS_ON_NODE", 0) or environment_number("SLURM_CPUS_PER_TASK", 1)
    per_node = environment_number("SLURM_MEM_PER_NODE", 0)
    per_core = environment_number("SLURM_MEM_PER_CPU", 0)
    yield from (_MEBIBYTE * memory for memory in (per_node, per_core * num_cores) if memory)


def _process_limits() -> Iterator[int]:
    limits = (resource.getrlimit(kind)[0] for kind in _PROCESS_LIMITS)
    yield from (limit for limit in limits if limit != resource.RLIM_INFINITY)


def _group_limits() -> Iterator[int]:
    for group in _control_groups("memory"):
        for word in (word for name in _MEMORY_LIMITS for word in _read_words(group / name)):
            if word.isdecimal():  # "max" without a limit
                yield int(word)


# Control groups


def _control_groups(controller: str) -> Iterator[Path]:
    """Yield the directories of this process's control groups for a resource, and of all groups around them.

    Version 2 has one hierarchy, version 1 one for each resource; a machine may use both. Source: cgroups(7), proc(5).
    """
    own = [line.split(":", 2) for line in _read_lines(_PROCESS / "cgroup")]
    groups = {name: path for _, names, path in own for name in names.split(",")}  # of version 2 the name is empty
    for mounted in filter(None, map(_MOUNTED_GROUPS.fullmatch, _read_lines(_PROCESS / "mountinfo"))):
        root, mount, kind, options = mounted.groups()
        name = "" if kind == "cgroup2" else controller
        if name in groups and (not name or name in options.split(",")):
            yield from _nested_groups(Path(_unescape(mount)), root, groups[name])


def _nested_groups(mount: Path, root: str, group: str) -> Iterator[Path]:
    """Yield the directory of a group and those around it, up to the one that is mounted.

    A container sees its own group as the mounted one, while the path of the group may be that of the host.
    """
    path = Path(group)
    relative = path.relative_to(root) if path.is_relative_to(root) and ".." not in path.parts else Path()
    yield from (mount / part for part in (relative, *relative.parents))


def _unescape(path: str) -> str:
    """Replace the octal codes of spaces and other special characters by these characters."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path)


def _read_lines(path: Path) -> list[str]:
    """Read the lines of a system file; none if this system does not have it, or it may not be read."""
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []


def _read_words(path: Path) -> list[str]:
    return [word for line in _read_lines(path) for word in line.split()]


# Disk


def free_disk(path: Path) -> int:
    """Return the free disk space in bytes at a path that exists or will be created.

    Where a file system does not know, as some network ones do not, everything fits.
    """
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if os.path.exists(parent))
    try:
        usage = shutil.disk_usage(existing)
    except OSError:
        return sys.maxsize
    return usage.free if usage.total else sys.maxsize
