"""Public tables: what is a column, what is a label, and who is an outlier."""

import gzip

import numpy as np
import pytest

from tiltflow.data.dequantisation import make_continuous
from tiltflow.data.errors import InputError
from tiltflow.data.public_tables import FILES, SKLEARN, Files, find_public_tables, load_files


def test_text_constant_columns_and_rows_with_missing_cells_are_left_out(tmp_path):
    text = "a,b,kind,name,c\n1,2,x,p,7\n2,,y,q,7\n3,4,z,r,7\n5,1,x,s,7\n"
    (tmp_path / "one.csv").write_text(text)
    table = load_files(Files(("one.csv",), "kind", ("x",)), tmp_path)
    np.testing.assert_array_equal(table.rows, [[1, 2], [3, 4], [5, 1]])
    np.testing.assert_array_equal(table.is_outlier, [True, False, True])
    without = load_files(Files(("one.csv",), "kind", ("x",), ("z",)), tmp_path)
    np.testing.assert_array_equal(without.rows, [[1, 2], [5, 1]])
    assert load_files(Files(("one.csv",), "kind"), tmp_path).is_outlier is None


def test_files_of_one_table_follow_each_other_and_a_column_of_numbers_is_no_column(tmp_path):
    for name, first in (("a.csv.gz", 1), ("b.csv.gz", 3)):
        with gzip.open(tmp_path / name, "wt") as file:
            file.write(f",x,y\n1,{first},0\n2,{first + 1},1\n")
    table = load_files(Files(("a.csv.gz", "b.csv.gz"), "y", ("1",), numbered=True), tmp_path)
    np.testing.assert_array_equal(table.rows[:, 0], [1, 2, 3, 4])
    np.testing.assert_array_equal(table.is_outlier, [False, True, False, True])


def test_a_table_without_numbers_is_refused(tmp_path):
    (tmp_path / "one.csv").write_text("a,b\nx,y\nz,w\n")
    with pytest.raises(InputError, match="no column of numbers"):
        load_files(Files(("one.csv",)), tmp_path)


def test_only_files_that_are_there_are_found(tmp_path):
    assert list(find_public_tables(tmp_path)) == list(SKLEARN)
    (tmp_path / "geyser.csv").write_text("duration,waiting,kind\n3.6,79,long\n1.8,54,short\n")
    found = find_public_tables(tmp_path)
    assert set(found) - set(SKLEARN) == {"geyser"}
    assert found["geyser"]().rows.shape == (2, 2)
    assert found["iris"]().rows.shape == (150, 4)
    assert all(files.outliers is None or files.label for files in FILES.values())


def test_spread_rows_repeat_nothing_and_stay_where_they_were():
    generator = np.random.default_rng(0)
    smooth = generator.normal(size=500)
    rows = np.stack([np.round(smooth, 1), np.where(smooth > 0, smooth, 0.123456789), smooth])
    spread = make_continuous(generator, rows.T)
    assert all(len(np.unique(column)) == 500 for column in spread.T)
    np.testing.assert_array_equal(spread[:, 2], smooth)
    assert np.abs(spread[:, 0] - rows[0]).max() <= 0.05
    assert np.abs(spread[:, 1] - rows[1]).max() <= 0.01 * rows[1].std()
