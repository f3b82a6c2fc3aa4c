"""Device, precision, workers, exact arithmetic and the rank among processes: where and how protembed computes."""

import os
import resource
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from threading import Lock
from typing import TypeVar

import torch
import torch.nn.functional as F

from protembed.config.common import GPU_MICRO_BATCH_TOKENS, MICRO_BATCH_TOKENS, DeviceConfig, PrecisionName
from protembed.config.embed import EmbedPrecisionName
from protembed.errors import ConfigError
from protembed.resources import available_memory, environment_number, num_threads

# Environment variables, with the values that lower the precision of float32 products. Libraries read them only once,
# possibly before protembed is imported, so that protembed can check them but not change their effect.
_PRECISION_LOWERING_VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {
        "ONEDNN_DEFAULT_FPMATH_MODE": ("bf16", "f16", "tf32", "any"),
        "DNNL_DEFAULT_FPMATH_MODE": ("bf16", "f16", "tf32", "any"),
    },
    "cuda": {"NVIDIA_TF32_OVERRIDE": ("1",)},
}
_FULL_PRECISIONS = ("none", "ieee")
# Widths of heads that flash attention takes.
_VARLEN_HEAD_MULTIPLE, _VARLEN_MAX_HEAD_DIM = 8, 256
# What `exact_float32` restores when the last of its running blocks ends.
_lock, _settings_before, _num_blocks = Lock(), ExitStack(), 0


def _check_full_precision(device: torch.device) -> None:
    """Check that no environment variable lowers the precision of float32 products on a device."""
    for name, values in _PRECISION_LOWERING_VALUES.get(device.type, {}).items():
        value = os.environ.get(name, "")
        if value.lower() in values:
            expected = "it makes float32 products less precise than the result would claim: unset it"
            raise ConfigError(name, value, expected)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 products in full precision within the block, and restore the caller's settings after it.

    The block resets torch's default dtype and device, the precision of float32 products, autocast, inference mode, the
    flushing of denormal numbers, and deterministic algorithms, which reject operators that are deterministic here.
    Blocks of several threads may overlap: the settings of the process are restored when the last one ends.
    """
    global _num_blocks
    # MKL guarantees the same bits from run to run only in such a mode, and reads the variable at its first product.
    # The mode costs no time (benchmarks/README.md). Any other mode is as precise, and the user's choice.
    if os.environ.get("MKL_CBWR", "").upper() in ("", "OFF"):
        os.environ["MKL_CBWR"] = "AUTO"
    with _lock:
        _num_blocks += 1
        _reset_dtype(_settings_before)
        _reset_matmul_precision(_settings_before)
    try:
        with ExitStack() as thread_settings_before:
            _reset_thread_settings(thread_settings_before)
            yield
    finally:
        with _lock:
            _num_blocks -= 1
            if not _num_blocks:
                _settings_before.close()


def _reset_dtype(before: ExitStack) -> None:
    if torch.get_default_dtype() != torch.float32:
        before.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
    if torch.are_deterministic_algorithms_enabled():
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        before.callback(torch.use_deterministic_algorithms, True, warn_only=warn_only)
        torch.use_deterministic_algorithms(False)


def _reset_matmul_precision(before: ExitStack) -> None:
    """Reset the precision of float32 products, which torch keeps twice: for all devices, and for each library."""
    products = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]  # of a class
    # A library without a setting inherits that of all its operators.
    inherited = (torch.backends.cudnn.fp32_precision, torch.backends.mkldnn.fp32_precision)
    precisions = [product.fp32_precision for product in products]
    if all(precision in _FULL_PRECISIONS for precision in precisions):
        return
    original = ["none" if value == parent else value for value, parent in zip(precisions, inherited, strict=True)]

    def restore() -> None:
        torch.set_float32_matmul_precision(global_precision)
        for product, precision in zip(products, original, strict=True):
            product.fp32_precision = precision

    before.callback(restore)
    # Torch does not return the global setting while a library contradicts it, so the libraries are set first.
    for product in products:
        product.fp32_precision = "ieee"
    global_precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    for product in products:
        product.fp32_precision = "ieee"


def _reset_thread_settings(before: ExitStack) -> None:
    for device_type in ("cpu", "cuda", "mps"):
        if torch.is_autocast_enabled(device_type):
            before.enter_context(torch.autocast(device_type, enabled=False))
    if torch.get_default_device().type != "cpu":
        before.enter_context(torch.device("cpu"))
    if torch.is_inference_mode_enabled():
        before.enter_context(torch.inference_mode(False))
    flushes_denormals = (torch.full((), 1e-40, dtype=torch.float32, device="cpu") * 1).item() == 0
    if flushes_denormals:
        before.callback(torch.set_flush_denormal, True)
        torch.set_flush_denormal(False)


Item = TypeVar("Item")
Result = TypeVar("Result")


def choose_device(config: DeviceConfig) -> torch.device:
    """Choose the device to compute on.

    Raises:
        ConfigError: The requested device is not available, or its precision is lowered by an environment variable.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name: str = config.device
    if name == "auto":
        name = next(device for device, is_available in available.items() if is_available)
    elif not available[name]:
        raise ConfigError("device", name, "this machine, or this build of torch, does not have one")
    _check_full_precision(torch.device(name))
    if name == "cuda" and world_size() > 1:
        return _gpu_of_process()
    return torch.device(name)


