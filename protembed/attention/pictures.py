"""Pictures of attention maps and contacts, small enough for a page: downsampled, rounded to levels and compressed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy

from protembed.attention.ranked_contacts import RankedContacts
from protembed.attention.strongest_pairs import SEPARATIONS, StrongestPairs
from protembed.report.compression import compress

# Side of the picture of a map.
MIN_PIXELS, MAX_PIXELS = 32, 128
# Pixels of all maps of a page, which then has 9 MB, or 16 if the maps are noise. This suffices for ten proteins and
# 120 heads at full resolution, or for more heads of fewer proteins.
_MAX_PAGE_PIXELS = 20 << 20
_MAX_CONTACT_PIXELS = 400
# A protein whose maps are larger than this has the smaller number of levels.
BYTES_PER_PROTEIN = 400_000
# Levels of a map on the scale of square roots. The page reports values as intervals, the width of a level.
_LEVELS = (64, 48)
_CONTACT_LEVELS = 64


def map_resolution(num_proteins: int, num_heads: int) -> int:
    """Choose the side of the pictures, so that a page of many maps stays small enough to send and open.

    >>> map_resolution(10, 120), map_resolution(10, 660), map_resolution(1, 660)
    (128, 56, 128)
    """
    side = math.isqrt(_MAX_PAGE_PIXELS // max(1, num_proteins * num_heads))
    return min(MAX_PIXELS, max(MIN_PIXELS, side))


def block_size(num_residues: int, max_pixels: int) -> int:
    """Compute the residues on a side of a block, so that a map has at most `max_pixels` blocks on a side.

    >>> block_size(128, 128), block_size(129, 128), block_size(1500, 128)
    (1, 2, 12)
    """
    return -(-num_residues // max_pixels)


def max_pool_blocks(matrix: NDArray[np.floating], block: int) -> NDArray[np.float32]:
    """Compute the maximum of each block of a map.

    The interesting features of a map, such as contacts or a column that all residues attend to, are a few cells among
    many. The maximum keeps them visible at any length, while a mean would average them out.

    Args:
        matrix: Map, (residues, residues).
        block: Residues on a side of a block; the last block may be smaller.

    Returns:
        Maxima, (blocks, blocks), float32; always a copy.
    """
    if block == 1:
        return matrix.astype(np.float32)
    starts = np.arange(0, len(matrix), block)
    highest = np.maximum.reduceat(np.maximum.reduceat(matrix, starts, axis=0), starts, axis=1)
    return np.asarray(highest, np.float32)


@dataclass(frozen=True, kw_only=True)
class DisplayedProtein:
    """One protein, or a region of it, for the page.

    Attributes:
        id: Identifier of the record, which may contain any characters.
        sequence: One letter for each displayed residue.
        maps: Maximum attention of a row's residues to a column's in each block, (layer, head, blocks, blocks).
        contacts: Predicted contact scores from 0 to 1, (residues, residues); None without a prediction.
        ranked: Top-scoring pairs by range of separation, from 0 at the first displayed residue; empty without a
            prediction.
        truth: Contacts of the structure, (residues, residues), bool; None without a structure.
        first_residue: Number of the first displayed residue.
        block: Residues on a side of a block of the maps.
        strongest: Strongest pairs of each map at full resolution, (layer, head, separations, pairs); None to list none.
        sites: Labelled residues by label, from 0 at the first displayed residue.
        covered: Residues with known contacts in the structure, from 0 at the first displayed one; None without one.
    """

    id: str
    sequence: str
    maps: NDArray[np.floating]
    contacts: NDArray[np.floating] | None = None
    ranked: Mapping[str, RankedContacts] = field(default_factory=dict)
    truth: NDArray[np.bool_] | None = None
    first_residue: int = 1
    block: int = 1
    strongest: StrongestPairs | None = None
    sites: Mapping[str, Sequence[int]] = field(default_factory=dict)
    covered: Sequence[int] | None = None


def encode_map(weights: NDArray[np.floating], num_bytes: int) -> dict[str, Any]:
    """Round a map (pixels, pixels) to 64 levels of its square root, or 48 where these exceed about `num_bytes`.

    Level k represents values from peak · ((k - 0.5) / (levels - 1))² to peak · ((k + 0.5) / (levels - 1))². If that
    takes less space, the picture is stored as the differences from `predict_pixels`, modulo 256.
    """
    peak = float(weights.max())
    roots = np.sqrt(weights.astype(np.float64) / peak) if peak > 0 else np.zeros_like(weights)
    for levels in _LEVELS:
        steps = np.rint(roots * (levels - 1)).astype(np.uint8)
        differences = steps - predict_pixels(steps)
        # Deflate comes within a few percent of the entropy, or below.
        num_bits, differences_bits = (entropy(np.bincount(each.ravel()), base=2) for each in (steps, differences))
        if levels == _LEVELS[-1] or steps.size * min(num_bits, differences_bits) / 8 <= num_bytes:
            break
    is_difference = bool(differences_bits < num_bits)
    pixels = compress((differences if is_difference else steps).tobytes())
    return {"peak": float(f"{peak:.9g}"), "levels": levels, "differences": is_difference, "pixels": pixels}


def predict_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Predict each pixel from those to its left, above it, and above to its left; beyond the edges these are zero.

    The prediction continues a vertical or horizontal line, of which attention maps have many. The differences from it
    take a fifth less space than the levels.

    Args:
        pixels: Levels, (pixels, pixels).

    Returns:
        Predictions, (pixels, pixels).

    Source: Weinberger et al. 2000, "The LOCO-I lossless image compression algorithm", section III.B.1.
    """
    framed = np.pad(pixels, ((1, 0), (1, 0))).astype(np.int16)
    left, above, corner = framed[1:, :-1], framed[:-1, 1:], framed[:-1, :-1]
    low, high = np.minimum(left, above), np.maximum(left, above)
    # The median of left, above and left + above - corner.
    return np.asarray(np.clip(left + above - corner, low, high), np.uint8)


