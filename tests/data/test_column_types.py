"""Types of columns: found in frames of both kinds, and in the frames that are made of numbers."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from tiltflow.data.column_types import ColumnType, as_container, check_container, types_of
from tiltflow.data.errors import InputError
from tiltflow.data.scanning import scan
from tiltflow.data.schema import find_schema, to_container, to_numbers
from tiltflow.data.streams import stream_of

KINDS = ["oak", "elm"] * 30
RAW = {
    "flag": [True, False] * 30,
    "small": np.arange(60, dtype=np.uint8) % 9,
    "count": np.arange(60) % 7,
    "single": np.linspace(0, 1, 60, dtype=np.float32),
    "double": np.linspace(0, 1, 60) ** 2,
    "kind": KINDS,
}
POLARS = pl.DataFrame(RAW).with_columns(
    level=pl.Series(["low", "high"] * 30, dtype=pl.Enum(["low", "mid", "high"])),
    tag=pl.Series(KINDS, dtype=pl.Categorical),
)
PANDAS = pd.DataFrame(RAW).assign(
    level=pd.Categorical(["low", "high"] * 30, ["low", "mid", "high"], ordered=True),
    year=pd.Categorical([2001, 2003] * 30, [2003, 2002, 2001]),
    maybe=pd.array([1, 2, 3] * 20, dtype="Int16"),
    sure=pd.array([True, False, False] * 20, dtype="boolean"),
    older=pd.Series(KINDS, dtype=object),
    text=pd.Series(KINDS, dtype="string"),
)


def test_a_polars_frame_comes_back_as_it_was():
    schema, numbers = find_schema(POLARS, None)
    back = to_container(schema, numbers, "polars")
    assert back.schema == POLARS.schema
    assert back.equals(POLARS)


def test_a_pandas_frame_comes_back_as_it_was():
    index = pd.Index(range(60, 0, -1), name="row")
    frame = PANDAS.set_index(index)
    schema, numbers = find_schema(frame, None)
    pd.testing.assert_frame_equal(to_container(schema, numbers, "pandas", index), frame)


def test_frames_of_the_other_kind():
    schema, numbers = find_schema(PANDAS, None)
    found = to_container(schema, numbers, "polars")
    assert found.drop("year", "maybe", "sure", "older", "text", "tag", strict=False).schema == (
        POLARS.drop("tag").schema
    )
    assert [found.schema[name] for name in ("year", "maybe", "sure", "older", "text")] == [
        pl.Int64, pl.Int16, pl.Boolean, pl.String, pl.String
    ]  # fmt: skip
    schema, numbers = find_schema(POLARS, None)
    found = to_container(schema, numbers, "pandas")
    assert found["level"].dtype == pd.CategoricalDtype(["low", "mid", "high"])
    assert found["tag"].dtype == pd.CategoricalDtype(["elm", "oak"])
    assert [str(found[name].dtype) for name in ("flag", "small", "single")] == [
        "bool", "uint8", "float32"
    ]  # fmt: skip


def test_draws_that_a_type_cannot_hold_become_the_nearest():
    numbers = np.array([[-1.0, -3.0, 2.0, 1e300], [300.0, 127.0, -1.0, -1e300]])
    names = ("uint8", "int8", "bool", "int64")
    types = {name: ColumnType(name) for name in names}
    found = as_container("polars", numbers, names, {}, types)
    assert found.rows() == [(0, -3, True, 2**63 - 1), (255, 127, False, -(2**63))]


def test_columns_of_arrays_and_of_other_types_are_floats_and_text():
    decimals = POLARS.select(pl.col("count").cast(pl.Decimal(10, 2)), "kind")
    assert types_of(decimals) == {"kind": ColumnType("str")}
    assert types_of(np.zeros((3, 2))) == {}
    schema, numbers = find_schema(decimals.to_numpy(), None)
    assert to_container(schema, numbers, "polars").schema == {"x0": pl.Float64, "x1": pl.String}
    found = to_container(schema, numbers, "pandas")
    assert [str(dtype) for dtype in found.dtypes] == ["float64", "object"]
    again = to_numbers(schema, found)
    np.testing.assert_array_equal(again, numbers)


def test_numbers_among_objects_come_back_as_floats():
    cells = pd.Series([1.5, 2.5, 0.1] * 4, dtype=object)
    frame = pd.DataFrame({"a": cells, "b": np.arange(12) ** 0.5})
    schema, numbers = find_schema(frame, None)
    for container in ("pandas", "polars"):
        assert to_container(schema, numbers, container)["a"].to_list() == [1.5, 2.5, 0.1] * 4


def test_unknown_containers_are_refused():
    with pytest.raises(InputError, match="transform: 'arrow' is not known"):
        check_container("arrow")


@pytest.mark.parametrize("dtype", [pl.Int64, pl.Int16, pl.UInt8, pl.Boolean, pl.Float32])
def test_declared_columns_of_numbers_come_back_with_their_type(dtype):
    """Beside a column of floats, with which they share an array."""
    codes = pl.Series("k", [0, 1] * 30).cast(dtype)
    frame = pl.DataFrame({"a": np.linspace(0, 1, 60) ** 2}).with_columns(codes)
    schema, numbers = find_schema(frame, ["k"])
    kind = type(codes[0])
    assert [type(level) for level in schema.levels["k"]] == [kind, kind]
    assert scan(stream_of(frame), ["k"]).levels == schema.levels
    back = to_container(schema, numbers, "polars")
    assert back.equals(frame) and back.schema == frame.schema
    again = to_container(schema, numbers, "pandas")["k"]
    assert str(again.dtype) == str(codes.to_numpy().dtype) and again.to_list() == codes.to_list()
