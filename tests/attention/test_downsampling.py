import numpy as np
import pytest

from protembed.attention.pictures import MAX_PIXELS, MIN_PIXELS, block_size, map_resolution, max_pool_blocks


@pytest.mark.parametrize("num_residues", [1, MAX_PIXELS, MAX_PIXELS + 1, 1500, 35_213])
def test_block_is_the_smallest_that_fits_the_picture(num_residues):
    block = block_size(num_residues, MAX_PIXELS)

    assert -(-num_residues // block) <= MAX_PIXELS
    assert block == 1 or -(-num_residues // (block - 1)) > MAX_PIXELS


@pytest.mark.parametrize("num_heads", [1, 120, 240, 660, 1920])
@pytest.mark.parametrize("num_proteins", [0, 1, 3, 10])
def test_resolution_of_maps_is_the_highest_within_the_page_limit(num_proteins, num_heads):
    side = map_resolution(num_proteins, num_heads)

    assert MIN_PIXELS <= side <= MAX_PIXELS
    assert num_proteins * num_heads * side**2 <= 20 << 20
    assert side == MAX_PIXELS or num_proteins * num_heads * (side + 1) ** 2 > 20 << 20


def test_blocks_are_pooled_by_their_maximum_and_the_last_may_be_smaller():
    matrix = np.arange(25.0).reshape(5, 5)

    assert max_pool_blocks(matrix, 2).tolist() == [[6, 8, 9], [16, 18, 19], [21, 23, 24]]


@pytest.mark.parametrize("block", [1, 2])
def test_pooled_map_is_a_copy(block):
    matrix = np.ones((4, 4), np.float32)

    pooled = max_pool_blocks(matrix, block)

    assert not np.shares_memory(pooled, matrix)
    assert pooled.dtype == np.float32
