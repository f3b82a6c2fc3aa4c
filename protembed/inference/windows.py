"""Proteins longer than a model's window: where the windows lie, how they are blended, and how well they agree."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

# Neighbouring windows share at least this part of a window; what is nearer to a window's edge than to the other
# window's says little.
_MIN_OVERLAP = 0.25

Span = tuple[int, int]


def window_spans(num_residues: int, window_residues: int) -> list[Span]:
    """Lay windows over a protein: as few as overlap by a quarter at least, evenly spread, and all of full length.

    Args:
        num_residues: of the protein.
        window_residues: of a window.

    Returns:
        (start, stop) of each window in residues; one alone where the protein fits.

    >>> window_spans(10, 12), window_spans(10, 8)
    ([(0, 10)], [(0, 8), (2, 10)])
    """
    if num_residues <= window_residues:
        return [(0, num_residues)]
    stride = window_residues - int(_MIN_OVERLAP * window_residues)
    num_strides = -(-(num_residues - window_residues) // stride)
    starts = [step * (num_residues - window_residues) // num_strides for step in range(num_strides + 1)]
    return [(start, start + window_residues) for start in starts]


def blend(windows: Sequence[Tensor], spans: Sequence[Span]) -> Tensor:
    """Blend the vectors of a protein's residues: the mean over the windows they lie in, weighed by a taper.

    A residue weighs in a window as much as it is far from that window's nearest cut; the true ends of the protein are
    no cuts.

    Args:
        windows: each (residues of the window, dim), without special tokens.
        spans: where they lie, from `window_spans`.

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
