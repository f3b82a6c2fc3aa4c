import pytest
import torch
from hypothesis import given, strategies as st

from protembed.data.windows import window_spans
from protembed.model.pooling import blend, merge_windows, overlap_cosine, strip_special_tokens

LENGTHS = {"num_residues": st.integers(1, 3000), "window_residues": st.integers(16, 1100)}


def random_windows(spans, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(stop - start, dim, generator=generator) for start, stop in spans]


def parts_of(field, spans):
    return [field[start:stop] for start, stop in spans]


# Blending


def test_blending_a_single_window_changes_nothing():
    (window,) = random_windows([(0, 30)])

    assert torch.allclose(blend([window], [(0, 30)]), window, rtol=1e-6, atol=0)


@pytest.mark.promise(24)
@given(**LENGTHS)
def test_blending_windows_that_agree_changes_nothing(num_residues, window_residues):
    spans = window_spans(num_residues, window_residues)
    (field,) = random_windows([(0, num_residues)])

    assert torch.allclose(blend(parts_of(field, spans), spans), field, rtol=1e-5, atol=1e-5)


@pytest.mark.promise(24)
@given(**LENGTHS, seed=st.integers(0, 9))
def test_every_blended_vector_lies_between_those_of_its_windows(num_residues, window_residues, seed):
    spans = window_spans(num_residues, window_residues)
    windows = random_windows(spans, dim=2, seed=seed)

    blended = blend(windows, spans)

    lowest, highest = torch.full((num_residues, 2), torch.inf), torch.full((num_residues, 2), -torch.inf)
    for window, (start, stop) in zip(windows, spans, strict=True):
        lowest[start:stop] = lowest[start:stop].minimum(window)
        highest[start:stop] = highest[start:stop].maximum(window)
    assert (blended >= lowest - 1e-5).all() and (blended <= highest + 1e-5).all()


def test_the_weight_of_a_residue_is_its_distance_from_the_nearest_cut():
    left, right = torch.zeros(6, 1), torch.ones(6, 1)

    blended = blend([left, right], [(0, 6), (2, 8)])

    # Of the shared residues 2 to 5 the left window's cut is 4, 3, 2, 1 away, and the right one's 1, 2, 3, 4.
    assert blended[:, 0].tolist() == pytest.approx([0, 0, 1 / 5, 2 / 5, 3 / 5, 4 / 5, 1, 1])


def test_the_true_ends_of_a_protein_are_no_cuts():
    spans = [(0, 4), (1, 5)]
    left, right = torch.zeros(4, 1), torch.ones(4, 1)

    blended = blend([left, right], spans)

    # Residue 1 is next to the true start, and 3 away from the left window's cut; the right window is cut before it.
    assert blended[:, 0].tolist() == pytest.approx([0, 1 / 4, 2 / 4, 3 / 4, 1])


def test_a_residue_of_three_windows_is_blended_from_all_of_them():
    windows = [torch.full((4, 1), value) for value in (0.0, 1.0, 4.0)]

    blended = blend(windows, [(0, 4), (1, 5), (2, 6)])

    # Residue 2: two from the first window's cut, two from either of the second's, one from the third's.
    assert blended[2].item() == pytest.approx((2 * 0 + 2 * 1 + 1 * 4) / 5)


# Joining


def with_specials(field, spans):
    """Cut windows out of token vectors that begin with <cls> and end with <eos>."""
    num_residues = len(field) - 2
    return [field[start + (start > 0) : stop + 1 + (stop == num_residues)] for start, stop in spans]


def test_merging_a_whole_protein_returns_cls_and_its_residues_unchanged():
    (tokens,) = random_windows([(0, 32)])

    first, residues = merge_windows([tokens], [(0, 30)])

    assert torch.equal(first, tokens[0])
    assert torch.equal(residues, tokens[1:-1])


def test_special_tokens_are_stripped_from_the_outer_windows_only():
    field = torch.arange(10.0)[:, None]

    windows = strip_special_tokens(with_specials(field, [(0, 4), (2, 6), (4, 8)]), [(0, 4), (2, 6), (4, 8)])

    assert [window[:, 0].tolist() for window in windows] == [[1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 7, 8]]


@pytest.mark.promise(24)
@given(**LENGTHS)
def test_merging_windows_that_agree_gives_the_whole_protein(num_residues, window_residues):
    spans = window_spans(num_residues, window_residues)
    (field,) = random_windows([(0, num_residues + 2)])

    first, residues = merge_windows(with_specials(field, spans), spans)

    assert torch.equal(first, field[0])
    assert residues.shape == (num_residues, 5)
    assert torch.allclose(residues, field[1:-1], rtol=1e-5, atol=1e-5)


def test_merging_windows_that_disagree_blends_them_and_keeps_the_first_cls():
    spans = [(0, 6), (2, 8)]
    left, right = torch.zeros(7, 1), torch.ones(7, 1)
    left[0], right[-1] = 7, 9

    first, residues = merge_windows([left, right], spans)

    assert first.tolist() == [7]
    assert torch.equal(residues, blend([torch.zeros(6, 1), torch.ones(6, 1)], spans))


# Agreement


def test_windows_that_agree_have_a_cosine_of_one():
    spans = window_spans(100, 30)
    (field,) = random_windows([(0, 100)])

    assert overlap_cosine(parts_of(field, spans), spans) == pytest.approx(1, abs=1e-6)


def test_the_cosine_is_the_mean_over_all_shared_residues():
    left = torch.tensor([[9.0, 9], [1, 0], [1, 0], [1, 0]])
    middle = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [3, 4]])
    right = torch.tensor([[4.0, 3], [9, 9], [9, 9], [9, 9]])

    cosine = overlap_cosine([left, middle, right], [(0, 4), (1, 5), (4, 8)])

    assert cosine == pytest.approx((1 + 0 - 1 + 24 / 25) / 4)


def test_windows_that_agree_less_have_a_lower_cosine():
    spans = window_spans(100, 30)
    (field,) = random_windows([(0, 100)], dim=20)
    noise = random_windows(spans, dim=20, seed=1)

    cosines = [
        overlap_cosine([part + share * extra for part, extra in zip(parts_of(field, spans), noise, strict=True)], spans)
        for share in (0, 0.3, 1, 3)
    ]

    assert cosines == sorted(cosines, reverse=True)
    assert cosines[-1] < 0.5
