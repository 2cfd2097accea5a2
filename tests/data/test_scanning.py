"""A scan in batches finds what `find_schema` finds in the whole table, or refuses it alike."""

import numpy as np
import pandas
import polars
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import tiltflow.data.scanning
import tiltflow.data.streams
from tiltflow.data.errors import InputError
from tiltflow.data.scanning import encoded, numbers_in_batches, scan
from tiltflow.data.schema import describe_columns, find_schema, to_numbers
from tiltflow.data.streams import stream_of


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(tiltflow.data.streams, "BATCH_ROWS", 7)


def streamed(X, categorical):
    """The schema and the rows by way of batches."""
    found = scan(stream_of(X), categorical)
    rows = np.concatenate(list(encoded(found.stream, found.levels)))
    assert len(rows) == found.rows
    return describe_columns(rows, found.stream.columns, found.levels, found.stream.types), rows


def outcome(find, X, categorical):
    """Schema and rows, or the refusal."""
    try:
        schema, rows = find(X, categorical)
    except InputError as error:
        return str(error)
    levels = {name: [(type(it), it) for it in each] for name, each in schema.levels.items()}
    return schema.columns, levels, schema.quanta.tolist(), schema.origin.tolist(), rows.tolist()


def agree(X, categorical=None):
    whole = outcome(find_schema, X, categorical)
    assert outcome(streamed, X, categorical) == whole
    return whole


NUMBERS = st.one_of(
    st.integers(-3, 3).map(float), st.floats(-1e3, 1e3), st.sampled_from([np.nan, np.inf, 0.0])
)
WORDS = st.sampled_from(["a", "b", "c", "1", "2.5", "", None, "nan"])
KINDS = {
    "numbers": st.floats(-1e3, 1e3),
    "grid": st.integers(0, 5).map(float),
    "holes": NUMBERS,
    "words": st.sampled_from(["a", "b"]),
    "mixed": WORDS,
    "whole": st.integers(-5, 5),
    "maybe": st.one_of(st.none(), st.booleans()),
}


@st.composite
def frames(draw):
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3))
    rows = draw(st.integers(1, 40))
    columns = {}
    for j, kind in enumerate(kinds):
        # Few different cells, or no column of text would ever have ten rows a level.
        cells = draw(st.lists(KINDS[kind], min_size=1, max_size=6))
        places = draw(st.lists(st.integers(0, len(cells) - 1), min_size=rows, max_size=rows))
        columns[f"c{j}"] = [cells[place] for place in places]
    declared = draw(st.sets(st.sampled_from([*columns, "c9"]), max_size=2))
    return columns, tuple(sorted(declared))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(frames())
def test_scans_of_polars_frames_agree(table):
    columns, declared = table
    try:
        frame = polars.DataFrame(columns, strict=False)
    except TypeError:  # what polars cannot hold together
        reject()
    agree(frame, declared)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(frames())
def test_scans_of_pandas_frames_agree(table):
    columns, declared = table
    agree(pandas.DataFrame(columns), declared)


