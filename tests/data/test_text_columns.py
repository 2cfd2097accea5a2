"""Columns of text: what they become by all their cells, and where they are to stay text."""

import numpy as np
import polars as pl
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.scanning import numbers_in_batches
from tiltflow.data.schema import find_schema, text_columns, to_numbers
from tiltflow.data.streams import open_stream
from tiltflow.data.tables import as_frame, read_columns
from tiltflow.data.text_columns import TEXT, Kind, as_found


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["1", "2"], [1, 2]),
        (["1", " 2.5 ", "NA"], [1.0, 2.5, np.nan]),
        (["true", "False", ""], [1.0, 0.0, np.nan]),
        (["true", "1"], ["true", "1"]),
    ],
)
def test_what_columns_become(cells, found):
    column, _ = as_found(pl.Series(cells), Kind())
    np.testing.assert_array_equal(column, found)
    kept, _ = as_found(pl.Series(cells), TEXT)
    assert kept.tolist() == [cell.strip().replace("NA", "") for cell in cells]


@pytest.mark.parametrize(
    ("cells", "only"),
    [(["K", "L", "7"], "7"), (["01", "1", *"xyz"], "01"), (["True", "no"], "True")],
)
@pytest.mark.parametrize("header", ["a,k\n", ""])
def test_levels_of_text_that_look_like_numbers_are_known_again(tmp_path, cells, only, header):
    """Where all rows that are scored have such a level; without a header by their place."""
    rows = [f"{0.5 + i},{cell}\n" for i, cell in enumerate(cells * 10)]
    (tmp_path / "t.csv").write_text(header + "".join(rows))
    schema, numbers = find_schema(as_frame(read_columns(tmp_path / "t.csv")), None)
    (tmp_path / "t.csv").write_text("".join(row for row in rows if row.endswith(f",{only}\n")))
    keep_text = text_columns(schema)
    frame = as_frame(read_columns(tmp_path / "t.csv", keep_text=keep_text))
    scored = to_numbers(schema, frame)
    code = schema.levels[schema.columns[1]].index(only)
    np.testing.assert_array_equal(scored, numbers[numbers[:, 1] == code])
    found = list(numbers_in_batches(schema, open_stream(tmp_path / "t.csv", keep_text=keep_text)))
    np.testing.assert_array_equal(np.concatenate(found), scored)


@pytest.mark.parametrize("rows", [3, 400])
@pytest.mark.parametrize("header", ["a;b\n", ""])
def test_decimal_commas_are_read_as_points_and_told(tmp_path, rows, header):
    """Few values or many: they are no levels of text."""
    a = np.round(np.random.default_rng(0).normal(size=rows) * 100, 3)
    lines = [f"{cell};{place}".replace(".", ",") for place, cell in enumerate(a)]
    path = tmp_path / "t.csv"
    path.write_text(header + "\n".join([*lines, ",5;7", "-1,5e-3;8"]) + "\n")
    with pytest.warns(UserWarning, match=r"decimal commas are read as points .* in (a|x0)$"):
        columns = read_columns(path)
    first, second = columns.values()
    np.testing.assert_array_equal(first, [*a, 0.5, -0.0015])
    np.testing.assert_array_equal(second, [*range(rows), 7, 8])
    with pytest.warns(UserWarning, match="decimal commas"):
        (batch,) = open_stream(path).batches()
    for name, column in columns.items():
        np.testing.assert_array_equal(batch[name], column)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("a;b\n1,234,567;2\n5,5;3\n", "1,234,567"),
        ("a;b\n1.234,5;2\n5,5;3\n", "1.234,5"),
        ('a,b\n"1,5",2\n"5,5",3\n', "1,5"),
    ],
)
def test_what_may_be_thousands_stays_text_and_is_advised(tmp_path, text, first):
    (tmp_path / "t.csv").write_text(text)
    columns = read_columns(tmp_path / "t.csv")
    assert columns["a"][0] == first
    with pytest.raises(InputError, match="write numbers with a decimal point, and thousands wit"):
        find_schema(as_frame(columns), None)