def _gpu_of_process() -> torch.device:
    """Choose the GPU of one of several processes; a scheduler may make only one GPU visible to each process."""
    rank, num_gpus = environment_number("LOCAL_RANK", 0), torch.cuda.device_count()
    if num_gpus > 1 and rank >= num_gpus:
        expected = f"process {rank} of this machine has no GPU: there are only {num_gpus}"
        raise ConfigError("device", "cuda", expected)
    return torch.device("cuda", rank if num_gpus > 1 else 0)


def choose_precision(
    precision: PrecisionName | EmbedPrecisionName, device: torch.device, *, is_training: bool = False
) -> torch.dtype:
    """Choose the precision of matrix products.

    `auto` is bfloat16 on GPUs that support it and, in training, on CPUs with AMX; else float32. Inference gives the
    same numbers on CPUs with and without AMX.
    """
    if precision == "auto":
        is_fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        is_fast |= device.type == "cpu" and is_training and has_amx()
        return torch.bfloat16 if is_fast else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def fast_product_dtype(device: torch.device) -> torch.dtype:
    """Return the precision of the fastest matrix products that add up in float32: bfloat16 on processors that have it.

    On two cores of a Xeon with AMX such products take an eighth of the time of those of float32.
    """
    is_fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if is_fast else torch.float32


def has_amx() -> bool:
    """Return whether the processor multiplies bfloat16 matrices in tiles, several times as fast as float32.

    Intel's Xeon processors do since Sapphire Rapids.
    """
    if not torch.backends.mkldnn.is_available():  # only oneDNN uses the tiles
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    return torch.cpu._is_amx_tile_supported()  # torch 2.10 has no public function


def has_varlen_attention(device: torch.device, head_dim: int) -> bool:
    """Return whether a device has attention over packed sequences in one kernel: NVIDIA GPUs since Ampere do.

    The kernel takes heads of certain widths only.
    """
    is_supported = head_dim % _VARLEN_HEAD_MULTIPLE == 0 and head_dim <= _VARLEN_MAX_HEAD_DIM
    return is_supported and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def default_micro_batch_tokens(device: torch.device) -> int:
    """Return the tokens per micro-batch that compute fastest: a thousand per thread on a CPU, many more on a GPU."""
    return GPU_MICRO_BATCH_TOKENS if device.type == "cuda" else MICRO_BATCH_TOKENS


