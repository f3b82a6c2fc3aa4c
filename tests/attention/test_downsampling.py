import numpy as np
import pytest

from protembed.attention.page import LEAST_PIXELS, MOST_PIXELS, block_size, map_resolution, max_pool_blocks


@pytest.mark.parametrize("num_residues", [1, MOST_PIXELS, MOST_PIXELS + 1, 1500, 35_213])
def test_blocks_are_as_small_as_a_picture_allows(num_residues):
    block = block_size(num_residues, MOST_PIXELS)

    assert -(-num_residues // block) <= MOST_PIXELS
    assert block == 1 or -(-num_residues // (block - 1)) > MOST_PIXELS


@pytest.mark.parametrize("num_heads", [1, 120, 240, 660, 1920])
@pytest.mark.parametrize("num_proteins", [0, 1, 3, 10])
def test_many_maps_are_shown_as_finely_as_a_page_of_few_megabytes_allows(num_proteins, num_heads):
    side = map_resolution(num_proteins, num_heads)

    assert LEAST_PIXELS <= side <= MOST_PIXELS
    assert num_proteins * num_heads * side**2 <= 20 << 20
    assert side == MOST_PIXELS or num_proteins * num_heads * (side + 1) ** 2 > 20 << 20


def test_each_block_shows_its_highest_and_the_last_may_be_smaller():
    matrix = np.arange(25.0).reshape(5, 5)

    assert max_pool_blocks(matrix, 2).tolist() == [[6, 8, 9], [16, 18, 19], [21, 23, 24]]


@pytest.mark.parametrize("block", [1, 2])
def test_what_is_shown_does_not_hold_the_whole_map(block):
    matrix = np.ones((4, 4), np.float32)

    shown = max_pool_blocks(matrix, block)

    assert not np.shares_memory(shown, matrix)
    assert shown.dtype == np.float32
