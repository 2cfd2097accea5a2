"""Tables read: CSV, Parquet, Arrow, NDJSON, NPY, NPZ and HDF5, by the file's extension."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Shaped

from tiltflow.data.arrays import load_h5, load_npy, load_npz
from tiltflow.data.checks import check_width, is_number
from tiltflow.data.delimited import KeepText, read_csv
from tiltflow.data.errors import InputError, damage_is_named, too_large
from tiltflow.data.matching import CountedColumns, CountedFrame, has_names
from tiltflow.data.panics import panics_are_not_printed
from tiltflow.data.table_kinds import check_readable, extension


class Table(NamedTuple):
    """Points in the user's units, with what is known of where they came from."""

    values: Float[np.ndarray, "n d"]  # float64; NaN where a cell is empty
    columns: list[str]  # d names; x0, x1, ... where the file has none
    labels: Shaped[np.ndarray, " n"] | None  # the label column, if one was named
    source: str  # the file, for messages


def read_table(path: str | Path, label_column: str | None = None) -> Table:
    """The numbers of a table, (n, d) float64, with `label_column` set apart.

    Integers, booleans and floats become float64; empty cells become NaN and no row is dropped.
    An `.npz` or `.h5` file holds one 2-D array (named `X`, if there are several), with the names of
    its columns in a 1-D array `columns` if there is one, and labels in any other 1-D array; an
    `.h5` file may instead hold one 1-D dataset per column. Nothing is unpickled.

    Raises `InputError` where the file is missing, damaged or of an unknown kind, has no rows, or
    has a column of text that is not the label column.
    """
    columns, labels = read_features(path, label_column)
    return Table(as_matrix(columns, path), list(columns), labels, str(path))


def read_features(
    path: str | Path, label_column: str | None = None, keep_text: KeepText | None = None
) -> tuple[dict[str, np.ndarray], Shaped[np.ndarray, " n"] | None]:
    """As `read_columns`, with `label_column` set apart.

    Raises `InputError` as `read_columns` does, and where there is no such column.
    """
    columns = read_columns(path, label_column, keep_text)
    if label_column is None:
        return columns, None
    if label_column not in columns:
        raise InputError(
            f"{path}: there is no column '{label_column}'; the columns are "
            f"{', '.join(columns)}: name one of them"
        )
    labels = as_found(columns.pop(label_column))
    if not columns:
        raise InputError(f"{path}: no column is left to learn from; give columns of numbers")
    return columns, labels


