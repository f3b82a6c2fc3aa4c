import pytest

from protembed.attention.maps import ALL_STATISTICS
from protembed.attention.tables import CONTACT_COLUMNS, PRECISION_COLUMNS, column_label

COLUMNS = ("layer", "head", *ALL_STATISTICS, *CONTACT_COLUMNS, *PRECISION_COLUMNS)


@pytest.mark.parametrize("column", COLUMNS)
def test_labels_of_columns_have_no_underscores(column):
    assert "_" not in column_label(column)


def test_labels_of_statistics_include_their_units():
    assert column_label("entropy") == "entropy (nats)"
    assert column_label("mean_distance") == "mean distance (residues)"
    assert column_label("on_W") == "fraction on Trp (W)"


def test_labels_of_columns_are_unique():
    for columns in (("layer", "head", *ALL_STATISTICS, *CONTACT_COLUMNS), PRECISION_COLUMNS):
        assert len({column_label(column) for column in columns}) == len(columns)
