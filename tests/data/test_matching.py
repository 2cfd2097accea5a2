"""Columns of tables with and without names, matched with those of a fit."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.matching import are_counted, has_names, match_columns
from tiltflow.data.scanning import numbers_in_batches
from tiltflow.data.schema import find_schema, to_numbers
from tiltflow.data.streams import open_stream, stream_of
from tiltflow.data.table_writing import write_table
from tiltflow.data.tables import as_frame, read_columns

VALUES = np.random.default_rng(0).normal(size=(20, 2))
TURNED = pl.DataFrame(VALUES, schema=["x1", "x0"])
"""Columns that a person has given names like those of places, in another order."""


def files_without_names(folder):
    """The values in files that have no names for their columns."""
    pl.DataFrame(VALUES).write_csv(folder / "t.csv", include_header=False)
    np.save(folder / "t.npy", VALUES)
    np.savez(folder / "t.npz", X=VALUES)
    return [folder / f"t.{kind}" for kind in ("csv", "npy", "npz")]


def test_what_has_no_names_is_taken_by_place(tmp_path):
    schema, rows = find_schema(TURNED, None)
    tables = [VALUES, VALUES.tolist(), pd.DataFrame(VALUES)]
    tables += [as_frame(read_columns(path)) for path in files_without_names(tmp_path)]
    for table in tables:
        np.testing.assert_array_equal(to_numbers(schema, table), rows)
        counted, of_fit = find_schema(table, None)
        with pytest.warns(UserWarning, match="^X: columns x1, x0 taken in that order for"):
            np.testing.assert_array_equal(to_numbers(counted, TURNED), of_fit)
        np.testing.assert_array_equal(to_numbers(counted, VALUES), of_fit)
    turned_back = TURNED.select("x0", "x1")
    np.testing.assert_array_equal(to_numbers(schema, turned_back), rows)


def test_streams_say_whether_they_have_names(tmp_path):
    schema, rows = find_schema(TURNED, None)
    streams = [stream_of(VALUES), *map(open_stream, files_without_names(tmp_path))]
    for stream in streams:
        assert not stream.named
        (found,) = numbers_in_batches(schema, stream)
        np.testing.assert_array_equal(found, rows)
    for kind in ("csv", "parquet", "npz"):
        path = tmp_path / f"named.{kind}"
        write_table(path, {name: TURNED[name].to_numpy() for name in ("x0", "x1")})
        assert open_stream(path).named and has_names(read_columns(path))
        (found,) = numbers_in_batches(schema, open_stream(path))
        np.testing.assert_array_equal(found, rows)


def test_places_that_a_label_has_left_are_found_again():
    """Both tables have no names: x1 was set apart in the fit."""
    columns = dict(zip(("x0", "x1", "x2"), "abc"))
    found, note = match_columns(columns, ("x0", "x2"), "t", named=False, names_are_real=False)
    assert found == {"x0": "a", "x2": "c"} and note.endswith(": x1")
    with pytest.raises(InputError, match=r"3 columns .* fitted on 2 \(x0, x2\), .* fit had no"):
        match_columns(columns, ("x0", "x2"), "t", names_are_real=False)
    with pytest.raises(InputError, match=r"3 columns .* the table has no names"):
        match_columns(columns, ("x1", "x2"), "t", named=False)


def test_names_that_draws_of_a_fit_without_names_have():
    """They are in the order of the places: what follows them may be ignored."""
    columns = dict(zip(("x0", "x1", "log_prob"), "abc"))
    found, note = match_columns(columns, ("x0", "x1"), "t", names_are_real=False)
    assert found == {"x0": "a", "x1": "b"} and note.endswith(": log_prob")


@pytest.mark.parametrize(
    ("names", "counted"),
    [
        (["x0"], True),
        (["x0", "x1", "x4"], True),
        (["x1", "x2"], False),
        (["x1", "x0"], False),
        (["x0", "y"], False),
        (["x0", "x01"], False),
    ],
)
def test_names_like_those_of_places(names, counted):
    assert are_counted(names) is counted


def test_frames_of_pandas_with_numbers_for_names_keep_their_order():
    frame = pd.DataFrame(VALUES)
    schema, rows = find_schema(frame, None)
    assert not schema.named and schema.columns == ("0", "1")
    np.testing.assert_array_equal(to_numbers(schema, frame[[1, 0]]), rows)
