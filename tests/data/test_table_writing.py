"""Tables that are written."""

import numpy as np
import polars as pl
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.table_writing import check_writable, write_table
from tiltflow.data.tables import read_table


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    write_table(path, {"a": np.array([1.0])})
    with pytest.raises(pl.exceptions.PolarsError):
        write_table(path, {"a": np.zeros(2), "b": np.zeros(3)})
    assert read_table(path).values.tolist() == [[1.0]]
    assert list(tmp_path.iterdir()) == [path]


def test_outputs_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    for path in ("out.txt", "out", "folder.csv", "nowhere/out.csv"):
        with pytest.raises(InputError, match=path):
            check_writable(tmp_path / path)
        with pytest.raises(InputError, match=path):
            write_table(tmp_path / path, {"a": np.zeros(1)})
    assert [p.name for p in tmp_path.iterdir()] == ["folder.csv"]
