"""Every bad table is refused by one line that names source, place and remedy."""

import datetime

import numpy as np
import pandas
import polars
import pytest

from tiltflow.data.checks import as_numbers, as_table, check_cells, check_table, of_one_kind
from tiltflow.data.errors import InputError
from tiltflow.data.streams import stream_of

GOOD = np.array([[1.0, 2.0], [3.0, 5.0], [4.0, 1.0]])


def changed(*cells):
    table = GOOD.astype(object)
    for row, column, value in cells:
        table[row, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (GOOD[:, 0], r"shape \(3,\); .*reshape"),
        (GOOD[:, :0], r"found 0 feature\(s\) \(shape=\(3, 0\)\) .*give at least one"),
        (GOOD[:0], "found no rows; .* add data"),
        (GOOD[:1], r"found only one row \(one sample\); .* add data"),
        (GOOD[:2].repeat(2, axis=1) + np.eye(2, 4), r"fewer rows \(2\) than columns \(4\)"),
        (
            changed((1, 0, np.nan), (2, 1, np.inf)).astype(float),
            "row 2, column 'a' is nan, NA or empty .*first of 2 such cells.*; fill or drop",
        ),
        (changed((2, 1, -np.inf)).astype(float), "row 3, column 'b' is -inf .*the only such cell"),
        (changed((2, 0, None)), "row 3, column 'a' is nan"),
        (changed((2, 0, pandas.NA)), "row 3, column 'a' is nan"),
        (changed((1, 1, "many")), "row 2, column 'b' holds 'many', not a number; drop"),
        (changed((0, 1, np.datetime64("2020-01-01"))), "row 1, column 'b' holds '2020-01-01'"),
        (np.array([["1", "2"], ["3", "4"]]), "row 1, column 'a' holds '1', not a number"),
        (np.array([["1", "2"], ["3", "n.a."]])[:, 1:], "row 2, column 'a' holds 'n.a.', not a"),
        (GOOD * [1, 0] + [0, 7], "column 'b' is constant \\(7 in every row\\); drop it"),
        (GOOD * 1j, "Complex data not supported; give"),
    ],
)
def test_bad_tables(table, found):
    columns = list("abcd")[: table.shape[1] if table.ndim == 2 else 0]
    with pytest.raises(InputError, match=found) as refusal:
        check_table(table, columns, "points.csv")
    assert str(refusal.value).startswith("points.csv: ")
    assert "\n" not in str(refusal.value)


def test_bad_names():
    with pytest.raises(InputError, match="2 columns are called 'a'; rename all but one"):
        check_table(GOOD, ["a", "a"], "points.csv")
    with pytest.raises(InputError, match="2 columns but 1 names"):
        check_table(GOOD, ["a"], "points.csv")


def test_min_rows():
    with pytest.raises(InputError, match="only 3 rows; a fit needs at least 10"):
        check_table(GOOD, ["a", "b"], "points.csv", min_rows=10)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int8, object])
def test_numbers_of_any_kind_become_float64(dtype):
    table = check_table(GOOD.astype(dtype), ["a", "b"], "X")
    assert table.dtype == np.float64
    np.testing.assert_array_equal(table, GOOD)


def test_scoring_takes_one_row():
    np.testing.assert_array_equal(check_cells(GOOD[:1], ["a", "b"], "X"), GOOD[:1])


@pytest.mark.parametrize("frame", [pandas.DataFrame, polars.DataFrame])
def test_frames_keep_their_names(frame):
    array, names = as_table(frame({"height": [1.0, 3.0, 4.0], "count": [2, 5, 1]}))
    assert names == ["height", "count"]
    np.testing.assert_array_equal(check_table(array, names, "X"), GOOD)


