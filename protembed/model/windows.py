"""The windows of a long protein: how their vectors are joined, and how well they agree."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

# Where a window lies in its protein, in residues: start and stop.
Span = tuple[int, int]


def join_windows(windows: Sequence[Tensor], spans: Sequence[Span]) -> tuple[Tensor, Tensor]:
    """Join the vectors of a protein's windows.

    Args:
        windows: each (tokens, dim); `<cls>` stands before the first, `<eos>` behind the last.
        spans: where they lie; one alone is the whole protein.

    Returns:
        The vector of `<cls>`, (dim,), and those of all residues, (residues, dim).
    """
    residues = without_specials(windows, spans)
    return windows[0][0], residues[0] if len(spans) == 1 else blend(residues, spans)


def without_specials(windows: Sequence[Tensor], spans: Sequence[Span]) -> list[Tensor]:
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
