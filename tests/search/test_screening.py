import numpy as np
import pytest
import torch

from protembed.search.screening import Bounds, Rounded, Screen


def rounded(draw, number, dtype, *, seed, with_offsets):
    """Draw vectors; return them with their offsets, in float64, and rounded."""
    vectors = torch.from_numpy(draw(number, dim=40, seed=seed))
    offsets = torch.from_numpy(draw(number, dim=1, seed=seed + 10))[:, 0] if with_offsets else None
    return vectors.double(), offsets, Rounded.of(vectors, offsets, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_differ_from_exact_ones_by_less_than_the_tolerance(draw, dtype):
    vectors, offsets, rows = rounded(draw, 200, dtype, seed=1, with_offsets=True)
    others, _, queries = rounded(draw, 30, dtype, seed=2, with_offsets=False)
    bounds = Bounds().including(rows)

    products = Screen(queries, bounds, 5).products(rows.vectors).double()

    exact = vectors @ others.T + offsets.double()[:, None]
    excess = (products - exact).abs() - torch.finfo(dtype).eps * exact.abs()
    assert (excess <= bounds.tolerances(queries)).all()


def test_a_screen_says_which_queries_have_too_many_candidates():
    rows = Rounded.of(torch.ones(320, 8), torch.zeros(320), torch.float32)
    queries = Rounded.of(torch.stack([torch.ones(8), torch.zeros(8)]), None, torch.float32)
    distinct = Rounded.of(torch.eye(8), torch.arange(8.0), torch.float32)

    for block, is_complete in ((rows, [False, False]), (distinct, [True, True])):
        screen = Screen(queries, Bounds().including(block), 2)
        screen.add(0, screen.products(block.vectors))
        assert screen.candidates()[2].tolist() == is_complete


def test_only_rows_that_may_be_neighbours_are_candidates(draw):
    vectors, offsets, rows = rounded(draw, 4096, torch.bfloat16, seed=1, with_offsets=True)
    others, _, queries = rounded(draw, 20, torch.bfloat16, seed=2, with_offsets=False)
    screen = Screen(queries, Bounds().including(rows), 10)

    for first in range(0, 4096, 1024):
        screen.add(first, screen.products(rows.vectors[first : first + 1024]))
    query, row, is_complete = screen.candidates()

    assert is_complete.all()
    assert len(query) < 20 * 40
    nearest = (vectors @ others.T + offsets.double()[:, None]).topk(10, dim=0).indices
    found = set(zip(query.tolist(), row.tolist(), strict=True))
    assert found.issuperset((number, int(index)) for number in range(20) for index in nearest[:, number])
    assert np.all(np.diff(query.numpy()) >= 0)
