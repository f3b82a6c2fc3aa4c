import numpy as np
import pytest

from protembed.embedding.metadata import IDS
from protembed.embedding.stored_proteins import StoredProteins, find_repetitions, identifiers_of
from protembed.errors import VerificationError


def test_table_of_identifiers_is_read_as_arrays(store):
    result = store(np.zeros((3, 2)), ["MKT", "MXXK", "MKT"], ["a", "b", "a"], agreements=[None, 0.75, None])

    proteins = StoredProteins.read(result)

    assert proteins.num_residues.tolist() == [3, 4, 3]
    assert proteins.num_windows.tolist() == [1, 2, 1]
    np.testing.assert_array_equal(proteins.agreements, [np.nan, 0.75, np.nan])
    assert proteins.num_unknown.tolist() == [0, 2, 0]
    assert proteins.sequences[0] == proteins.sequences[2] != proteins.sequences[1]
    assert proteins.identifiers[0] == proteins.identifiers[2] != proteins.identifiers[1]


def test_damaged_table_of_identifiers_is_an_error(store):
    result = store(np.zeros((3, 2)))
    result.companion(IDS).write_text("row\tid\n1\tp1\tmany\n")

    with pytest.raises(VerificationError, match="its table of identifiers cannot be read"):
        StoredProteins.read(result)


def test_identifiers_are_read_as_the_input_has_them(store):
    result = store(np.zeros((3, 2)), ids=["p1", "=cmd()", "p3"])

    assert identifiers_of(result, {1, 2}) == {1: "=cmd()", 2: "p3"}


def test_repetitions_of_rows_without_equals_are_none():
    for hashes in (np.zeros(0, np.int64), np.array([0]), np.array([5, 3, 4])):
        assert find_repetitions(hashes).num_repeats == 0
        assert find_repetitions(hashes).groups == []


def test_all_repetitions_are_counted_though_only_the_largest_groups_are_listed():
    hashes = np.array([4, 4, 0, 0, 0, 9, 9])

    found = find_repetitions(hashes, max_groups=2)

    assert (found.num_rows, found.num_groups, found.num_repeats) == (7, 3, 4)
    assert found.groups == [[2, 3, 4], [0, 1]]
