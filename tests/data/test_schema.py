"""Schemas: rows to numbers and back, whatever the order of the columns."""

import numpy as np
import pandas
import polars
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.scanning import numbers_in_batches, scan
from tiltflow.data.schema import find_schema, on_grids, to_container, to_numbers, to_rows
from tiltflow.data.streams import stream_of
from tiltflow.loading import load_table


@pytest.fixture(scope="module")
def frame():
    generator = np.random.default_rng(0)
    return polars.DataFrame(
        {
            "weight": generator.normal(size=60),
            "kind": ["cat", "dog", "dog"] * 20,
            "count": generator.poisson(10, size=60),
        }
    )


def test_grids_and_levels_of_a_frame(frame):
    schema, rows = find_schema(frame, None)
    assert schema.columns == ("weight", "kind", "count")
    assert schema.levels == {"kind": ("dog", "cat")}
    np.testing.assert_array_equal(schema.quanta, [0, 1, 1])
    assert rows.dtype == np.float64 and set(rows[:, 1]) == {0.0, 1.0}
    back = to_rows(schema, rows)
    assert back[:, 1].tolist() == frame["kind"].to_list()
    assert back[:, 2].tolist() == frame["count"].to_list()


def test_columns_are_found_by_name(frame):
    schema, rows = find_schema(frame, None)
    turned = frame.select("count", "weight", "kind")
    np.testing.assert_array_equal(to_numbers(schema, turned), rows)
    with pytest.raises(InputError, match="column 'kind' is missing"):
        to_numbers(schema, frame.rename({"kind": "sort"}))
    with pytest.raises(InputError, match="column 'kind' is missing"):
        to_numbers(schema, frame.drop("kind"))
    with pytest.raises(InputError, match=r"X has 2 features, .* expecting 3 features"):
        to_numbers(schema, frame.drop("kind").to_numpy())
    with pytest.raises(InputError, match="holds 'cow', a level"):
        to_numbers(schema, frame.with_columns(kind=polars.lit("cow")))


def test_columns_that_the_fit_had_not_are_ignored_with_a_warning(frame):
    schema, rows = find_schema(frame, None)
    more = frame.with_columns(note=polars.lit("new"))
    with pytest.warns(UserWarning, match="^X: ignored columns that the model .*: note$"):
        np.testing.assert_array_equal(to_numbers(schema, more), rows)
    with pytest.warns(UserWarning, match="^X: ignored columns that the model .*: note$"):
        found = list(numbers_in_batches(schema, stream_of(more)))
    np.testing.assert_array_equal(np.concatenate(found), rows)


def test_cells_may_be_missing_where_that_is_said(frame):
    schema, _ = find_schema(frame, None)
    holes = frame.with_columns(kind=polars.lit(None), weight=polars.lit(None))
    assert np.isnan(to_numbers(schema, holes, missing=True)[:, :2]).all()
    with pytest.raises(InputError, match="column 'weight' is nan"):
        to_numbers(schema, holes)


def test_draws_beyond_the_levels_are_the_nearest_level(frame):
    schema, _ = find_schema(frame, None)
    drawn = np.array([[0.123, 1.7, 3.4], [0.1, -0.9, 7.6]])
    np.testing.assert_array_equal(on_grids(schema, drawn), [[0.123, 1, 3], [0.1, 0, 8]])
    assert to_rows(schema, drawn)[:, 1].tolist() == ["cat", "dog"]


def test_declared_columns_of_an_array():
    values = np.array([[1.5, 7.0], [2.5, 3.0], [0.5, 7.0]])
    schema, rows = find_schema(values, ("x1",))
    assert schema.levels == {"x1": (7.0, 3.0)}
    np.testing.assert_array_equal(rows[:, 1], [0, 1, 0])
    np.testing.assert_array_equal(to_rows(schema, rows).astype(float), values)


@pytest.mark.parametrize("container", [pandas.Index, np.array, list])
def test_columns_are_declared_by_whatever_holds_names(container):
    for names in (["a", "b"], [0, 1]):
        frame = pandas.DataFrame({names[0]: [1.5, 2.5, 0.5], names[1]: [7.0, 3.0, 7.0]})
        schema, _ = find_schema(frame, container(names[1:]))
        assert schema.levels == {str(names[1]): (7.0, 3.0)}
        stream = scan(stream_of(frame), container(names[1:]))
        assert stream.levels == schema.levels


@pytest.mark.parametrize("container", ["array", "rows", "polars", "pandas", "csv", "npy"])
def test_whole_numbers_that_do_not_repeat_are_on_a_grid(container, tmp_path):
    """By their type: as floats they are continuous, as nobody has said otherwise."""
    whole = np.random.default_rng(0).permutation(100_000)[:400].reshape(200, 2)
    frame = polars.DataFrame(whole, schema=["x0", "x1"])
    frame.write_csv(tmp_path / "t.csv")
    np.save(tmp_path / "t.npy", whole)
    tables = {
        "array": whole,
        "rows": whole.tolist(),
        "polars": frame,
        "pandas": frame.to_dict(as_series=False),
        "csv": tmp_path / "t.csv",
        "npy": tmp_path / "t.npy",
    }
    table = load_table(tables[container], {}, whole=True)
    if container == "pandas":
        table = pandas.DataFrame(table)
    schema, rows = find_schema(table, None)
    assert schema.quanta.tolist() == [1, 1]
    drawn = rows + np.random.default_rng(1).uniform(-0.4, 0.4, size=rows.shape)
    back = to_container(schema, on_grids(schema, drawn), "polars")
    assert back.equals(frame) and back.schema == frame.schema


def test_whole_numbers_of_floats_that_do_not_repeat_are_continuous():
    whole = np.random.default_rng(0).permutation(100_000)[:400].reshape(200, 2)
    assert find_schema(whole.astype(float), None)[0].quanta.tolist() == [0, 0]
