"""Merge the vectors of windows, and pool those of residues into one; never over `<cls>`, `<eos>` or padding.

The windows of a protein are vectors, (tokens, dim) each, with `<cls>` at the start of the first and `<eos>` at the end
of the last, or (residues, dim) without the two. Their spans say where they lie; a single span is the whole protein.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from protembed.config.common import PoolingName, Span


def merge_windows(windows: Sequence[Tensor], spans: Sequence[Span]) -> tuple[Tensor, Tensor]:
    """Merge the windows of a protein into the vector of `<cls>`, (dim,), and those of all residues, (residues, dim)."""
    residues = strip_special_tokens(windows, spans)
    return windows[0][0], residues[0] if len(spans) == 1 else blend(residues, spans)


def strip_special_tokens(windows: Sequence[Tensor], spans: Sequence[Span]) -> list[Tensor]:
    """Remove `<cls>` from the first window and `<eos>` from the last."""
    return [
        window[(start == 0) : len(window) - (stop == spans[-1][1])]
        for window, (start, stop) in zip(windows, spans, strict=True)
    ]


def blend(windows: Sequence[Tensor], spans: Sequence[Span]) -> Tensor:
    """Blend the vectors of a protein's residues: the mean over the windows that contain them, weighted by a taper.

    The weight of a residue in a window, without special tokens, is its distance from that window's nearest cut; the
    true ends of the protein are not cuts. The result is (residues, dim).
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
    """Measure how well windows agree: the mean cosine similarity of the two vectors of each residue that they share.

    There are at least two windows, without special tokens.
    """
    cosines = []
    for (left, right), ((left_start, left_stop), (start, _)) in zip(pairwise(windows), pairwise(spans), strict=True):
        cosines.append(F.cosine_similarity(left[start - left_start :], right[: left_stop - start], dim=-1))
    return torch.cat(cosines).mean().item()


def _taper(start: int, stop: int, num_residues: int, like: Tensor) -> Tensor:
    ahead = torch.arange(1, stop - start + 1, dtype=like.dtype, device=like.device)
    behind = ahead.flip(0)
    # A true end of the protein is not a cut: it counts as farther away than any residue of the window.
    ahead = ahead if start > 0 else torch.full_like(ahead, stop - start)
    behind = behind if stop < num_residues else torch.full_like(behind, stop - start)
    return torch.minimum(ahead, behind)[:, None]


def attention_pooling(residues: Tensor, query: Tensor) -> Tensor:
    """Average residues, (residues, dim), weighted by how much a learned query, (dim,), attends to each.

    A query of zeros gives the plain mean.
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
    """Remove `<cls>` and `<eos>` from one whole protein: (length, …) becomes (residues, …)."""
    return hidden[1:-1]


def pool_protein(cls: Tensor, residues: Tensor, poolings: Sequence[PoolingName], query: Tensor | None = None) -> Tensor:
    """Pool the vectors of one protein into one, or in several ways whose results are concatenated.

    Args:
        cls: The vector of `<cls>`, (dim,).
        residues: Vectors of the residues, (residues, dim).
        poolings: Each the mean, maximum or (population) standard deviation over the residues, the vector of `<cls>`, or
            a mean weighted by attention.
        query: The learned query of pooling by attention, (dim,); None for all other poolings.

    Returns:
        The pooled vectors, (poolings · dim,).
    """
    vectors = [_POOLINGS[pooling](cls, residues, query) for pooling in poolings]
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors)
