"""A file read in batches is the file read as a whole, or is refused alike."""

import gzip

import numpy as np
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiltflow.data.streams
from tiltflow.data.column_types import ColumnType
from tiltflow.data.errors import InputError
from tiltflow.data.scanning import scan
from tiltflow.data.schema import find_schema
from tiltflow.data.streams import count_cells, open_stream, stream_of
from tiltflow.data.table_kinds import EXTENSIONS
from tiltflow.data.table_writing import write_table
from tiltflow.data.tables import as_frame, read_features
from tiltflow.loading import load_table


@pytest.fixture(autouse=True, scope="module")
def _small_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiltflow.data.streams, "BATCH_ROWS", 5)
        yield


def collected(stream):
    """All batches together."""
    batches = list(stream.batches())
    assert all(tuple(batch) == stream.columns for batch in batches)
    return {name: np.concatenate([batch[name] for batch in batches]) for name in stream.columns}


def assert_same(columns, whole):
    assert list(columns) == list(whole)
    for name, column in whole.items():
        assert columns[name].dtype == column.dtype
        np.testing.assert_array_equal(columns[name], column)


def outcome(read):
    try:
        return read()
    except InputError as error:
        return str(error)


def table():
    generator = np.random.default_rng(0)
    return {"a": generator.normal(size=23), "b": generator.poisson(3, 23).astype(float)}


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_every_kind_of_file(kind, tmp_path):
    path = tmp_path / f"table{kind}"
    columns = table()
    if kind not in (".npy", ".npz", ".h5"):
        columns["c"] = np.array(["x", "y", "z"] * 7 + ["x", "y"], object)
    write_table(path, columns)
    assert_same(collected(open_stream(path)), read_features(path)[0])
    if kind != ".npy":
        assert list(collected(open_stream(path, "b"))) == [name for name in columns if name != "b"]
        with pytest.raises(InputError, match="no column 'q'"):
            open_stream(path, "q")
    if kind not in (".npz", ".h5"):
        rows, width = count_cells(path)
        assert 23 <= rows <= 24 and width == len(columns)


def test_arrays_in_the_other_order_and_of_other_kinds(tmp_path):
    path = tmp_path / "table.npy"
    whole = np.arange(46).reshape(23, 2)
    for array in (np.asfortranarray(whole), whole.astype("f4"), whole[:, :1], whole[:, 0] > 3):
        np.save(path, array)
        assert_same(collected(open_stream(path)), read_features(path)[0])
    np.save(path, whole)
    stream = open_stream(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="damaged"):
        collected(stream)


CELLS = st.sampled_from(["1", "2.5", "-3e2", "", "NA", "nan", "true", "False", "x", "y z", " 4 "])
LINES = st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(LINES, st.sampled_from(["a,b\n", "", "# remark\n\na,b\n"]), st.lists(st.integers(0, 20)))
def test_csv_in_batches(tmp_path_factory, lines, header, blank):
    text = [",".join(cells) for cells in lines]
    for place in blank[:2]:
        text.insert(place, "")
    path = tmp_path_factory.mktemp("csv", numbered=True) / "table.csv"
    path.write_text(header + "\n".join(text) + "\n")
    whole = outcome(lambda: read_features(path)[0])
    columns = outcome(lambda: collected(open_stream(path)))
    if isinstance(whole, str):
        assert columns == whole or "no rows" in whole
    else:
        assert_same(columns, whole)


def test_csv_that_cannot_be_read(tmp_path):
    path = tmp_path / "table.csv"
    rows = ["1,2"] * 30
    for bad, place in (("1,2,3", 20), ("1", 25), ('1,"2', 22), ("1,\xff", 8)):
        text = "\n".join(["a,b", *rows[:place], bad, *rows[place:]])
        path.write_bytes(text.encode("latin-1"))
        whole = outcome(lambda: read_features(path)[0])
        assert isinstance(whole, str)
        assert outcome(lambda: collected(open_stream(path))) == whole
    packed = tmp_path / "table.csv.gz"
    packed.write_bytes(gzip.compress(("a,b\n" + "1,2\n" * 9000).encode())[:-40])
    assert isinstance(outcome(lambda: collected(open_stream(packed))), str)
    assert count_cells(packed) == (0, 0)


