"""Loading a model to compute with it: on which device, in which precision, and how much of it at a time."""

import torch

from protembed.callbacks import Callbacks
from protembed.config.common import DeviceConfig
from protembed.config.model_sizes import EncoderShape
from protembed.device import choose_device, default_micro_batch_tokens, total_memory
from protembed.model.catalog import ResolvedModel
from protembed.model.checkpoint import Checkpoint, load_checkpoint
from protembed.text import format_bytes

# What a computation needs beside the weights: torch and the results of a chunk; and for each token of the micro-batches
# of two workers, with the most numbers that a layer holds at once, in float32: the residual stream, a copy, the keys,
# queries and values, and the features of the feed-forward part.
_BASE_BYTES, _MICRO_BATCHES, _BYTES_PER_TOKEN_AND_DIM = 1_500_000_000, 2, 4 * 10
# A smaller model is never offloaded, because the memory that lacks is not that of its layers.
_MIN_OFFLOADED_BYTES = 1_000_000_000


def needed_memory(shape: EncoderShape, precision: torch.dtype, device: torch.device) -> int:
    """Estimate the memory of a device, in bytes, with which a model computes with all its layers in memory."""
    tokens = _MICRO_BATCHES * default_micro_batch_tokens(device)
    return shape.num_parameters * precision.itemsize + tokens * shape.dim * _BYTES_PER_TOKEN_AND_DIM + _BASE_BYTES


def is_offloaded(config: DeviceConfig, shape: EncoderShape, precision: torch.dtype, device: torch.device) -> bool:
    """Decide whether the layers of a model stay in its files until they are computed."""
    offload = getattr(config, "offload", "auto")  # Python users may pass the options of other commands
    if offload != "auto":
        return bool(offload == "always")
    is_large = shape.num_parameters * precision.itemsize >= _MIN_OFFLOADED_BYTES
    return is_large and needed_memory(shape, precision, device) > total_memory(device)


def load_for_inference(
    model: ResolvedModel, config: DeviceConfig, precision: torch.dtype, callbacks: Callbacks | None = None
) -> Checkpoint:
    """Load a model on the device that computes, or all of it but its layers, which the engine loads one by one.

    Args:
        model: The model.
        config: The device, and whether the layers stay in the files.
        precision: The precision of the matrix products.
        callbacks: Functions that receive a note if `auto` chooses to leave the layers in the files.

    Raises:
        ConfigError: The device is not available.
        ModelFormatError: The model's files are damaged.
    """
    device = choose_device(config)
    is_by_layers = is_offloaded(config, model.shape, precision, device)
    if is_by_layers and callbacks is not None:
        callbacks.on_note(describe_offload(model.shape, precision, device))
    return load_checkpoint(model, precision=precision, device=device, offload=is_by_layers)


def describe_offload(shape: EncoderShape, precision: torch.dtype, device: torch.device) -> str:
    """Say in a sentence why and how a model is computed layer by layer."""
    needed, present = needed_memory(shape, precision, device), total_memory(device)
    where = "of GPU memory" if device.type == "cuda" else "of memory"
    sizes = f"the model needs {format_bytes(needed)}, and there are {format_bytes(present)} {where}"
    reason = sizes if needed > present else "as requested with --offload always"
    return f"computing layer by layer ({reason}): each layer is read from the model's files for many proteins at once"
