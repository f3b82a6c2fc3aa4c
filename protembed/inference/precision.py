"""The precision of the matrix products behind a result. No torch, unless a GPU decides."""

from pathlib import Path

from protembed.config.common import DeviceConfig
from protembed.config.embed import EmbedPrecisionName
from protembed.config.model_sizes import EncoderShape
from protembed.io.result import Result

# CUDA, also for AMD, needs one of these: of a driver for servers, for Jetson, of ROCm, or of Windows' Linux.
_GPU_FILES = ("nvidia*", "nvhost-gpu", "kfd", "dxg")

# Multiplications and additions per second of one core in float32; the faster precision is named from a minute on.
_CORE_OPERATIONS, _MIN_SECONDS = 1.3e11, 60
# How many times as fast bfloat16 is on a CPU with AMX, 1.9 with the bundled model (benchmarks/README.md).
_SPEED_UP = 2


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


def describe_faster_precision(shape: EncoderShape, num_residues: int, num_threads: int) -> str | None:
    """Say in a sentence how many times as fast bfloat16 would be on this CPU; None if it would not pay.

    It pays on a CPU with AMX, in a computation that takes a minute or more in float32.

    Args:
        shape: The shape of the encoder.
        num_residues: The number of residues that are to be computed.
        num_threads: The number of threads that compute.
    """
    operations = 2 * num_residues * shape.num_layers * shape.num_layer_weights
    if operations < _MIN_SECONDS * _CORE_OPERATIONS * num_threads:
        return None
    from protembed.device import has_amx

    if not has_amx():
        return None
    return f"on this CPU, --precision bfloat16 is about {_SPEED_UP} times as fast; its vectors differ slightly"
