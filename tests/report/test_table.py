"""Alignment of text tables and digits of numbers with a spread."""

import math

import pytest

from tiltflow.report.table import format_table, is_numeric_column, mean_and_std


def test_numbers_stand_to_the_right_and_text_to_the_left():
    table = format_table(
        ["method", "KL", "ESS"], [["PCD", "1.2 ± 0.4", "—"], ["balanced", "0.0013", "76 %"]]
    )
    assert table.split("\n") == [
        "method           KL   ESS",
        "--------  ---------  ----",
        "PCD       1.2 ± 0.4     —",
        "balanced     0.0013  76 %",
    ]


def test_wide_characters_take_two_columns_and_control_characters_none():
    lines = format_table(["name", "n"], [["年齢", "1"], ["a\x1b[2J\nb", "22"]]).split("\n")
    assert lines[2] == "年齢      1"
    assert lines[3] == "a�[2J�b  22"


def test_a_table_without_rows_is_its_header():
    assert format_table(["a", "bc"], []) == "a  bc\n-  --"


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="row 1 has 1 cells for 2 columns"):
        format_table(["a", "b"], [["1", "2"], ["3"]])


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [
        (["1", "-2.5e-3", "−inf"], True),
        (["[0.31, 0.35]", "nan", ""], True),
        (["(1.0 ± 0.2)e-28", "–"], True),
        (["—", ""], False),
        (["1", "one"], False),
        (["banana"], False),
        ([], False),
    ],
)
def test_numeric_columns(cells, numeric):
    assert is_numeric_column(cells) is numeric


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.0013], "0.00130"),
        ([12345], "12300"),
        ([999.6], "1000"),
        ([1e-28], "1.00e-28"),
        ([0], "0"),
        ([-0.5], "-0.500"),
        ([0.00128, 0.00171, 0.00091], "0.00130 ± 0.00040"),
        ([12345, 13000, 11000], "12100 ± 1000"),
        ([0.2, -0.2], "0.00 ± 0.28"),
        ([1, 1 + 2**0.5 * 0.0996], "1.07 ± 0.10"),
        ([1e-28, 3e-28], "(2.0 ± 1.4)e-28"),
        ([3e7, 4e7], "(3.50 ± 0.71)e+07"),
        ([5, 5, 5], "5.00 ± 0"),
        ([5, 5 + 1e-12], "5.00000000 ± 7.1e-13"),
        ([1, 2, math.nan], "1.50 ± 0.71 (1 of 3 not finite)"),
        ([0.3, math.inf], "0.300 (1 of 2 not finite)"),
        ([math.inf, math.inf], "nan (2 of 2 not finite)"),
        ([math.nan], "nan"),
    ],
)
def test_mean_and_std(values, text):
    assert mean_and_std(values) == text


def test_no_values_have_no_mean():
    with pytest.raises(ValueError, match="at least one"):
        mean_and_std([])
