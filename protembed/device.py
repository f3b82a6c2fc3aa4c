"""Where and how things are computed: device, precision, threads, exact arithmetic, the place among processes."""

import os
import resource
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TypeVar

import torch
import torch.nn.functional as F

from protembed.config.common import GPU_MICRO_BATCH_TOKENS, MICRO_BATCH_TOKENS, DeviceConfig, PrecisionName
from protembed.config.embed import EmbedPrecisionName
from protembed.errors import ConfigError

# Variables that lower the precision of float32 products, with the values that do. Libraries read them once, perhaps
# long ago: what they hold by now can be known by the variable alone, and not be changed any more.
_LOWERING: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {
        "ONEDNN_DEFAULT_FPMATH_MODE": ("bf16", "f16", "tf32", "any"),
        "DNNL_DEFAULT_FPMATH_MODE": ("bf16", "f16", "tf32", "any"),
    },
    "cuda": {"NVIDIA_TF32_OVERRIDE": ("1",)},
}
_KEPT_PRECISIONS = ("none", "ieee")
_lock = Lock()
# What was set aside, in the order of the blocks, and whether each has ended: those of several threads may overlap.
_set_aside: dict[ExitStack, bool] = {}


def check_full_precision(device: torch.device) -> None:
    """Refuse variables of the environment by which a device computes float32 products in fewer digits.

    Raises:
        ConfigError: one is set so.
    """
    for name, values in _LOWERING.get(device.type, {}).items():
        value = os.environ.get(name, "")
        if value.lower() in values:
            expected = "it makes float32 products less precise than the result would say: unset it"
            raise ConfigError(name, value, expected)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 as float32 within the block, whatever the caller has set; what was set comes back after it.

    Set aside are torch's default dtype and device, the precision of float32 products, autocast, inference mode, the
    flushing of denormal numbers, and deterministic algorithms, which refuse operators that are deterministic here.
    """
    # MKL promises the same bits from run to run only in such a mode, and reads the variable at its first product. It
    # costs nothing (benchmarks/README.md). Any other mode is as precise, and somebody's wish.
    if os.environ.get("MKL_CBWR", "").upper() in ("", "OFF"):
        os.environ["MKL_CBWR"] = "AUTO"
    with _of_the_process(), _of_the_thread():
        yield


@contextmanager
def _of_the_process() -> Iterator[None]:
    before = ExitStack()
    with _lock:
        _set_aside_dtype(before)
        _set_aside_products(before)
        _set_aside[before] = False
    try:
        yield
    finally:
        with _lock:
            _set_aside[before] = True
            # What the first block set aside comes back when the last one has ended.
            while _set_aside and list(_set_aside.values())[-1]:
                _set_aside.popitem()[0].close()


def _set_aside_dtype(before: ExitStack) -> None:
    if torch.get_default_dtype() != torch.float32:
        before.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
    if torch.are_deterministic_algorithms_enabled():
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        before.callback(torch.use_deterministic_algorithms, True, warn_only=warn_only)
        torch.use_deterministic_algorithms(False)


def _set_aside_products(before: ExitStack) -> None:
    """Set aside the precision of float32 products, which torch keeps twice: for all devices, and for each library."""
    products = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]  # of a class
    # A library that was given none of its own has that of all its operators.
    inherited = (torch.backends.cudnn.fp32_precision, torch.backends.mkldnn.fp32_precision)
    precisions = [product.fp32_precision for product in products]
    if all(precision in _KEPT_PRECISIONS for precision in precisions):
        return
    own = ["none" if one == of_all else one for one, of_all in zip(precisions, inherited, strict=True)]

    def restore() -> None:
        torch.set_float32_matmul_precision(of_all_devices)
        for product, precision in zip(products, own, strict=True):
            product.fp32_precision = precision

    before.callback(restore)
    # Torch refuses to tell the one while the other contradicts it.
    for product in products:
        product.fp32_precision = "ieee"
    of_all_devices = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    for product in products:
        product.fp32_precision = "ieee"


@contextmanager
def _of_the_thread() -> Iterator[None]:
    with ExitStack() as before:
        for device_type in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(device_type):
                before.enter_context(torch.autocast(device_type, enabled=False))
        if torch.get_default_device().type != "cpu":
            before.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            before.enter_context(torch.inference_mode(False))
        if _flushes_denormals():
            before.callback(torch.set_flush_denormal, True)
            torch.set_flush_denormal(False)
        yield


def _flushes_denormals() -> bool:
    return (torch.full((), 1e-40, dtype=torch.float32, device="cpu") * 1).item() == 0


Item = TypeVar("Item")
Result = TypeVar("Result")


def choose_device(config: DeviceConfig) -> torch.device:
    """Find the device to compute on.

    Raises:
        ConfigError: the device that was asked for is not there, or computes less precisely than it would say.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name: str = config.device
    if name == "auto":
        name = next(device for device, is_there in available.items() if is_there)
    elif not available[name]:
        raise ConfigError("--device", name, "this machine or this build of torch has none")
    check_full_precision(torch.device(name))
    if name == "cuda" and world_size() > 1:
        return _own_gpu()
    return torch.device(name)