def process_rank() -> int:
    """Return the rank among the processes that torchrun started; only rank 0 prints and writes."""
    return environment_number("RANK", 0)


def world_size() -> int:
    """Return the number of processes that torchrun started; 1 without torchrun."""
    return environment_number("WORLD_SIZE", 1)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process so far, in bytes: GPU memory if the device is a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def total_memory(device: torch.device) -> int:
    """Return the memory of a device in bytes: of the GPU, or the part of the machine's that this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return available_memory()


def free_gpu_memory(device: torch.device) -> int:
    """Return the memory of a GPU that no process has allocated, in bytes."""
    return torch.cuda.mem_get_info(device)[0]


@cache
def has_fused_products(dtype: torch.dtype) -> bool:
    """Return whether oneDNN multiplies matrices of a dtype on this CPU, and torch offers its fused products."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


@cache
def load_kernels() -> None:
    """Call each kernel library once in this thread, before several threads call them at the same time.

    MKL, oneDNN and torch detect the processor, and choose and compile their kernels, at their first call. If two
    threads make that call at once, they may get different kernels, whose sums differ in the last bits. This takes
    some milliseconds, once per process.
    """
    ones = torch.ones(64, 64)
    with torch.inference_mode():
        F.gelu(F.layer_norm(F.linear(ones, ones, ones[0]), (64,)))
        F.scaled_dot_product_attention(ones[None, None], ones[None, None], ones[None, None])
        torch.einsum("qhd,khd->hqk", ones[None], ones[None]).softmax(-1)
        ones.cos(), ones.sin(), ones.exp(), ones.mean(0)
        for dtype in filter(has_fused_products, (torch.float32, torch.bfloat16)):
            square = ones.to(dtype)
            torch.ops.mkldnn._linear_pointwise(square, square, square[0], "none", [], "")
            torch.ops.mkldnn._linear_pointwise(square, square, square[0], "gelu", [], "none")
            torch.ops.mkldnn._linear_pointwise(square, square, None, "swish", [], "")
            torch.ops.mkldnn._linear_pointwise.binary(square, square, square, None, "mul")
            torch.ops.mkldnn._linear_pointwise.binary(square, square, square, square[0], "add")
            F.scaled_dot_product_attention(*3 * (square[None, None],), attn_mask=square)


class WorkerPool:
    """Threads that compute micro-batches in parallel, each operator on one thread; results come in order.

    Two workers on two cores are faster than one micro-batch on two OpenMP threads. They also keep their speed on a busy
    machine, where OpenMP's threads wait for one another many times per layer. Neither the content of a micro-batch nor
    the order of the results depends on the number of workers, so the results have the same bits with any number.

    Use it as a context manager. Within it torch's operators use one thread in the calling thread too, and settings of
    the caller that would change the results are reset, as in `exact_float32`.
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
        # On Ctrl-C, do not wait for running matrix products.
        is_interrupted = kind is not None and not issubclass(kind, Exception)
        self._pool.shutdown(wait=not is_interrupted, cancel_futures=True)
        torch.set_num_threads(self._threads_before)
        self._arithmetic.__exit__(None, None, None)

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, num_per_worker: int = 1
    ) -> Iterator[Result]:
        """Apply a function to each item, several at a time; yield the results in the order of the items.

        An error of the iterable is raised after the results of the items before it.

        Args:
            function: Function that is called on the pool's threads.
            items: Items, read only as they are needed.
            num_per_worker: Number of items per worker that are computed or whose results wait to be read; memory does
                not grow with the number of items. With two, workers continue while the caller is busy with a result.
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
    """Create the pool for a device: one worker per thread of a CPU, few for a GPU.

    With two workers on a GPU, one fills its queue while the other waits for a result.
    """
    return WorkerPool(num_threads(config) if device.type == "cpu" else num_gpu_workers)


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a tensor to a device; to a GPU from pinned memory, so that the copy does not block."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
