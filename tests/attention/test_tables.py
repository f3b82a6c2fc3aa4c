import pytest

from protembed.attention.maps import ALL_STATISTICS
from protembed.attention.tables import CONTACT_COLUMNS, PRECISION_COLUMNS, spell_column

COLUMNS = ("layer", "head", *ALL_STATISTICS, *CONTACT_COLUMNS, *PRECISION_COLUMNS)


@pytest.mark.parametrize("column", COLUMNS)
def test_no_column_is_shown_by_a_name_of_the_program(column):
    assert "_" not in spell_column(column)


def test_statistics_with_a_unit_say_it():
    assert spell_column("entropy") == "entropy (nats)"
    assert spell_column("mean_distance") == "mean distance (residues)"
    assert spell_column("on_W") == "share on Trp (W)"


def test_no_two_columns_of_a_table_share_a_name():
    for columns in (("layer", "head", *ALL_STATISTICS, *CONTACT_COLUMNS), PRECISION_COLUMNS):
        assert len({spell_column(column) for column in columns}) == len(columns)
