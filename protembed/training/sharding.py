"""Models larger than one device: each process holds some rows of every weight, gradient and optimiser state.

A layer's weights are gathered from all processes before it is computed, and released afterwards; its gradients are
summed and divided again as soon as they are known. The sharding is FSDP2's, and the arithmetic that of one process.

Source: Zhao et al. 2023, "PyTorch FSDP: experiences on scaling fully sharded data parallel".
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from protembed.training.distributed import ProcessGroup
from protembed.training.objective import MaskedLM


def shard_weights(objective: MaskedLM, device: torch.device, processes: ProcessGroup) -> None:
    """Divide the rows of every weight among the processes, in place, and move those of this process to its device.

    The device never holds more than one whole layer, nor, in training, the activations of more than one layer: those
    of the others are recomputed for their gradients.
    """
    # Imported here because it loads torch's compiler, which processes with whole weights do not need.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (processes.size,))
    for module in (*objective.encoder.layers, objective):
        # Also after the forward pass of the objective itself, so that its parameters are always the sharded ones.
        sharded = fully_shard(module, mesh=mesh, reshard_after_forward=True)
        sharded.set_gradient_divide_factor(1.0)  # the loss is a sum, divided once by the targets of all processes
        sharded.set_force_sum_reduction_for_comms(True)  # gloo cannot divide while it sums
    register_fsdp_forward_method(objective, "logits")  # which validations call
    objective.encoder.gradient_checkpointing = True


def rows_of(num_rows: int, rank: int, size: int) -> range:
    """Return the rows of a weight that one of several processes holds, as `torch.chunk` divides them.

    >>> [rows_of(33, rank, 4) for rank in range(4)]
    [range(0, 9), range(9, 18), range(18, 27), range(27, 33)]
    """
    most = -(-num_rows // size)
    return range(min(rank * most, num_rows), min((rank + 1) * most, num_rows))


def local_rows(tensor: Tensor) -> Tensor:
    """Return the rows of a tensor that this process holds, which share its memory; all rows if it is not sharded."""
    tensor = tensor.detach()
    # Importing the class of sharded tensors, to ask for it, would load torch's compiler.
    return cast("Any", tensor).to_local() if hasattr(tensor, "to_local") else tensor


@contextmanager
def gathered_weights(objective: MaskedLM, processes: ProcessGroup) -> Iterator[Callable[[str, Tensor], Tensor]]:
    """Let the first process read whole weights by their names, one at a time, while the others send it their rows.

    Yields a function from a name and what this process holds of that weight to the whole weight, on its device. Only
    the first process may call it; the others leave the block when the first one does.
    """
    if not processes.is_sharded:
        yield lambda name, weight: weight
        return
    parameters: dict[str, Any] = dict(objective.named_parameters())

    def gather(name: str, weight: Tensor) -> Tensor:
        if name not in parameters:
            return weight
        processes.broadcast_object(name)
        return cast("Tensor", parameters[name].detach().full_tensor())

    try:
        yield gather
    finally:
        if processes.is_first:
            processes.broadcast_object(None)
    if not processes.is_first:
        while (name := processes.broadcast_object(None)) is not None:
            parameters[name].detach().full_tensor()
