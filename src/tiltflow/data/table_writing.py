"""Tables written: CSV, Parquet, Arrow, NDJSON, NPY, NPZ and HDF5, whole or not at all."""

import gzip
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import polars as pl

from tiltflow.data.errors import InputError
from tiltflow.data.table_kinds import ARRAYS, EXTENSIONS, extension


def check_writable(path: str | Path) -> None:
    """Raise `InputError` where `write_table` could not write: asked before long work."""
    path = Path(path)
    extension(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder '{path.parent}'; make it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder may not be written to; choose another")


def check_new(path: str | Path) -> None:
    """Raise `InputError` as `check_writable` does, and where there is such a file already."""
    check_writable(path)
    if Path(path).exists():
        raise InputError(f"{path}: is there already; write elsewhere, or remove it first")


def check_text(path: Path, names: Iterable[str]) -> None:
    """Raise an `InputError` if columns of text, of these names, go into a file of numbers."""
    text = next(iter(names), None)
    if text is not None and extension(path) in ARRAYS:
        raise InputError(
            f"{path}: column '{text}' is text, and {extension(path)} files hold numbers alone; "
            f"use one of {', '.join(each for each in EXTENSIONS if each not in ARRAYS)}"
        )


def write_table(path: str | Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns, (n,) each; the file appears complete or not at all.

    NPY keeps the numbers alone; NPZ and HDF5 keep a 2-D array `X` and a 1-D array `columns`.

    Raises `InputError` where the path is no place for a table, or its format not for text.
    """
    path = Path(path)
    check_writable(path)
    check_text(path, (name for name, column in columns.items() if column.dtype.kind in "OU"))
    # In the same folder, so that the renaming is atomic.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("x+b") as file:
            if path.suffix.lower() == ".tsv":
                _write_csv(file, columns, "\t")
            else:
                _WRITERS[extension(path)](file, columns)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _matrix(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.column_stack([np.asarray(column, np.float64) for column in columns.values()])


def _write_csv(file: Any, columns: Mapping[str, np.ndarray], separator: str = ",") -> None:
    texts = [*columns, *(cell for it in columns.values() if it.dtype.kind in "OU" for cell in it)]
    # A row that starts with a '#' would be a comment, other separators would separate, and a mark
    # of the byte order at the start of the file would be no part of a name.
    marks = set("#,;\t\r\ufeff") - {separator}
    odd = any(marks & set(str(text)) for text in texts)
    # Zeros and ones are the booleans that every program reads as numbers.
    plain = pl.DataFrame(columns).cast({pl.Boolean: pl.Int8})
    plain.write_csv(file, separator=separator, quote_style="non_numeric" if odd else "necessary")


def _write_gzipped_csv(file: IO[bytes], columns: Mapping[str, np.ndarray]) -> None:
    with gzip.open(file, "wb") as packed:
        _write_csv(packed, columns)


def _write_npz(file: IO[bytes], columns: Mapping[str, np.ndarray]) -> None:
    np.savez(file, X=_matrix(columns), columns=np.array(list(columns), np.str_))


def _write_h5(file: IO[bytes], columns: Mapping[str, np.ndarray]) -> None:
    with h5py.File(file, "w") as store:
        store["X"] = _matrix(columns)
        store.create_dataset("columns", data=list(columns), dtype=h5py.string_dtype())


_WRITERS: dict[str, Callable[[IO[bytes], Mapping[str, np.ndarray]], None]] = {
    ".csv": _write_csv,
    ".csv.gz": _write_gzipped_csv,
    ".parquet": lambda file, columns: pl.DataFrame(columns).write_parquet(file),
    ".arrow": lambda file, columns: pl.DataFrame(columns).write_ipc(file),
    ".feather": lambda file, columns: pl.DataFrame(columns).write_ipc(file),
    ".ndjson": lambda file, columns: pl.DataFrame(columns).write_ndjson(file),
    ".npy": lambda file, columns: np.save(file, _matrix(columns), allow_pickle=False),
    ".npz": _write_npz,
    ".h5": _write_h5,
}