def test_lazy_frames_and_files_of_other_columns(tmp_path):
    frame = polars.DataFrame(table()).with_columns(c=polars.lit("x"))
    assert_same(collected(stream_of(frame.lazy())), collected(stream_of(frame)))
    path = tmp_path / "table.parquet"
    frame.with_columns(d=polars.col("a").reshape((-1, 1))).write_parquet(path)
    assert "column 'd' holds" in outcome(lambda: collected(open_stream(path)))
    path.write_bytes(path.read_bytes()[:100])
    assert "cannot be read as Parquet" in outcome(lambda: open_stream(path))


def test_whole_numbers_of_files_have_their_type(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,c\n1,2,3\n\n4,5,6.5\n7,,8\n")
    assert open_stream(tmp_path / "t.csv").types == {"a": ColumnType("int64")}
    np.save(tmp_path / "t.npy", np.zeros((3, 2), ">i2"))
    assert set(open_stream(tmp_path / "t.npy").types.values()) == {ColumnType("int16")}
    np.save(tmp_path / "t.npy", np.zeros((3, 2), np.float32))
    assert open_stream(tmp_path / "t.npy").types == {}


def test_labels_leave_no_type_behind(tmp_path):
    """Types of no column of the fit would be refused when its model is read again."""
    polars.DataFrame(table()).write_parquet(tmp_path / "t.parquet")
    assert open_stream(tmp_path / "t.parquet", "b").types == {"a": ColumnType("float64")}


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_row_labels_of_pandas_are_no_column(tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    frame = polars.DataFrame(table()).with_columns(__index_level_0__=polars.lit(7))
    getattr(frame, {"parquet": "write_parquet", "arrow": "write_ipc"}[kind])(path)
    for stream in (open_stream(path), stream_of(frame.lazy())):
        assert stream.columns == ("a", "b") and set(stream.types) == {"a", "b"}
        assert_same(collected(stream), read_features(path)[0])
    assert load_table(path, {}).columns == ["a", "b"]
    with pytest.raises(InputError, match="no column to learn from"):
        stream_of(frame.lazy().select("__index_level_0__"))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_spans_of_time_are_dates_or_labels_and_no_damage(tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    spans = polars.Series("d", [90, None, 3] * 8).cast(polars.Duration("us"))
    frame = polars.DataFrame(table())[:23].with_columns(spans[:23])
    getattr(frame, {"parquet": "write_parquet", "arrow": "write_ipc"}[kind])(path)
    with pytest.raises(InputError, match=r"column 'd' holds dates .*days since a first day"):
        find_schema(load_table(path, {}), None)
    with pytest.raises(InputError, match=r"column 'd' holds dates .*days since a first day"):
        scan(open_stream(path), None)
    _, labels = read_features(path, "d")
    assert labels is not None and labels[:3].tolist() == ["PT0.00009S", "", "PT0.000003S"]
    assert open_stream(path, "d").columns == ("a", "b")


def test_text_of_files_is_missing_where_it_is_empty(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,x\n2,\n3,y\n")
    assert as_frame(collected(open_stream(path)))["b"].to_list() == ["x", None, "y"]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_categories_of_files_are_declared_and_keep_their_order(tmp_path, kind):
    """More levels than text may have, and an order that is not the alphabet's."""
    names = [f"n{place:03}" for place in range(120)]
    sizes = ["small", "large", "middle"]
    frame = polars.DataFrame({"a": np.arange(240.0) ** 0.5, "n": names * 2, "s": sizes * 80})
    frame = frame.cast({"n": polars.Categorical(), "s": polars.Enum(sizes)})
    path = tmp_path / f"t.{kind}"
    getattr(frame, {"parquet": "write_parquet", "arrow": "write_ipc"}[kind])(path)
    schema, rows = find_schema(frame, None)
    assert schema.levels == {"n": tuple(names), "s": tuple(sizes)}
    whole, of_file = find_schema(load_table(path, {}), None)
    assert whole.levels == schema.levels and whole.types == schema.types
    np.testing.assert_array_equal(of_file, rows)
    for stream in (open_stream(path), stream_of(frame.lazy())):
        found = scan(stream, None)
        assert found.levels == schema.levels and stream.types == schema.types
    assert "s" not in open_stream(path, "s").levels