def as_found(column: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """Text as strings, whole numbers as integers, other numbers as they are."""
    if column.dtype == object:
        if any(isinstance(cell, str) for cell in column):
            return column.astype(np.str_)
        column = column.astype(np.float64)
    whole = np.all(np.isfinite(column)) and np.all(column == np.round(column))
    return column.astype(np.int64) if whole else column


def as_frame(columns: Mapping[str, np.ndarray]) -> pl.DataFrame:
    """Columns of `read_columns` as a data frame, empty text as missing."""
    frame = pl.DataFrame(
        {
            name: [cell or None for cell in column] if column.dtype == object else column
            for name, column in columns.items()
        }
    )
    return frame if has_names(columns) else CountedFrame(frame)


def as_in_file(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """`as_frame` of a file, with the types that its kind of file has for numbers and categories.

    Whole numbers that float64 has no room for stay as they were read.
    """
    if extension(path) not in _SCANNERS:
        return frame
    with damage_is_named(path, extension(path)), panics_are_not_printed():
        schema = _SCANNERS[extension(path)](path).collect_schema()
    typed = []
    for name, dtype in schema.items():
        if name not in frame.columns:
            continue
        if isinstance(dtype, pl.Categorical | pl.Enum):
            typed.append(frame[name].cast(dtype))
        if frame[name].dtype != pl.Float64:
            continue
        column = frame[name].fill_nan(None)
        exact = not dtype.is_integer() or (column.abs() < 2**53).all()
        if (dtype.is_integer() and exact) or dtype.base_type() in (pl.Boolean, pl.Float32):
            typed.append(column.cast(dtype))
    return frame.with_columns(typed)


def read_columns(
    path: str | Path, label_column: str | None = None, keep_text: KeepText | None = None
) -> dict[str, np.ndarray]:
    """All the columns of a table, (n,) each, in order.

    float64; or of integers where a file of text or of arrays has these alone; or objects where
    they hold text.

    They are `CountedColumns` where the file has no names for them.

    `label_column` only serves files of arrays, where labels are an array beside the table;
    `keep_text` files of text, of which it names the columns that are not to become numbers.

    Raises `InputError` as `read_table` does, but for text.
    """
    path = Path(path)
    check_readable(path)
    read = _READERS.get(extension(path))
    try:
        columns = read(path, label_column) if read else read_csv(path, keep_text)
    except PermissionError:
        raise InputError(f"{path}: may not be read; change its permissions") from None
    except MemoryError as error:
        raise too_large(path, error) from None
    if not columns or len(next(iter(columns.values()))) == 0:
        raise InputError(f"{path}: the table has no rows; give rows of numbers")
    return columns


def as_matrix(columns: Mapping[str, np.ndarray], source: str | Path) -> Float[np.ndarray, "n d"]:
    """Columns of numbers side by side; raises `InputError` naming the first that holds text."""
    for name, column in columns.items():
        if column.dtype == object:
            row, cell = next(
                ((i, c) for i, c in enumerate(column) if c and not is_number(c)), (0, column[0])
            )
            raise InputError(
                f"{source}: column '{name}' holds text ({str(cell)[:40]!r} in row {row + 1}); "
                "drop the column, or name it with --label-column"
            )
    return np.column_stack([np.asarray(column, np.float64) for column in columns.values()])


def _read_parquet(path: Path, label_column: str | None) -> dict[str, np.ndarray]:
    with damage_is_named(path, "Parquet"), panics_are_not_printed():
        return frame_columns(pl.read_parquet(path, glob=False), path)


def _read_arrow(path: Path, label_column: str | None) -> dict[str, np.ndarray]:
    with damage_is_named(path, "Arrow"), panics_are_not_printed():
        # From memory: a mapped file that is cut short later would crash the process.
        return frame_columns(pl.read_ipc(path.read_bytes()), path)


def _read_ndjson(path: Path, label_column: str | None) -> dict[str, np.ndarray]:
    with damage_is_named(path, "NDJSON"), panics_are_not_printed():
        return frame_columns(pl.read_ndjson(path.read_bytes(), infer_schema_length=None), path)


def features_of(names: Sequence[str]) -> list[str]:
    """Names of a file's columns without those that pandas has put there for its row labels."""
    return [name for name in names if not re.fullmatch(r"__index_level_\d+__", name)]


def frame_columns(frame: pl.DataFrame, path: Path) -> dict[str, np.ndarray]:
    """Columns of a frame as `read_columns` gives them; raises `InputError` at nested ones."""
    check_width(frame.width, str(path))
    columns = {}
    for name in features_of(frame.columns):
        dtype = frame.schema[name]
        series = frame[name]
        if dtype.is_numeric() or dtype.base_type() in (pl.Boolean, pl.Null):
            columns[name] = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        elif dtype.is_nested() or dtype.base_type() in (pl.Binary, pl.Object):
            raise InputError(f"{path}: column '{name}' holds {dtype}, not numbers; drop it")
        else:
            # Spans of time have no cast, and would be no dates for the advice on these.
            of_spans = dtype.base_type() is pl.Duration
            text = series.dt.to_string("iso") if of_spans else series.cast(pl.String)
            columns[name] = np.asarray(text.fill_null("").to_list(), dtype=object)
    return columns


def _read_npy(path: Path, label_column: str | None) -> dict[str, np.ndarray]:
    array = load_npy(path)
    if array.ndim not in (1, 2):
        raise InputError(f"{path}: has shape {array.shape}; save a 2-D array (rows, columns)")
    return _array_columns(path, {"X": array}, None)


def _read_npz(path: Path, label_column: str | None) -> dict[str, np.ndarray]:
    return _array_columns(path, load_npz(path), label_column)


def _read_h5(path: Path, label_column: str | None) -> dict[str, np.ndarray]:
    arrays = load_h5(path)
    flat = [a.shape for a in arrays.values()]
    if len(flat) > 1 and all(len(shape) == 1 and shape == flat[0] for shape in flat):
        return {name: as_column(path, name, array) for name, array in arrays.items()}
    return _array_columns(path, arrays, label_column)


def _array_columns(
    path: Path, arrays: dict[str, np.ndarray], label_column: str | None
) -> dict[str, np.ndarray]:
    """The columns of the one 2-D array, and the array of labels where it is another one."""
    found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"
    tables = [name for name, array in arrays.items() if array.ndim == 2]
    if len(arrays) == 1 and next(iter(arrays.values())).ndim == 1:
        tables = list(arrays)
    if "X" in tables:
        tables = ["X"]
    if len(tables) != 1:
        raise InputError(
            f"{path}: holds no single 2-D array (arrays: {found}); keep one, or name it X"
        )
    matrix = arrays[tables[0]]
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    check_width(matrix.shape[1], str(path))
    names = [f"x{i}" for i in range(matrix.shape[1])]
    named = "columns" in arrays and arrays["columns"].dtype.kind == "U"
    if named:
        names = [str(name) for name in arrays["columns"]]
        if len(names) != matrix.shape[1] or len(set(names)) != len(names):
            raise InputError(
                f"{path}: 'columns' names {len(set(names))} columns where {tables[0]} has "
                f"{matrix.shape[1]}; give one name to each"
            )
    columns = {name: as_column(path, name, matrix[:, i]) for i, name in enumerate(names)}
    if label_column in arrays and label_column not in columns:
        labels = arrays[label_column]
        if labels.shape != (len(matrix),):
            raise InputError(
                f"{path}: label array '{label_column}' has shape {labels.shape} where {tables[0]} "
                f"has {len(matrix)} rows; give one label to each row"
            )
        columns[label_column] = as_column(path, label_column, labels)
    return columns if named else CountedColumns(columns)


def as_column(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """Integers as they are, other numbers as float64, text as objects; others are refused."""
    if array.dtype.kind in "iu":
        return array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind in "bf":
        return array.astype(np.float64)
    if array.dtype.kind == "U":
        return array.astype(object)
    raise InputError(f"{path}: '{name}' holds {array.dtype}, not numbers; save it as floats")


_READERS = {
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".feather": _read_arrow,
    ".ndjson": _read_ndjson,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".h5": _read_h5,
}
_SCANNERS: dict[str, Callable[[Path], pl.LazyFrame]] = {
    ".parquet": lambda path: pl.scan_parquet(path, glob=False),
    ".arrow": lambda path: pl.scan_ipc(path, glob=False),
    ".feather": lambda path: pl.scan_ipc(path, glob=False),
    ".ndjson": lambda path: pl.scan_ndjson(path, infer_schema_length=None),
}
