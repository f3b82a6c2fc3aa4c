import numpy as np
import pytest

from protembed.data.predictions import prediction_cells, prediction_header
from protembed.text import table_line


def test_a_class_is_predicted_with_the_probability_of_each():
    classes = ("membrane", "soluble", "other")

    assert prediction_header(classes) == ["prediction", "p_membrane", "p_soluble", "p_other"]
    assert prediction_cells(np.array([0.125, 0.5, 0.375]), classes) == ["soluble", "0.125", "0.5", "0.375"]


def test_a_value_is_predicted_alone():
    assert prediction_header(None) == ["prediction"]
    assert prediction_cells(np.float32(0.1), None) == ["0.1"]
    assert prediction_cells(np.float32(123456.7), None) == ["123457"]


@pytest.mark.parametrize("value", [-1.5, -0.25, -3e-9, -1e20])
def test_a_negative_value_reads_back_from_its_table_as_a_number(value):
    line = table_line(["protein", *prediction_cells(np.float32(value), None)])

    assert float(line.decode().split("\t")[1]) == pytest.approx(value)


def test_a_class_with_a_hostile_name_cannot_act_in_a_table():
    classes = ("=cmd()", "a\tb")

    header, line = table_line(prediction_header(classes)), table_line(prediction_cells(np.array([0.9, 0.1]), classes))

    assert header == b"prediction\tp_=cmd()\tp_a\\x09b\n"
    assert line == b"'=cmd()\t0.9\t0.1\n"
