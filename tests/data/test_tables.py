"""Tables in and out: what is read is what was meant, and bad files are named in one line."""

import gzip

import h5py
import numpy as np
import polars as pl
import pytest

import tiltflow.data.tables
from tiltflow.data.errors import InputError
from tiltflow.data.streams import open_stream
from tiltflow.data.table_kinds import ALIASES, EXTENSIONS
from tiltflow.data.table_writing import write_table
from tiltflow.data.tables import read_columns, read_table


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path, *parts, label_column=None):
    """The message of the refusal: one line that names the file and all of the parts."""
    with pytest.raises(InputError) as caught:
        read_table(path, label_column)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    for part in parts:
        assert part in message
    return message


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_what_is_written_is_read_again(tmp_path, extension):
    values = np.random.default_rng(0).normal(size=(7, 3)) * [1e-12, 1.0, 1e12]
    path = tmp_path / f"table{extension}"
    write_table(path, {"mass (kg)": values[:, 0], "b": values[:, 1], "a": values[:, 2]})
    table = read_table(path)
    np.testing.assert_array_equal(table.values, values)
    assert table.values.dtype == np.float64
    names = ["x0", "x1", "x2"] if extension == ".npy" else ["mass (kg)", "b", "a"]
    assert table.columns == names
    assert table.labels is None
    assert table.source == str(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("extension", ALIASES)
def test_other_names_of_the_formats(tmp_path, extension):
    path = tmp_path / f"t{extension}"
    columns = {"mass, kg": np.array([0.5, 1.5]), "b": np.array([2.5, -1.0])}
    write_table(path, columns)
    assert read_table(path).columns == list(columns)
    np.testing.assert_array_equal(read_table(path).values, [[0.5, 2.5], [1.5, -1.0]])
    batches = list(open_stream(path).batches())
    np.testing.assert_array_equal(batches[0]["b"], columns["b"])
    if extension == ".tsv":
        assert "\t" in path.read_text()


def test_tabs_part_the_cells_of_tsv_whatever_the_header_holds(tmp_path):
    path = write(tmp_path / "t.tsv", "mass, kg\tb\n0,5\t2\n1\t3\n")
    with pytest.warns(UserWarning, match="decimal commas .* in mass, kg$"):
        assert read_table(path).values.tolist() == [[0.5, 2], [1, 3]]


def test_a_name_of_a_byte_order_mark_is_a_name(tmp_path):
    write_table(tmp_path / "t.csv", {"\ufeff": np.array([0.5, 1.5])})
    assert read_table(tmp_path / "t.csv").columns == ["\ufeff"]


@pytest.mark.parametrize(
    ("text", "columns", "values"),
    [
        ("a,b\n1,2\n3,4\n", ["a", "b"], [[1, 2], [3, 4]]),
        ("1,2\n3,4\n", ["x0", "x1"], [[1, 2], [3, 4]]),
        ("# from\n\n# afar\nlat,long\n# note\n-1.5,.5\n\n", ["lat", "long"], [[-1.5, 0.5]]),
        ("# from afar\n1,2\n\n3,4\n", ["x0", "x1"], [[1, 2], [3, 4]]),
        ("\ufeffa; b\r\n1; 2 \r\n", ["a", "b"], [[1, 2]]),
        ("a\tb\n1\t2", ["a", "b"], [[1, 2]]),
        ('"a,b",c\n"1",2\n', ["a,b", "c"], [[1, 2]]),
        ("n,kept\n1,true\n2,False\n", ["n", "kept"], [[1, 1], [2, 0]]),
        ("class,2019\n1,2\n3,4\n", ["class", "2019"], [[1, 2], [3, 4]]),
        ("a\n1\n2\n", ["a"], [[1], [2]]),
        ("a,b\n1,inf\n-Infinity,1e5\n", ["a", "b"], [[1, np.inf], [-np.inf, 1e5]]),
    ],
)
def test_csv_dialects(tmp_path, text, columns, values):
    table = read_table(write(tmp_path / "t.csv", text))
    assert table.columns == columns
    np.testing.assert_array_equal(table.values, values)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["3", "-4", "+5"], np.int64),
        (["3", "4", "5.0"], np.float64),
        (["3", "4", ""], np.float64),
        (["9007199254740993", "4", "5"], np.float64),
    ],
)
def test_columns_of_whole_numbers_are_of_integers(tmp_path, cells, kind):
    path = write(tmp_path / "t.csv", "a,b\n" + "".join(f"{cell},x\n" for cell in cells))
    assert read_columns(path)["a"].dtype == kind
    np.save(tmp_path / "t.npy", np.zeros((3, 2), kind))
    assert read_columns(tmp_path / "t.npy")["x0"].dtype == kind
    assert read_table(tmp_path / "t.npy").values.dtype == np.float64


