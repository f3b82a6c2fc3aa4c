import math

import numpy as np
import pytest

from protembed.evaluation.intervals import MetricWithInterval
from protembed.report.table import Column, Table


def shown(cells, **options):
    """Format one column: what is shown of each cell."""
    return [cells[0].text for _, cells in Table(title="t", columns=[Column(name="c", cells=cells, **options)]).rows()]


def test_numbers_of_a_column_have_the_same_decimals_and_the_largest_three_digits():
    assert shown([0.8135, 0.02, 0.1]) == ["0.814", "0.020", "0.100"]
    assert shown([12.345, 0.1]) == ["12.3", "0.1"]
    assert shown([1234.5, 3.0]) == ["1,234", "3"]


def test_small_number_is_not_shown_as_zero_unless_the_decimals_are_given():
    assert shown([0.8, 1e-5, 0.0]) == ["0.800", "1e-05", "0.000"]
    assert shown([0.8, 1e-5, -1e-5], decimals=2) == ["0.80", "0.00", "0.00"]


def test_counts_have_separators_and_no_decimals():
    assert shown([1234567, np.int64(12)]) == ["1,234,567", "12"]


def test_missing_and_undefined_cells_differ():
    assert shown([None, math.nan, np.float32("inf"), "", 0.5]) == ["", "undefined", "undefined", "", "0.500"]


def test_interval_is_below_its_number_and_all_digits_are_kept():
    score = MetricWithInterval(value=0.83456789, low=0.7, high=0.9)

    (_, (cell,)), (_, (undefined,)) = Table(
        title="t", columns=[Column(name="MCC", cells=[score, MetricWithInterval(value=None)])]
    ).rows()

    assert (cell.text, cell.interval, cell.values) == ("0.835", "0.700 to 0.900", (0.83456789, 0.7, 0.9))
    assert (undefined.text, undefined.interval) == ("undefined", "")


@pytest.mark.parametrize(
    ("best", "expected"), [("high", [False, True, True]), ("low", [True, False, False]), ("", [False] * 3)]
)
def test_best_number_of_a_column_is_marked_with_its_ties(best, expected):
    rows = Table(title="t", columns=[Column(name="c", cells=[0.1, 0.9, 0.9], best=best)]).rows()

    assert [cells[0].is_best for _, cells in rows] == expected


def test_shades_are_percentages_of_the_largest_number_or_of_the_limit():
    def shades(**options):
        rows = Table(title="t", columns=[Column(name="c", cells=[0.5, -0.25, None], **options)]).rows()
        return [cells[0].shade for _, cells in rows]

    assert shades() == [None, None, None]
    assert shades(shade="diverging") == [100, -50, None]
    assert shades(shade="sequential", shade_limit=1) == [50, -25, None]
    assert shades(shade="sequential", shade_limit=0.1) == [100, -100, None]


def test_no_number_of_a_column_stands_out_if_all_are_the_same():
    rows = Table(title="t", columns=[Column(name="c", cells=[0.0, 0.0], best="high")]).rows()

    assert not any(cells[0].is_best for _, cells in rows)


def test_very_large_number_takes_no_more_room_than_others_even_if_its_decimals_are_given():
    column = Column(name="perplexity", cells=[1.0142320547350045e304, 20.3], decimals=2)

    assert [cells[0].text for _, cells in Table(title="x", columns=[column]).rows()] == ["1.01e+304", "20.30"]
