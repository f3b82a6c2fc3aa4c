"""From the vectors of residues to the one vector of a protein; never over `<cls>`, `<eos>` or padding."""

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from protembed.config.common import PoolingName
from protembed.model.encoder import Pack


def attention_pooling(residues: Tensor, query: Tensor) -> Tensor:
    """Average residues by how much a learned query attends to each; a query of zeros gives the plain mean.

    Args:
        residues: (residues, dim).
        query: (dim,).

    Returns:
        (dim,).
    """
    weights = torch.softmax(residues @ query / math.sqrt(len(query)), dim=0)
    return weights @ residues


_POOLINGS: dict[PoolingName, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "mean": lambda cls, residues, query: residues.mean(0),
    "max": lambda cls, residues, query: residues.amax(0),
    "std": lambda cls, residues, query: residues.std(0, correction=0),
    "cls": lambda cls, residues, query: cls,
    "attention": lambda cls, residues, query: attention_pooling(residues, cast("Tensor", query)),
}


def residues_of(hidden: Tensor) -> Tensor:
    """Take away `<cls>` and `<eos>` of one whole protein: (length, …) becomes (residues, …)."""
    return hidden[1:-1]


def pool(hidden: Tensor, pack: Pack, pooling: PoolingName, query: Tensor | None = None) -> Tensor:
    """Pool the tokens of each whole protein into one vector.

    Args:
        hidden: (tokens, dim).
        pack: where each protein lies, `<cls>` first and `<eos>` last in each.
        pooling: see `pool_one`.
        query: see `pool_one`.

    Returns:
        (proteins, dim).
    """
    return torch.stack([pool_one(one[0], residues_of(one), pooling, query) for (one,) in pack.split(hidden)])


def pool_all(cls: Tensor, residues: Tensor, poolings: Sequence[PoolingName], query: Tensor | None = None) -> Tensor:
    """Pool the vectors of one protein in several ways, side by side, (poolings · dim,); arguments as for `pool_one`."""
    return torch.cat([pool_one(cls, residues, pooling, query) for pooling in poolings])


def pool_one(cls: Tensor, residues: Tensor, pooling: PoolingName, query: Tensor | None = None) -> Tensor:
    """Pool the vectors of one protein into one.

    Args:
        cls: (dim,), the vector of `<cls>`.
        residues: (residues, dim).
        pooling: mean, max and std (the population's) over the residues, the vector of `<cls>`, or a mean by attention.
        query: (dim,), what attention was learned to look for; None for all others.

    Returns:
        (dim,).
    """
    return _POOLINGS[pooling](cls, residues, query)