def _own_gpu() -> torch.device:
    """Find the GPU of one of several processes; a scheduler may show each of them its own alone."""
    rank, num_gpus = _environment_number("LOCAL_RANK", 0), torch.cuda.device_count()
    if num_gpus > 1 and rank >= num_gpus:
        expected = f"process {rank} of this machine has none of its own, there are {num_gpus}"
        raise ConfigError("--device", "cuda", expected)
    return torch.device("cuda", rank if num_gpus > 1 else 0)


def choose_precision(precision: PrecisionName | EmbedPrecisionName, device: torch.device) -> torch.dtype:
    """Decide in what numbers matrix products are computed: bfloat16 on GPUs that have it, else float32."""
    if precision == "auto":
        is_fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if is_fast else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def has_varlen_attention(device: torch.device) -> bool:
    """Tell whether a device mixes packed proteins of unequal length in one kernel: NVIDIA's from Ampere on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def default_micro_batch_tokens(device: torch.device) -> int:
    """Say how many tokens are best computed at once: a thousand on each thread of a CPU, many more on a GPU."""
    return GPU_MICRO_BATCH_TOKENS if device.type == "cuda" else MICRO_BATCH_TOKENS


def process_rank() -> int:
    """Tell which of the processes that torchrun started this is; 0 speaks and writes."""
    return _environment_number("RANK", 0)


def world_size() -> int:
    """Count the processes that torchrun started; 1 without it."""
    return _environment_number("WORLD_SIZE", 1)


def _environment_number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default


def num_threads(config: DeviceConfig) -> int:
    """Count the CPU threads to use: as asked for, else as the scheduler grants, else the cores this process may use."""
    if config.threads is not None:
        return config.threads
    # Processes that torchrun starts share their machine's cores. OMP_NUM_THREADS means one process already, but where
    # it was not set torchrun sets it to 1, which nobody asked for.
    num_sharing = _environment_number("LOCAL_WORLD_SIZE", 1)
    openmp = _environment_number("OMP_NUM_THREADS", 0)
    if openmp == 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        openmp = 0
    granted = _environment_number("SLURM_CPUS_PER_TASK", 0) // num_sharing or openmp
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return granted or max(1, num_cores // num_sharing)


def peak_memory(device: torch.device) -> int:
    """Return the most memory that this process has held so far, in bytes: on a GPU if that is the device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def total_memory(device: torch.device) -> int:
    """Return the memory of a device in bytes: of the GPU, or of the machine as far as this process may use it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    text = limit.read_text().strip() if limit.exists() else ""
    return min(memory, int(text)) if text.isdecimal() else memory


def free_disk(path: Path) -> int:
    """Return how many bytes can still be written where a path is, or will be made."""
    place = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(place).free


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether memory did not suffice."""
    # The allocators of CPUs and Apple's GPUs have no exception of their own, nor has cuBLAS.
    texts = ("allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in texts)


@cache
def load_kernels() -> None:
    """Use each library of kernels once, in this thread, before several threads do so at the same time.

    MKL, oneDNN and torch look at the processor, and choose and compile their kernels, at their first use. If two
    threads meet there, one of them could be given another kernel than the other, whose sums differ in the last bits.
    It takes some milliseconds, once in a process.
    """
    ones = torch.ones(64, 64)
    with torch.inference_mode():
        F.gelu(F.layer_norm(F.linear(ones, ones, ones[0]), (64,)))
        F.scaled_dot_product_attention(ones[None, None], ones[None, None], ones[None, None])
        torch.einsum("qhd,khd->hqk", ones[None], ones[None]).softmax(-1)
        ones.cos(), ones.sin(), ones.exp(), ones.mean(0)
        if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            torch.ops.mkldnn._linear_pointwise(ones, ones, ones[0], "none", [], "")
            torch.ops.mkldnn._linear_pointwise(ones, ones, ones[0], "gelu", [], "none")
            torch.ops.mkldnn._linear_pointwise.binary(ones, ones, ones, ones[0], "add")


class WorkerPool:
    """Threads that compute micro-batches side by side, each operator on one thread; results come in order.

    Two workers on two cores are faster than one micro-batch on two OpenMP threads, and keep their pace on a busy
    machine, where OpenMP's threads wait for one another many times a layer. And since neither what a micro-batch
    computes nor the order in which results are taken up depends on the number of workers, no bit of a result does.

    Use as a context manager; within it torch's operators use one thread in the calling thread too, and settings of the
    caller's that would change the numbers are set aside.

    Args:
        num_workers: micro-batches computed at the same time.

    Attributes:
        num_workers: the same.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers

    def __enter__(self) -> "WorkerPool":
        self._arithmetic = exact_float32()
        self._arithmetic.__enter__()
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(1)
        load_kernels()
        # The number of intra-op threads belongs to each thread, hence the initializer.
        self._pool = ThreadPoolExecutor(self.num_workers, initializer=torch.set_num_threads, initargs=(1,))
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # Who is interrupted does not wait for a matrix product of minutes.
        is_interrupted = kind is not None and not issubclass(kind, Exception)
        self._pool.shutdown(wait=not is_interrupted, cancel_futures=True)
        torch.set_num_threads(self._threads_before)
        self._arithmetic.__exit__(None, None, None)

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, num_per_worker: int = 1
    ) -> Iterator[Result]:
        """Apply a function to each item, several at a time; results in the items' order.

        Where the items end with an error, it is raised after the results of those before it.

        Args:
            function: called on the pool's threads.
            items: taken as they are needed.
            num_per_worker: how many items are on their way, or wait to be taken, for each worker; memory does not grow
                with the number of items. With two, workers go on while the caller is busy with a result.
        """
        running, remaining = deque[Future[Result]](), iter(items)
        end: Exception | None = None
        while end is None:
            try:
                running.append(self._pool.submit(function, next(remaining)))
            except Exception as error:  # StopIteration among them
                end = error
            if len(running) > num_per_worker * self.num_workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
        if not isinstance(end, StopIteration):
            raise end


def worker_pool(config: DeviceConfig, device: torch.device, *, num_gpu_workers: int = 1) -> WorkerPool:
    """Make the pool for a device: one worker for each thread of a CPU, few for a GPU.

    Args:
        config: how many threads.
        device: where is computed.
        num_gpu_workers: of a GPU; with two, one fills its queue while the other waits for a result.
    """
    return WorkerPool(num_threads(config) if device.type == "cpu" else num_gpu_workers)


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a tensor to a device; to a GPU from pinned memory, so that nobody waits for it."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
