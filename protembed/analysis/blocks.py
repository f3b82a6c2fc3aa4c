"""Maps of long proteins made small enough to be looked at: the highest value of each block of residues."""

import numpy as np
from numpy.typing import NDArray

# A picture of a map has no more pixels on a side.
MOST_PIXELS = 128


def block_size(num_residues: int, most_pixels: int = MOST_PIXELS) -> int:
    """Count the residues on a side of a block, so that a map has at most so many blocks on a side.

    >>> block_size(128), block_size(129), block_size(1500)
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
