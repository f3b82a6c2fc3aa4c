"""From the vectors of residues to the one vector of a protein; never over `<cls>`, `<eos>` or padding."""

from collections.abc import Callable

import torch
from torch import Tensor

from protembed.config.shared import PoolingName
from protembed.model.encoder import Pack

_POOLINGS: dict[PoolingName, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": lambda cls, residues: residues.mean(0),
    "max": lambda cls, residues: residues.amax(0),
    "std": lambda cls, residues: residues.std(0, correction=0),
    "cls": lambda cls, residues: cls,
}


def residues_of(hidden: Tensor) -> Tensor:
    """Take away `<cls>` and `<eos>` of one whole protein: (length, …) becomes (residues, …)."""
    return hidden[1:-1]


def pool(hidden: Tensor, pack: Pack, pooling: PoolingName) -> Tensor:
    """Pool the tokens of each whole protein into one vector.

    Args:
        hidden: (tokens, dim).
        pack: where each protein lies, `<cls>` first and `<eos>` last in each.
        pooling: see `pool_one`.

    Returns:
        (proteins, dim).
    """
    return torch.stack([pool_one(one[0], residues_of(one), pooling) for (one,) in pack.split(hidden)])


def pool_one(cls: Tensor, residues: Tensor, pooling: PoolingName) -> Tensor:
    """Pool the vectors of one protein into one.

    Args:
        cls: (dim,), the vector of `<cls>`.
        residues: (residues, dim).
        pooling: mean, max and std (the population's) over the residues, or the vector of `<cls>`.

    Returns:
        (dim,).
    """
    return _POOLINGS[pooling](cls, residues)