def test_missing_cells_are_nan_and_no_row_is_dropped(tmp_path):
    text = 'a,b\n1,\n,2\nNaN,NA\n,\n5,""\n'
    table = read_table(write(tmp_path / "t.csv", text))
    nan = np.nan
    expected = [[1, nan], [nan, 2], [nan, nan], [nan, nan], [5, nan]]
    np.testing.assert_array_equal(table.values, expected)
    frame = pl.DataFrame({"a": [1, None], "b": [None, True], "c": [None, None]})
    for suffix, save in (
        (".parquet", frame.write_parquet),
        (".ndjson", frame.write_ndjson),
        (".feather", frame.write_ipc),
    ):
        save(tmp_path / f"t{suffix}")
        table = read_table(tmp_path / f"t{suffix}")
        np.testing.assert_array_equal(table.values, [[1, nan, nan], [nan, 1, nan]])


def test_labels_are_set_apart(tmp_path):
    path = write(tmp_path / "t.csv", "5.1,3.5,setosa\n4.9,3.0,\n")
    table = read_table(path, "x2")
    assert table.columns == ["x0", "x1"]
    assert table.labels is not None
    assert table.labels.tolist() == ["setosa", ""]
    table = read_table(write(tmp_path / "t.csv", "class,a\n1,0.5\n2,0.7\n"), "class")
    assert table.labels is not None
    assert table.labels.dtype == np.int64
    assert table.columns == ["a"]
    np.savez(tmp_path / "t.npz", X=np.ones((2, 2)), y=np.array([0, 1]))
    table = read_table(tmp_path / "t.npz", "y")
    assert table.labels is not None
    assert table.labels.tolist() == [0, 1]
    assert read_table(tmp_path / "t.npz").labels is None


def test_arrays(tmp_path):
    np.save(tmp_path / "flat.npy", np.arange(3, dtype=np.int8))
    assert read_table(tmp_path / "flat.npy").values.tolist() == [[0.0], [1.0], [2.0]]
    np.savez(tmp_path / "one.npz", points=np.ones((2, 3), bool))
    assert read_table(tmp_path / "one.npz").columns == ["x0", "x1", "x2"]
    np.savez(tmp_path / "x.npz", other=np.zeros((2, 3)), X=np.ones((2, 2)))
    assert read_table(tmp_path / "x.npz").values.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    with h5py.File(tmp_path / "columns.h5", "w") as file:
        file["b"], file["a"], file["kind"] = [1, 2], [3.0, 4.0], ["p", "q"]
    table = read_table(tmp_path / "columns.h5", "kind")
    assert dict(zip(table.columns, table.values.T.tolist())) == {"a": [3, 4], "b": [1, 2]}
    assert table.labels is not None
    assert table.labels.tolist() == ["p", "q"]
    refusal(tmp_path / "columns.h5", "'kind'", "'p'")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty"]),
        ("# only a comment\n\n", ["empty"]),
        ("a,b\n", ["no rows"]),
        ("a,b,a\n1,2,3\n", ["'a' twice"]),
        (",a\n0,1\n1,2\n", ["column 1", "no name"]),
        ("a,b\n1,2\n3\n4,5\n", ["row 2 (line 3)", "1 cells"]),
        ("a,b\n1,2\n\n3,4,5\n", ["row 3 (line 4)", "3 cells"]),
        ("1,2\n3\n", ["row 2 (line 2)"]),
        ('a,b\n1,"2\n', ["line 2"]),
        ("a,b\n1,2\n3,x\n", ["'b'", "'x' in row 2", "--label-column"]),
        ("1,2,setosa\n3,4,other\n", ["'x2'", "setosa"]),
    ],
)
def test_bad_csv(tmp_path, text, parts):
    refusal(write(tmp_path / "t.csv", text), *parts)


def test_the_row_of_a_text_cell_counts_blank_lines_out(tmp_path):
    refusal(write(tmp_path / "t.csv", "a,b\n1,2\n\n3,x\n"), "row 2")


