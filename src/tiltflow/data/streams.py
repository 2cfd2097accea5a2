"""A table in batches of rows, so that not all of it need be in memory at once.

A batch is a dictionary of columns, (n,) each, in their order: numbers of any kind, or objects where
a column may hold text. Every way through the table gives the same batches.
"""

import gzip
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from tiltflow.data.categories import Levels, levels_of_frame
from tiltflow.data.checks import as_table, check_shape
from tiltflow.data.column_types import ColumnType, Types, types_of
from tiltflow.data.delimited import KeepText, csv_batches
from tiltflow.data.errors import InputError, damage_is_named
from tiltflow.data.matching import has_names
from tiltflow.data.table_kinds import check_readable, extension
from tiltflow.data.tables import as_column, as_frame, features_of, frame_columns, read_features

BATCH_ROWS, BATCH_CELLS = 65_536, 4_000_000
"""The most of a table that is in memory at once."""
WHOLE = (".npz", ".h5")
"""Files that are read as a whole."""

Batch = Mapping[str, np.ndarray]


class Stream(NamedTuple):
    """A table that can be gone through any number of times.

    `levels` are those that a data frame declares for its categorical columns, `types` those of its
    columns.
    """

    columns: tuple[str, ...]
    batches: Callable[[], Iterator[Batch]]
    source: str
    """The file or the argument, for messages."""
    levels: Levels
    types: Types
    named: bool = True
    """Whether the columns have names of their own (`has_names`)."""


