import pytest

from protembed.attention.maps import ALL_STATISTICS
from protembed.attention.tables import CONTACT_COLUMNS, PRECISION_COLUMNS, column_label

COLUMNS = ("layer", "head", *ALL_STATISTICS, *CONTACT_COLUMNS, *PRECISION_COLUMNS)


@pytest.mark.parametrize("column", COLUMNS)
def test_no_column_is_shown_by_a_name_of_the_program(column):
    assert "_" not in column_label(column)


def test_statistics_with_a_unit_say_it():
    assert column_label("entropy") == "entropy (nats)"
    assert column_label("mean_distance") == "mean distance (residues)"
    assert column_label("on_W") == "share on Trp (W)"


def test_no_two_columns_of_a_table_share_a_name():
    for columns in (("layer", "head", *ALL_STATISTICS, *CONTACT_COLUMNS), PRECISION_COLUMNS):
        assert len({column_label(column) for column in columns}) == len(columns)