def test_csv_of_other_encodings_and_damaged_gzip(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("a,b\n1,é\n".encode("latin-1"))
    refusal(path, "UTF-8")
    packed = tmp_path / "t.csv.gz"
    packed.write_bytes(gzip.compress(b"".join(b"%d,2\n" % i for i in range(30_000)))[:-9000])
    refusal(packed, "gzip")
    packed.write_bytes(b"a,b\n1,2\n")
    refusal(packed, "gzip")


def test_files_that_are_not_there_or_of_unknown_kind(tmp_path):
    refusal(tmp_path / "none.csv", "no such file")
    (tmp_path / "folder.csv").mkdir()
    refusal(tmp_path / "folder.csv", "folder")
    refusal(write(tmp_path / "t.xlsx", "x"), *EXTENSIONS)
    refusal(write(tmp_path / "t.csv", "a,b\n1,2\n"), "'kind'", "a, b", label_column="kind")


@pytest.mark.parametrize("extension", [each for each in EXTENSIONS if each != ".csv"])
def test_truncated_files(tmp_path, extension):
    path = tmp_path / f"t{extension}"
    write_table(path, {"a": np.random.default_rng(0).normal(size=500), "b": np.zeros(500)})
    content = path.read_bytes()
    for size in (3, len(content) // 2, len(content) - 5):
        path.write_bytes(content[:size])
        refusal(path)


def test_arrays_that_are_no_table(tmp_path):
    path = tmp_path / "t.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refusal(path, "pickled")
    np.save(path, np.zeros((2, 2, 2)))
    refusal(path, "(2, 2, 2)")
    np.save(path, np.ones((2, 2)) * 1j)
    refusal(path, "complex128")
    np.save(path, np.zeros((0, 2)))
    refusal(path, "no rows")
    np.savez(tmp_path / "t.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    refusal(tmp_path / "t.npz", "a (2, 2)", "b (2, 2)")
    np.savez(tmp_path / "t.npz", a=np.array([None]))
    refusal(tmp_path / "t.npz", "pickled")
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_group("inner")
    refusal(tmp_path / "t.h5", "groups alone (inner)", "at the top of the file")


def test_frames_with_columns_that_are_no_numbers(tmp_path):
    path = tmp_path / "t.parquet"
    frame = pl.DataFrame({"a": [1.0, 2.0], "kind": ["p", None]})
    frame.write_parquet(path)
    refusal(path, "'kind'", "'p'", "row 1")
    table = read_table(path, "kind")
    assert table.labels is not None
    assert table.labels.tolist() == ["p", ""]
    pl.DataFrame({"a": [[1.0], [2.0]]}).write_parquet(path)
    refusal(path, "'a'", "List")
    write(tmp_path / "t.ndjson", '{"a": 1}\n{"a": "p"}\n')
    refusal(tmp_path / "t.ndjson", "'a'", "row 2")


def test_lines_that_end_with_carriage_returns_alone(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\r1,2\r3,4\r")
    refusal(path, "line feed")


def test_more_columns_than_anyone_has_rows_for(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"1," * 100_000 + b"1\n")
    refusal(path, "100001 columns")
    np.save(tmp_path / "t.npy", np.zeros((1, 100_001), np.int8))
    refusal(tmp_path / "t.npy", "100001 columns")


def test_names_that_are_no_unicode(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file[b"a\xff"], file["b"] = [1.0, 2.0], [3.0, 4.0]
    refusal(tmp_path / "t.h5", "utf-8")


def test_a_panic_of_polars_is_damage(tmp_path, capfd):
    """A bit of an offset in the footer; Polars ends in a panic, which is no `Exception`."""
    path = tmp_path / "t.arrow"
    write_table(path, {"a": np.arange(30.0)})
    content = path.read_bytes()
    kinds = set()
    for place in range(len(content) - 200, len(content), 2):
        damaged = content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :]
        path.write_bytes(damaged)
        try:
            pl.read_ipc(damaged)
        except BaseException as error:
            kinds.add(isinstance(error, Exception))
            capfd.readouterr()
            refusal(path, "Arrow")
            assert capfd.readouterr().err == ""
    assert False in kinds


def test_memory_that_does_not_suffice_is_told(tmp_path, monkeypatch):
    path = write(tmp_path / "t.csv", "a\n1\n")

    def read_csv(path, keep_text):
        raise MemoryError

    monkeypatch.setattr(tiltflow.data.tables, "read_csv", read_csv)
    refusal(path, "more memory than is free")
