"""The precision of the matrix products behind a result. No torch, unless a GPU decides."""

from pathlib import Path

from protembed.config.common import DeviceConfig
from protembed.config.embed import EmbedPrecisionName
from protembed.io.result import Result

# CUDA, also for AMD, needs one of these: of a driver for servers, for Jetson, of ROCm, or of Windows' Linux.
_GPU_FILES = ("nvidia*", "nvhost-gpu", "kfd", "dxg")


def resolve_precision(
    requested: EmbedPrecisionName, result: Result, compute: DeviceConfig, *, is_finetuned: bool = False
) -> str:
    """Name the precision that an option means.

    `auto` is that of the result which the same command has begun or finished, so that a machine with a GPU continues
    what one without has begun; else float32 for a fine-tuned model, because its head was trained on such vectors, and
    `predict` uses float32 too; else bfloat16 on a GPU that supports it, else float32.

    Raises:
        ConfigError: The requested device is not available.
    """
    if requested != "auto":
        return requested
    recorded = result.resolved("precision", requested)
    if recorded is not None:
        return str(recorded)
    may_have_gpu = any(next(Path("/dev").glob(pattern), None) is not None for pattern in _GPU_FILES)
    if is_finetuned or compute.device not in ("auto", "cuda") or (compute.device == "auto" and not may_have_gpu):
        return "float32"
    from protembed.device import choose_device, choose_precision

    return str(choose_precision(requested, choose_device(compute))).removeprefix("torch.")
