"""From the vectors of windows and residues to the one vector of a protein; never over `<cls>`, `<eos>` or padding."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from protembed.config.common import PoolingName
from protembed.model.esm2 import PackedLayout

# Where a window lies in its protein, in residues: start and stop.
Span = tuple[int, int]


def merge_windows(windows: Sequence[Tensor], spans: Sequence[Span]) -> tuple[Tensor, Tensor]:
    """Join the vectors of a protein's windows.

    Args:
        windows: each (tokens, dim); `<cls>` stands before the first, `<eos>` behind the last.
        spans: where they lie; one alone is the whole protein.

    Returns:
        The vector of `<cls>`, (dim,), and those of all residues, (residues, dim).
    """
    residues = strip_special_tokens(windows, spans)
    return windows[0][0], residues[0] if len(spans) == 1 else blend(residues, spans)


def strip_special_tokens(windows: Sequence[Tensor], spans: Sequence[Span]) -> list[Tensor]:
    """Take away `<cls>` of the first window and `<eos>` of the last."""
    return [
        window[(start == 0) : len(window) - (stop == spans[-1][1])]
        for window, (start, stop) in zip(windows, spans, strict=True)
    ]


def blend(windows: Sequence[Tensor], spans: Sequence[Span]) -> Tensor:
    """Blend the vectors of a protein's residues: the mean over the windows they lie in, weighed by a taper.

    A residue weighs in a window as much as it is far from that window's nearest cut; the true ends of the protein are
    no cuts.

    Args:
        windows: each (residues of the window, dim), without special tokens.
        spans: where they lie.

    Returns:
        (residues, dim), the dtype of the windows.
    """
    num_residues = spans[-1][1]
    blended = windows[0].new_zeros(num_residues, windows[0].shape[-1])
    total = windows[0].new_zeros(num_residues, 1)
    for window, (start, stop) in zip(windows, spans, strict=True):
        taper = _taper(start, stop, num_residues, window)
        blended[start:stop] += window * taper
        total[start:stop] += taper
    return blended / total


def overlap_cosine(windows: Sequence[Tensor], spans: Sequence[Span]) -> float:
    """Tell how well neighbouring windows agree: the mean cosine of the two vectors of each residue that they share.

    Args:
        windows: as for `blend`, at least two.
        spans: as for `blend`.
    """
    cosines = []
    for (left, right), ((left_start, left_stop), (start, _)) in zip(pairwise(windows), pairwise(spans), strict=True):
        cosines.append(F.cosine_similarity(left[start - left_start :], right[: left_stop - start], dim=-1))
    return torch.cat(cosines).mean().item()


def _taper(start: int, stop: int, num_residues: int, like: Tensor) -> Tensor:
    ahead = torch.arange(1, stop - start + 1, dtype=like.dtype, device=like.device)
    behind = ahead.flip(0)
    # A true end is as far as any residue can be.
    ahead = ahead if start > 0 else torch.full_like(ahead, stop - start)
    behind = behind if stop < num_residues else torch.full_like(behind, stop - start)
    return torch.minimum(ahead, behind)[:, None]


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


def pool(hidden: Tensor, layout: PackedLayout, pooling: PoolingName, query: Tensor | None = None) -> Tensor:
    """Pool the tokens of each whole protein into one vector.

    Args:
        hidden: (tokens, dim).
        layout: where each protein lies, `<cls>` first and `<eos>` last in each.
        pooling: see `pool_one`.
        query: see `pool_one`.

    Returns:
        (proteins, dim).
    """
    return torch.stack([pool_one(one[0], residues_of(one), pooling, query) for (one,) in layout.split(hidden)])


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