@pytest.mark.parametrize("frame", [pandas.DataFrame, polars.DataFrame])
def test_frames_with_text_or_holes_are_refused(frame):
    array, names = as_table(frame({"a": [1.0, 2.0], "kind": ["long", "short"]}))
    with pytest.raises(InputError, match="row 1, column 'kind' holds 'long'"):
        check_table(array, names, "X")
    array, names = as_table(frame({"a": [1.0, None], "b": [1, 2]}))
    with pytest.raises(InputError, match="row 2, column 'a' is nan"):
        check_table(array, names, "X")


def test_arrays_and_lists_get_names():
    assert as_table(GOOD)[1] == ["x0", "x1"]
    array, names = as_table([[1, 2], [3, 4]])
    assert array.shape == (2, 2) and names == ["x0", "x1"]
    with pytest.raises(InputError, match="rows have different lengths"):
        as_table([[1, 2], [3]])


@pytest.mark.parametrize("dtype", [np.float64, np.int16, object])
def test_masked_cells_are_missing(dtype):
    masked = np.ma.array(GOOD.astype(dtype), mask=[[0, 0], [0, 1], [0, 0]])
    table, _ = as_table(masked)
    with pytest.raises(InputError, match=r"row 2, column 'x1' is nan.*the only such cell"):
        check_cells(table, ["x0", "x1"], "X")
    (first, *_) = stream_of(masked).batches()
    assert np.isnan(as_numbers(first["x1"][:, None], ["x1"], "X")).tolist() == [
        [False], [True], [False]
    ]  # fmt: skip
    whole, _ = as_table(np.ma.array(GOOD.astype(dtype)))
    assert whole.dtype == dtype and whole.tolist() == GOOD.tolist()


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        ([1, 2.5, True], [1.0, 2.5, 1.0]),
        ([1, None], None),
        ([1, "2"], None),
        ([1, [2]], None),
        ([[1], [2]], None),
        ([1j, 2], None),
    ],
)
def test_objects_that_are_all_numbers(cells, numbers):
    column = np.empty(len(cells), object)
    column[:] = cells
    found = of_one_kind(column)
    assert (found if found is None else found.tolist()) == numbers


DAYS = [datetime.datetime(2026, 1, 1), datetime.datetime(2026, 1, 2, 12)]


@pytest.mark.parametrize(
    "table",
    [
        polars.DataFrame({"a": [1.0, 2.0], "when": DAYS}),
        polars.DataFrame({"a": [1.0, 2.0], "when": [day.date() for day in DAYS]}),
        polars.DataFrame({"a": [1.0, 2.0], "when": [day.time() for day in DAYS]}),
        polars.DataFrame({"a": [1.0, 2.0], "when": [DAYS[1] - day for day in DAYS]}),
        pandas.DataFrame({"a": [1.0, 2.0], "when": DAYS}),
        pandas.DataFrame({"a": [1.0, 2.0], "when": pandas.to_datetime(DAYS, utc=True)}),
        pandas.DataFrame({"schema": [1.0, 2.0], "when": DAYS}),
        np.array(DAYS, "datetime64[s]")[:, None],
    ],
)
def test_dates_are_refused_with_advice(table):
    with pytest.raises(InputError, match=r"dates or times .* days since a first day") as refused:
        as_table(table)
    assert hasattr(table, "dtype") or "column 'when'" in str(refused.value)


@pytest.mark.parametrize(
    "cell",
    [
        *(DAYS[0], DAYS[0].date(), DAYS[0].time(), DAYS[1] - DAYS[0]),
        *(pandas.Timestamp(DAYS[0]), pandas.Period("2026-01"), np.timedelta64(3, "D")),
    ],
)
def test_dates_among_objects_are_refused_with_advice(cell):
    frame = pandas.DataFrame({"a": [1.0, 2.0], "when": pandas.Series([0.5, cell], dtype=object)})
    values, columns = as_table(frame)
    with pytest.raises(InputError, match=r"row 2, column 'when' holds .*days since a first day"):
        check_cells(values, columns, "X")
