"""Categories: which columns are, in which order their levels stand, and what is refused."""

import numpy as np
import pandas
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltflow.data.categories import decode, encode, find_levels, levels_of_frame
from tiltflow.data.errors import InputError


def table(*columns):
    made = np.empty((len(columns[0]), len(columns)), object)
    for j, column in enumerate(columns):
        made[:, j] = column
    return made


COLOURS = ["red"] * 10 + ["blue"] * 20 + ["green"] * 15
NUMBERS = list(np.linspace(0.0, 1.0, 45))


def test_text_is_coded_by_frequency_and_comes_back():
    values = table(NUMBERS, COLOURS)
    levels = find_levels(values, ["x", "colour"], (), {}, "X")
    assert levels == {"colour": ("blue", "green", "red")}
    coded = encode(values, ["x", "colour"], levels, "X").astype(float)
    assert set(coded[:10, 1]) == {2.0} and coded[44, 0] == 1.0
    assert (decode(coded, ["x", "colour"], levels) == values).all()
    deep = decode(np.stack([coded, coded]), ["x", "colour"], levels)
    assert deep.shape == (2, 45, 2) and deep[1, 0, 1] == "red"


def test_declared_numbers_are_levels():
    values = np.array([[1.0, 30.0], [2.0, 10.0], [3.0, 10.0]])
    assert find_levels(values, ["a", "b"], ("b",), {}, "X") == {"b": (10.0, 30.0)}
    with pytest.raises(InputError, match="no column 'c'; the columns are a, b"):
        find_levels(values, ["a", "b"], ("c",), {}, "X")


@pytest.mark.parametrize(
    "frame",
    [
        polars.DataFrame(
            {"size": polars.Series(["M", "S", "L"] * 4, dtype=polars.Enum(["S", "M", "L", "XL"]))}
        ),
        pandas.DataFrame(
            {"size": pandas.Categorical(["M", "S", "L"] * 4, ["S", "M", "L", "XL"], ordered=True)}
        ),
    ],
)
def test_a_frame_gives_its_own_order(frame):
    """And what does not occur is left out; three rows a level are enough where it is declared."""
    of_frame = levels_of_frame(frame)
    assert of_frame == {"size": ("S", "M", "L", "XL")}
    found = find_levels(frame.to_numpy().astype(object), ["size"], (), of_frame, "X")
    assert found == {"size": ("S", "M", "L")}


def test_levels_of_polars_categoricals_are_sorted():
    frame = polars.DataFrame({"c": polars.Series(["b", "a", None], dtype=polars.Categorical)})
    assert levels_of_frame(frame) == {"c": ("a", "b")}
    assert levels_of_frame(np.zeros((3, 1))) == {}


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (["red"] * 20, "column 'c' is constant \\('red' in every row\\); drop it"),
        ([f"name {i}" for i in range(40)], "40 levels in 40 rows .* too many"),
        ([f"2024-01-{i:02d}" for i in range(1, 29)], "holds dates .*days since a first day"),
    ],
)
def test_what_is_no_category_is_refused(column, found):
    with pytest.raises(InputError, match=found):
        find_levels(table(column), ["c"], (), {}, "points.csv")


@pytest.mark.parametrize(
    "days",
    [
        ["01/02/2020", "13/02/2020"],
        ["1.2.2020", "13.12.2020"],
        ["2020/01/02", "2020/1/3"],
        ["01/02/20", "1/3/20"],
        ["2 Jan 2020", "02-feb-20"],
        ["Jan 2, 2020", "March 13 2020"],
        ["01/02/2020 12:30", "01/02/2020, 1:30:15 PM"],
        ["12:30", "23:59:59.5"],
        ["2020-01-02T12:30+01:00", "2020-01-02 12:30:00"],
    ],
)
def test_dates_of_text_are_refused_with_advice(days):
    with pytest.raises(InputError, match=r"column 'c' holds dates .*days since a first day"):
        find_levels(table(days * 20), ["c"], (), {}, "points.csv")
    declared = find_levels(table(days * 20), ["c"], ("c",), {}, "points.csv")
    assert set(declared["c"]) == set(days)


def test_what_only_looks_like_a_date_is_a_category():
    for names in (["1.2.3", "1.10.0"], ["3/4", "1/2"], ["Jan", "Feb"], ["10-20", "20-30"]):
        assert set(find_levels(table(names * 20), ["c"], (), {}, "X")["c"]) == set(names)


def test_levels_are_plain_text_or_numbers():
    whole = np.repeat(np.array([[1, 7], [2, 8]]), 20, axis=0)
    levels = find_levels(whole, ["x", "c"], ("c",), {}, "X")
    assert levels == {"c": (7, 8)} and all(type(level) is int for level in levels["c"])
    parts = table(list(pandas.cut(np.arange(40.0), 2)))
    with pytest.raises(InputError, match=r"column 'c' has the level .* turn its levels into text"):
        find_levels(parts, ["c"], ("c",), {}, "X")


def test_numbers_written_as_text_are_no_categories():
    assert find_levels(table(["1", "2.5"] * 20), ["c"], (), {}, "X") == {}


def test_missing_and_unknown_levels():
    levels = {"c": ("a", "b")}
    coded = encode(table(["a", None, "", np.nan, pandas.NA, "b"]), ["c"], levels, "X")
    np.testing.assert_array_equal(coded[:, 0].astype(float), [0, *[np.nan] * 4, 1])
    with pytest.raises(InputError, match=r"row 2, column 'c' holds 'z', a level .* knows a, b"):
        encode(table(["a", "z"]), ["c"], levels, "X")


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    st.lists(
        st.text("abß漢#,; -", min_size=1).filter(str.strip), min_size=2, max_size=6, unique=True
    ),
    st.integers(0, 2**32 - 1),
)
def test_any_levels_come_back(names, seed):
    """In any order, and with others that occur as often."""
    generator = np.random.default_rng(seed)
    cells = generator.permutation(np.repeat(np.array(names, object), 12))
    values = table(generator.normal(size=len(cells)), list(cells))
    levels = find_levels(values, ["x", "kind"], (), {}, "X")
    assert sorted(levels["kind"]) == sorted(names)
    coded = encode(values, ["x", "kind"], levels, "X").astype(float)
    assert set(coded[:, 1]) == set(range(len(names)))
    assert (decode(coded, ["x", "kind"], levels) == values).all()