def encode_contacts(contacts: NDArray[np.floating] | None, truth: NDArray[np.bool_] | None) -> dict[str, Any] | None:
    """Combine prediction (upper triangle, in levels) and structure (lower triangle, 0 or 1) in one matrix."""
    available = contacts if contacts is not None else truth
    if available is None:
        return None
    block = block_size(len(available), _MAX_CONTACT_PIXELS)
    num_pixels = -(-len(available) // block)
    pixels = np.zeros((num_pixels, num_pixels), np.uint8)
    if contacts is not None:
        scores = np.clip(max_pool_blocks(np.triu(contacts, 1), block), 0, 1)
        pixels += np.triu(np.rint(scores * (_CONTACT_LEVELS - 1)).astype(np.uint8), 1)
    if truth is not None:
        pixels += np.tril(max_pool_blocks(np.tril(truth, -1).astype(np.float32), block).astype(np.uint8), -1)
    return {
        "block": block,
        "levels": _CONTACT_LEVELS,
        "predicted": contacts is not None,
        "known": truth is not None,
        "pixels": compress(pixels.tobytes()),
    }


def encode_strongest(strongest: StrongestPairs | None) -> dict[str, Any] | None:
    """Compress the strongest pairs of all maps: all rows and all columns as uint16, then all weights as float32."""
    if strongest is None:
        return None
    arrays = (strongest.rows.astype("<u2"), strongest.columns.astype("<u2"), strongest.weights.astype("<f4"))
    content = b"".join(array.tobytes() for array in arrays)
    return {"separations": SEPARATIONS, "pixels": compress(content)}


def encode_ranked(ranked: Mapping[str, RankedContacts]) -> dict[str, Any] | None:
    """Compress the top-scoring pairs of all ranges: first residues and second as uint16, then states as uint8."""
    if not ranked:
        return None
    ranges = {
        name: {
            "number": len(pairs.state),
            "top": pairs.num_top,
            "precision": {fraction: float(f"{value:.6g}") for fraction, value in pairs.precisions.items()},
            "random": None if pairs.random is None else float(f"{pairs.random:.6g}"),
        }
        for name, pairs in ranked.items()
    }
    arrays = [
        *(pairs.first.astype("<u2") for pairs in ranked.values()),
        *(pairs.second.astype("<u2") for pairs in ranked.values()),
        *(pairs.state for pairs in ranked.values()),
    ]
    content = b"".join(array.tobytes() for array in arrays)
    return {"ranges": ranges, "pixels": compress(content)}