def batch_rows(width: int) -> int:
    """Rows of a batch of so many columns."""
    return max(1, min(BATCH_ROWS, BATCH_CELLS // max(1, width)))


def stream_of(X: Any, source: str = "X") -> Stream:
    """The rows of an array, (n, d), or of a polars or pandas frame, lazy or not.

    Raises:
        InputError: as `check_shape`.
    """
    if isinstance(X, pl.LazyFrame):
        return _lazy(lambda: X, source)
    named = has_names(X)
    if not hasattr(X, "columns"):
        X, _ = as_table(X)
    rows = X.iloc if hasattr(X, "iloc") else X
    values, columns = as_table(rows[:2])
    check_shape(values, columns, source)

    def batches() -> Iterator[Batch]:
        size = batch_rows(len(columns))
        for first in range(0, len(X), size):
            yield _columns_of(rows[first : first + size], columns)

    return Stream(tuple(columns), batches, source, levels_of_frame(X), types_of(X), named)


def take_columns(stream: Stream, taken: Mapping[str, str]) -> Stream:
    """A stream of some columns of another under other names: for each name the column's own."""

    def batches() -> Iterator[Batch]:
        for batch in stream.batches():
            yield {name: batch[theirs] for name, theirs in taken.items()}

    levels, types = (
        {name: known[theirs] for name, theirs in taken.items() if theirs in known}
        for known in (stream.levels, stream.types)
    )
    return stream._replace(columns=tuple(taken), batches=batches, levels=levels, types=types)


def open_stream(
    path: str | Path, label_column: str | None = None, keep_text: KeepText | None = None
) -> Stream:
    """The rows of a table's file, as `read_features` gives them, but for `label_column`.

    NPZ and HDF5 files are read as a whole first.

    Raises:
        InputError: as `read_features`; the rows are looked at only as one goes through them.
    """
    path = Path(path)
    check_readable(path)
    if extension(path) in WHOLE:
        return stream_of(as_frame(read_features(path, label_column)[0]), str(path))
    opener = _OPENERS.get(extension(path))
    stream = opener(path) if opener else _open_csv(path, keep_text)
    if label_column is None:
        return stream
    if label_column not in stream.columns:
        raise InputError(
            f"{path}: there is no column '{label_column}'; the columns are "
            f"{', '.join(stream.columns)}: name one of them"
        )
    kept = tuple(name for name in stream.columns if name != label_column)
    if not kept:
        raise InputError(f"{path}: no column is left to learn from; give columns of numbers")
    return take_columns(stream, dict(zip(kept, kept)))


def count_cells(path: str | Path) -> tuple[int, int]:
    """About how many rows and columns a file holds, at little cost; (0, 0) where it is damaged.

    Nothing of this is checked: it tells which way to read the file.

    Raises:
        InputError: the extension is not known.
    """
    path = Path(path)
    count = _COUNTERS.get(extension(path))
    try:
        return count(path) if count else (0, 0)
    except Exception:
        return 0, 0


def _columns_of(rows: Any, columns: list[str]) -> Batch:
    if isinstance(rows, pl.DataFrame):
        return {name: rows[name].to_numpy() for name in columns}
    if hasattr(rows, "iloc"):
        return {name: rows.iloc[:, j].to_numpy() for j, name in enumerate(columns)}
    return {name: rows[:, j] for j, name in enumerate(columns)}


def _lazy(scan: Callable[[], pl.LazyFrame], source: str, kind: str = "a lazy frame") -> Stream:
    with damage_is_named(Path(source), kind):
        schema = scan().collect_schema()
        levels = _levels_of(scan(), schema)
    names = tuple(features_of(schema.names()))
    if not names:
        raise InputError(f"{source}: there is no column to learn from; give columns of numbers")

    def batches() -> Iterator[Batch]:
        with damage_is_named(Path(source), kind):
            for frame in scan().collect_batches(chunk_size=batch_rows(len(names))):
                yield frame_columns(frame, Path(source))

    types = types_of(pl.DataFrame(schema={name: schema[name] for name in names}))
    return Stream(names, batches, source, levels, types)


def _levels_of(frame: pl.LazyFrame, schema: Mapping[str, Any]) -> Levels:
    """As `levels_of_frame`; of its columns, only those that know no levels are read."""
    levels = levels_of_frame(pl.DataFrame(schema=schema))
    for name, dtype in schema.items():
        if isinstance(dtype, pl.Categorical):
            levels |= levels_of_frame(frame.select(pl.col(name).unique()).collect())
    return levels


def _open_csv(path: Path, keep_text: KeepText | None) -> Stream:
    found = csv_batches(path, batch_rows, keep_text)
    types = {name: ColumnType("int64") for name in found.whole}
    return Stream(tuple(found.names), found.batches, str(path), {}, types, found.has_header)


def _open_parquet(path: Path) -> Stream:
    return _lazy(lambda: pl.scan_parquet(path, glob=False), str(path), "Parquet")


def _open_arrow(path: Path) -> Stream:
    return _lazy(lambda: pl.scan_ipc(path, glob=False), str(path), "Arrow")


def _open_ndjson(path: Path) -> Stream:
    def scan() -> pl.LazyFrame:
        return pl.scan_ndjson(path, infer_schema_length=None)

    with damage_is_named(path, "NDJSON"):
        schema = scan().collect_schema()  # once: it reads all rows
    return _lazy(lambda: pl.scan_ndjson(path, schema=schema), str(path), "NDJSON")


def _open_npy(path: Path) -> Stream:
    array = _map_npy(path)
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf":
        raise InputError(f"{path}: holds {array.dtype} of shape {array.shape}; save floats, 2-D")
    rows, width = len(array), array.size // max(1, len(array))
    # Where the columns of a row are, and where its first one is.
    row_step, column_step = (1, rows) if array.flags.f_contiguous else (width, 1)
    dtype, offset = array.dtype, array.offset
    columns = tuple(f"x{j}" for j in range(width))

    def read(first: int, count: int) -> np.ndarray:
        # Not by the map: a file that is cut short while it is read would crash the process.
        found = np.fromfile(path, dtype, count, offset=offset + first * dtype.itemsize)
        if len(found) < count:
            raise InputError(f"{path}: ends too early; the file is damaged: write it again")
        return found

    def batches() -> Iterator[Batch]:
        for first in range(0, rows, batch_rows(width)):
            count = min(batch_rows(width), rows - first)
            if row_step == 1:
                parts = [read(j * column_step + first, count) for j in range(width)]
            else:
                parts = read(first * row_step, count * width).reshape(count, width).T
            yield {name: as_column(path, name, part) for name, part in zip(columns, parts)}

    kind = as_column(path, "X", np.empty(0, dtype)).dtype
    types = types_of(np.empty((1, width), kind))
    return Stream(columns, batches, str(path), {}, types, named=False)


def _map_npy(path: Path) -> np.memmap:
    with damage_is_named(path, "NPY"), path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":  # np.load would take it for a pickle
            raise InputError(f"{path}: is not an NPY file; write it again with NumPy")
        return np.load(path, mmap_mode="r", allow_pickle=False)


def _count_npy(path: Path) -> tuple[int, int]:
    array = _map_npy(path)
    return len(array), array.size // max(1, len(array))


def _count_lines(path: Path) -> tuple[int, int]:
    """Lines, and the separators or colons of the first lines: an upper bound of the cells."""
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        block = file.read(1 << 20)
        start = [line for line in block.splitlines()[:100] if not line.startswith(b"#")]
        marks = b":" if extension(path) == ".ndjson" else b",;\t"
        width = max((sum(line.count(bytes([mark])) for mark in marks) for line in start), default=0)
        lines = 0
        while block:
            lines += block.count(b"\n")
            block = file.read(1 << 20)
    return lines, width + (extension(path) != ".ndjson")


def _count_lazy(scan: pl.LazyFrame) -> tuple[int, int]:
    return scan.select(pl.len()).collect().item(), len(scan.collect_schema())


_OPENERS: dict[str, Callable[[Path], Stream]] = {
    ".parquet": _open_parquet,
    ".arrow": _open_arrow,
    ".feather": _open_arrow,
    ".ndjson": _open_ndjson,
    ".npy": _open_npy,
}
_COUNTERS: dict[str, Callable[[Path], tuple[int, int]]] = {
    ".csv": _count_lines,
    ".csv.gz": _count_lines,
    ".parquet": lambda path: _count_lazy(pl.scan_parquet(path, glob=False)),
    ".arrow": lambda path: _count_lazy(pl.scan_ipc(path, glob=False)),
    ".feather": lambda path: _count_lazy(pl.scan_ipc(path, glob=False)),
    ".ndjson": _count_lines,
    ".npy": _count_npy,
}
