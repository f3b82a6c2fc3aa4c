"""Work that the processes of a fine-tuning share: each computes for its part of the proteins, and all have the results.

With one process, nothing is shared and nothing is copied.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from protembed.training.distributed import ProcessGroup

Item = TypeVar("Item")
Values = NDArray[np.float32]


def compute_shared(
    processes: ProcessGroup, items: Sequence[Item], compute: Callable[[Sequence[Item]], Iterable[Values]]
) -> list[Values]:
    """Compute an array for each item, each process for its share of them, and return those of all items in all.

    Args:
        processes: Processes that have the same items, and make the same call.
        items: Items of any kind, such as proteins.
        compute: Function that computes the arrays of some items, in their order. The shapes of all arrays differ in
            their first dimension at most.
    """
    if processes.size == 1 or not items:
        return list(compute(items))
    share, mine = list(compute(processes.shard(items))), slice(processes.rank, None, processes.size)
    sizes = np.zeros(len(items), np.int64)
    sizes[mine] = [array.size for array in share]
    processes.all_reduce([torch.from_numpy(sizes)], is_slow=True)  # in place
    ends = sizes.cumsum()
    values = np.zeros(ends[-1], np.float32)
    for array, end in zip(share, ends[mine].tolist(), strict=True):
        values[end - array.size : end] = array.ravel()
    processes.all_reduce([torch.from_numpy(values)], is_slow=True)
    shape = processes.broadcast_object(share[0].shape if processes.is_first else None)  # it has the first item
    item_shape = [-1, *shape[1:]] if shape else []
    return [part.reshape(item_shape) for part in np.split(values, ends[:-1])]


def copy_from_first(processes: ProcessGroup, module: nn.Module) -> None:
    """Replace the weights and buffers of a module on the CPU by those of the first process, in place."""
    tensors = list(module.state_dict().values())
    if not processes.is_first:
        for tensor in tensors:
            tensor.zero_()
    processes.all_reduce(tensors, is_slow=True)
