from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from protembed.data.windows import most_central_window, window_spans

LENGTHS = {"num_residues": st.integers(1, 3000), "window_residues": st.integers(16, 1100)}


@pytest.mark.promise(24)
@given(**LENGTHS)
def test_windows_cover_the_whole_protein_in_order(num_residues, window_residues):
    spans = window_spans(num_residues, window_residues)

    assert (spans[0][0], spans[-1][1]) == (0, num_residues)
    assert spans == sorted(set(spans))
    assert all(start < before_stop for (_, before_stop), (start, _) in pairwise(spans))


@pytest.mark.promise(24)
@given(**LENGTHS)
def test_all_windows_have_full_length(num_residues, window_residues):
    lengths = {stop - start for start, stop in window_spans(num_residues, window_residues)}

    assert lengths == {min(num_residues, window_residues)}


@pytest.mark.promise(24)
@given(**LENGTHS)
def test_neighbouring_windows_overlap_evenly_by_at_least_a_quarter(num_residues, window_residues):
    spans = window_spans(num_residues, window_residues)
    shared = [before_stop - start for (_, before_stop), (start, _) in pairwise(spans)]

    assert all(overlap >= window_residues // 4 for overlap in shared)
    assert max(shared, default=0) - min(shared, default=0) <= 1


@pytest.mark.promise(24)
@given(**LENGTHS)
def test_windows_are_as_few_as_possible(num_residues, window_residues):
    num_windows = len(window_spans(num_residues, window_residues))
    stride = window_residues - window_residues // 4

    assert (num_windows == 1) == (num_residues <= window_residues)
    # With one window fewer the last would not reach the end.
    assert num_windows == 1 or window_residues + (num_windows - 2) * stride < num_residues


def test_windows_of_1022_residues_lie_where_computed_by_hand():
    assert window_spans(1022, 1022) == [(0, 1022)]
    assert window_spans(1023, 1022) == [(0, 1022), (1, 1023)]
    assert window_spans(2000, 1022) == [(0, 1022), (489, 1511), (978, 2000)]


@pytest.mark.parametrize("window_residues", [1, 2, 3, 4, 5])
def test_windows_of_a_few_residues_cover_every_residue(window_residues):
    spans = window_spans(11, window_residues)

    assert {residue for start, stop in spans for residue in range(start, stop)} == set(range(11))
    assert {stop - start for start, stop in spans} == {window_residues}


@given(position=st.floats(0, 1, exclude_max=True), **LENGTHS)
def test_the_most_central_window_is_the_one_whose_cuts_are_farthest_from_the_residue(
    position, num_residues, window_residues
):
    spans, residue = window_spans(num_residues, window_residues), int(position * num_residues)

    def context(span):
        """Count the residues up to the nearer cut; ends of the protein are not cuts."""
        ahead = residue - span[0] if span[0] else num_residues
        behind = span[1] - 1 - residue if span[1] < num_residues else num_residues
        return min(ahead, behind)

    chosen = most_central_window(spans, residue)

    assert chosen in spans and chosen[0] <= residue < chosen[1]
    assert context(chosen) == max(context(span) for span in spans if span[0] <= residue < span[1])