def test_the_examples_are_of_all_kinds():
    """Refusals of every kind, and tables that are taken."""
    generator = np.random.default_rng(0)
    text = polars.DataFrame({"a": generator.normal(size=40), "b": ["x", "y", "z", "x"] * 10})
    assert agree(text)[1] == {"b": [(str, "x"), (str, "y"), (str, "z")]}
    values = generator.normal(size=(40, 2))
    assert agree(values)[0] == ("x0", "x1")
    holes = values.copy()
    holes[[30, 33], [0, 1]] = np.nan
    assert "row 31, column 'x0' is nan, NA or empty (the first of 2 such cells)" in agree(holes)
    word = text.with_columns(c=polars.Series(["1"] * 38 + ["oops", "2"]))
    assert "row 39, column 'c' holds 'oops', not a number" in agree(word)
    numbers = text.with_columns(c=polars.Series(["1"] * 40))
    assert "row 1, column 'c' holds '1', not a number" in agree(numbers)
    hole = text.with_columns(b=polars.Series(["x", "y"] * 15 + [None, "x", None, "y"] + ["x"] * 6))
    assert "row 31, column 'b' is nan, NA or empty (the first of 2 such cells)" in agree(hole)
    asked = polars.DataFrame({"a": values[:, 0], "b": [1.0, 2.0] * 19 + [None, 1.0]})
    assert "row 39, column 'b' is nan, NA or empty (the only such cell)" in agree(asked, ("b",))
    late = pandas.DataFrame({"a": values[:, 0], "b": [*[1.0] * 30, *[[1]] * 10]})
    assert "row 31, column 'b' holds '[1]', not a number" in agree(late)
    assert "text of 40 levels in 40 rows" in agree(
        text.with_columns(c=polars.Series(map("n{}".format, range(40))))
    )
    assert "holds dates" in agree(
        text.with_columns(
            c=polars.lit("2020-01-01").repeat_by(1).list.first()
            + polars.Series(["", "T01:00"] * 20)
        )
    )
    assert "column 'b' is constant ('x' in every row)" in agree(
        text.with_columns(b=polars.lit("x"))
    )
    assert "column 'x0' is constant (2 in every row)" in agree(np.full((9, 1), 2.0))
    assert "fewer rows (3) than columns (4)" in agree(generator.normal(size=(3, 4)))
    assert "only one row" in agree(generator.normal(size=(1, 2)))
    assert "no column 'q'" in agree(values, ("q",))


def test_a_frames_own_categories_keep_their_order():
    kind = polars.Enum(["z", "y", "x"])
    frame = polars.DataFrame(
        {"a": np.arange(40.0) ** 2, "b": polars.Series(["x", "y"] * 20, dtype=kind)}
    )
    assert agree(frame)[1] == {"b": [(str, "y"), (str, "x")]}


def test_too_many_levels_are_refused_without_being_kept(monkeypatch):
    monkeypatch.setattr(tiltflow.data.scanning, "MOST_COUNTED", 10)
    names = polars.DataFrame({"a": np.arange(40.0), "b": [f"n{i}" for i in range(40)]})
    with pytest.raises(InputError, match=r"text of \d\d levels in 40 rows"):
        scan(stream_of(names), None)
    with pytest.raises(InputError, match="column 'b' holds over 10 levels"):
        scan(stream_of(names), ("b",))


def test_the_digest_is_of_every_cell():
    generator = np.random.default_rng(0)
    X = polars.DataFrame({"a": generator.normal(size=40), "b": ["x", "y"] * 20})
    digest = scan(stream_of(X), None).digest
    assert scan(stream_of(X), None).digest == digest
    assert scan(stream_of(X.reverse()), None).digest != digest
    other = X.with_columns(b=polars.Series(["x", "y"] * 19 + ["y", "x"]))
    assert scan(stream_of(other), None).digest != digest


def test_rows_to_score_come_in_batches():
    generator = np.random.default_rng(0)
    X = polars.DataFrame({"a": generator.normal(size=40), "b": ["x", "y"] * 20})
    schema, rows = find_schema(X, None)
    turned = X.select("b", "a")
    np.testing.assert_array_equal(
        np.concatenate(list(numbers_in_batches(schema, stream_of(turned)))), rows
    )
    for other in (
        X.with_columns(a=polars.Series([0.0] * 30 + [np.nan, np.inf] * 5)),
        X.with_columns(b=polars.Series(["x"] * 39 + ["z"])),
        X.with_columns(b=polars.Series(["x"] * 38 + [None, "x"])),
        X.with_columns(a=polars.Series(["word"] * 40)),
        X.drop("a"),
    ):
        with pytest.raises(InputError) as whole:
            to_numbers(schema, other)
        with pytest.raises(InputError) as found:
            list(numbers_in_batches(schema, stream_of(other)))
        assert str(found.value) == str(whole.value)


def test_dates_are_refused_in_batches_too():
    days = polars.Series("when", [0, 1, 2]).cast(polars.Date)
    X = polars.DataFrame({"a": [1.0, 2.0, 3.0]}).with_columns(days)
    for table in (X, X.lazy()):
        with pytest.raises(InputError, match=r"'when' holds dates .*days since a first day"):
            scan(stream_of(table), None)
