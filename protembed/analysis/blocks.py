"""Maps of long proteins made small enough to be looked at: the highest value of each block of residues."""

import math

import numpy as np
from numpy.typing import NDArray

# Of a picture of a map, on a side.
LEAST_PIXELS, MOST_PIXELS = 32, 128
# Of all maps of a page, which is 10 MB large then, and 18 if the maps are noise: ten proteins and 120 heads are shown
# at their best, and of fewer proteins more heads.
_PIXELS_OF_A_PAGE = 20 << 20


def pixels_on_a_side(num_proteins: int, num_heads: int) -> int:
    """Choose how finely maps are shown, so that a page of many stays small enough to be sent and opened.

    >>> pixels_on_a_side(10, 120), pixels_on_a_side(10, 660), pixels_on_a_side(1, 660)
    (128, 56, 128)
    """
    side = math.isqrt(_PIXELS_OF_A_PAGE // max(1, num_proteins * num_heads))
    return min(MOST_PIXELS, max(LEAST_PIXELS, side))


def block_size(num_residues: int, most_pixels: int) -> int:
    """Count the residues on a side of a block, so that a map has at most so many blocks on a side.

    >>> block_size(128, 128), block_size(129, 128), block_size(1500, 128)
    (1, 2, 12)
    """
    return -(-num_residues // most_pixels)


def highest_of_blocks(matrix: NDArray[np.floating], block: int) -> NDArray[np.float32]:
    """Take the highest value of each block of a map; a mean would hide a single strong pair.

    What is looked for in a map, a contact or a column that all residues attend to, is a few cells among many: it stays
    to be seen, at the place where it is, whatever the length. A part of the protein in full would show less of it.

    Args:
        matrix: (residues, residues).
        block: residues on a side; the last block may be smaller.

    Returns:
        (blocks, blocks), a copy.
    """
    if block == 1:
        return matrix.astype(np.float32)
    starts = np.arange(0, len(matrix), block)
    highest = np.maximum.reduceat(np.maximum.reduceat(matrix, starts, axis=0), starts, axis=1)
    return np.asarray(highest, np.float32)
