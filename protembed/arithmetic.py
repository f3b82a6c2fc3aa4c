"""Settings made outside of protembed that change what is computed: set aside while it computes, or refused by name.

A result says in what precision its matrix products were computed, and that must be so whatever a shell, a scheduler's
profile or the caller's program has set: Lightning, for one, suggests `torch.set_float32_matmul_precision("medium")`,
which is bfloat16.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock

import torch

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


def refuse_lowered_precision(device: torch.device) -> None:
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
