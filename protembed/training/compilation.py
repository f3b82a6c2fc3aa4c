"""Compiled layers for training on NVIDIA GPUs: torch's compiler joins what lies between the matrix products.

Only micro-batches of one shape are computed by compiled layers; others, and validations, as without the compiler.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from protembed.data.batching import MaskedBatch
from protembed.device import has_varlen_attention
from protembed.errors import TooLongForMemoryError
from protembed.io.writing import scratch_directory
from protembed.model.encoder import Layer
from protembed.resources import is_out_of_memory
from protembed.text import reason_of
from protembed.training.distributed import Executor
from protembed.training.objective import MaskedLM

# Where the compiler keeps pickles and machine code, which it loads again; and where Triton keeps its own.
_CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}

Backend = str | Callable[..., Any]


@contextmanager
def compiler_directory(device: torch.device) -> Iterator[None]:
    """Give the compiler an empty directory that only this user can read, if the device is a GPU; remove it at the end.

    The compiler runs what it finds in its cache, and the name of torch's default in TMPDIR can be guessed: another user
    of the machine could make it first. Compiled layers cannot be called after the block.
    """
    if device.type != "cuda":
        yield
        return
    with scratch_directory() as scratch:
        before = {name: os.environ.get(name) for name in _CACHES}
        os.environ.update({name: str(scratch / folder) for name, folder in _CACHES.items()})
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
            torch.compiler.reset()


def compile_layers(
    objective: MaskedLM, micro_batch: MaskedBatch, executor: Executor, backend: Backend = "inductor"
) -> str | None:
    """Compile the layers of an encoder, in place, and try them with their gradients.

    The compiled function takes a layer as an argument: all layers, and copies of the encoder, share its graphs, and
    hooks of a layer, such as those of sharded weights, run outside of it. Layers must be sharded before.

    Args:
        objective: Objective whose encoder has the layers.
        micro_batch: Micro-batch to try, in the shape of those of the run.
        executor: Threads, processes and precision of the training.
        backend: Backend of torch's compiler.

    Returns:
        A sentence that says why the layers stay as they were, in all processes; None if they are compiled.

    Raises:
        TooLongForMemoryError: If the micro-batch and its gradients do not fit into memory.
    """
    layers = [layer for layer in objective.encoder.layers if isinstance(layer, Layer)]
    head_dim = objective.encoder.shape.head_dim
    if objective.device.type == "cuda" and not has_varlen_attention(objective.device, head_dim):
        return f"the layers are not compiled: this GPU has no kernel for the attention of heads of width {head_dim}"
    compiled = torch.compile(Layer.compute, dynamic=False, fullgraph=True, backend=backend)
    for layer in layers:
        layer.compiled = compiled
    reason = next(executor.pool.map(partial(_try, objective, executor.precision), [micro_batch]))
    if not executor.processes.any(reason is not None):
        return None
    for layer in layers:
        layer.compiled = None
    return f"the layers are not compiled, and training takes longer: {reason or 'another process could not do it'}"


def _try(objective: MaskedLM, precision: torch.dtype, micro_batch: MaskedBatch) -> str | None:
    """Compute a micro-batch with gradients, which are discarded; return why that fails, or None."""
    is_mixed = precision == torch.bfloat16
    try:
        with torch.autocast(objective.device.type, torch.bfloat16, enabled=is_mixed):
            loss = objective(micro_batch)
        loss.sum.backward()
    except Exception as error:  # whatever a compiler, a driver or a kernel raises
        cause = getattr(error, "inner_exception", error)  # of what the compiler has wrapped
        if is_out_of_memory(cause):
            raise TooLongForMemoryError(micro_batch.num_tokens) from error
        return _describe(cause)
    finally:
        objective.zero_grad(set_to_none=True)
    return None


def _describe(error: Exception) -> str:
    """Name what the compiler needs, and the first line of its error."""
    lines = reason_of(error).strip().splitlines() or [type(error).__name__]
    return f"torch's compiler needs Triton and a C compiler such as gcc, and failed ({lines[0]})"
