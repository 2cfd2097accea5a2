"""Checks of a table before anything is fitted to it; every refusal is one `InputError` line."""

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import issparse

from tiltflow.data.errors import InputError

DATES = "mM"
"""The kinds of NumPy's types of dates and of spans of time."""
OF_DATES = (
    "turn them into numbers, such as days since a first day, hours of the day, or months, or drop "
    "the column"
)


def as_table(X: Any) -> tuple[np.ndarray, list[str]]:
    """The array and the column names of an array or of a polars or pandas data frame.

    Columns of plain arrays are called x0, x1, ... The array is as found: unchecked, of any shape
    and dtype, with nan where a cell was masked; that of a frame is (n, d).

    Raises:
        InputError: the rows have different lengths, columns hold dates or times, or the matrix is
            sparse.
    """
    if issparse(X):
        raise InputError(
            "X: Sparse data was passed, but dense data is required; use X.toarray(), if there are "
            "few columns"
        )
    if hasattr(X, "columns") and hasattr(X, "to_numpy"):
        _refuse_dates(X)
        return X.to_numpy(), [str(name) for name in X.columns]
    try:
        array = np.asarray(X)
    except ValueError:
        raise InputError(
            "the table: its rows have different lengths; give every row the same number of cells"
        ) from None
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        array = array.astype(np.float64 if array.dtype.kind in "biuf" else object)
        array[np.ma.getmaskarray(X)] = np.nan
    if array.dtype.kind in DATES:
        raise InputError(f"X holds dates or times ({array.dtype}); {OF_DATES}")
    return array, [f"x{j}" for j in range(array.shape[1] if array.ndim == 2 else 0)]


def dtypes_of(X: Any) -> Mapping[Any, Any]:
    """The dtype of each column of a data frame; nothing for other things."""
    # First pandas, whose columns are attributes too: one may be called schema.
    if hasattr(X, "dtypes") and hasattr(X.dtypes, "items"):
        return dict(X.dtypes.items())
    return X.schema if hasattr(X, "schema") and hasattr(X, "to_numpy") else {}


def _refuse_dates(frame: Any) -> None:
    """Frames know the types of their columns, which their arrays may not: days become numbers."""
    for name, dtype in dtypes_of(frame).items():
        of_polars = getattr(dtype, "is_temporal", None)
        if of_polars() if of_polars is not None else getattr(dtype, "kind", "") in DATES:
            raise InputError(f"X: column '{name}' holds dates or times ({dtype}); {OF_DATES}")


def check_table(
    X: np.ndarray, columns: Sequence[str], source: str, min_rows: int = 2
) -> Float[np.ndarray, "n d"]:
    """A table that a density can be fitted to, as float64.

    Args:
        X: (n, d), any dtype.
        columns: d names, for the messages.
        source: the file or argument that X comes from, for the messages.
        min_rows: the fewest rows accepted.

    Raises:
        InputError: as `check_cells`; too few rows, fewer rows than columns, a constant column.
    """
    table = check_cells(X, columns, source)
    check_count(len(table), len(columns), source, min_rows)
    for name, column in zip(columns, table.T):
        refuse_constant(column.min(), column.max(), name, source)
    return table


def check_count(rows: int, width: int, source: str, min_rows: int = 2) -> None:
    """Raise an `InputError` where there are too few rows, or fewer than columns."""
    if rows < min_rows:
        found = {0: "no rows", 1: "only one row (one sample)"}.get(rows, f"only {rows} rows")
        raise InputError(f"{source}: found {found}; a fit needs at least {min_rows}, add data")
    if rows < width:
        raise InputError(
            f"{source}: found fewer rows ({rows}) than columns ({width}); "
            "add rows or drop columns (is the table transposed?)"
        )


def refuse_constant(least: float, most: float, name: str, source: str) -> None:
    """Raise an `InputError` where a column's least value is its largest."""
    if least == most:
        raise InputError(f"{source}: column '{name}' is constant ({least:g} in every row); drop it")


def check_cells(
    X: np.ndarray, columns: Sequence[str], source: str, missing: bool = False
) -> Float[np.ndarray, "n d"]:
    """A table of finite numbers, as float64; any number of rows, for scoring.

    Cells may be `missing` (nan) where that is said.

    Raises:
        InputError: not two-dimensional, no columns, a duplicate column name, text, NaN, infinity.
    """
    check_shape(X, columns, source)
    table = as_numbers(X, columns, source)
    _refuse_non_finite(np.where(np.isnan(table), 0.0, table) if missing else table, columns, source)
    return table


MOST_COLUMNS = 100_000
"""Nobody has the rows that a density of more would need; to read them one by one takes minutes."""


def check_width(columns: int, source: str) -> None:
    """Raise `InputError` for more than `MOST_COLUMNS` columns, before they are read."""
    if columns > MOST_COLUMNS:
        raise InputError(
            f"{source}: has {columns} columns, and at most {MOST_COLUMNS} are read; "
            "choose those that matter, or transpose the table"
        )


def check_shape(X: np.ndarray, columns: Sequence[str], source: str) -> None:
    """Raise an `InputError` unless X is (n, d), d >= 1, with d different names of `columns`.

    The words of some messages are those that scikit-learn's checks of estimators look for.
    """
    if X.ndim != 2:
        raise InputError(
            f"{source}: expected a table of shape (rows, columns), found shape {X.shape}; give one "
            "row per point. Reshape your data: X.reshape(-1, 1) if there is one column"
        )
    if X.shape[1] == 0:
        raise InputError(
            f"{source}: found 0 feature(s) (shape={X.shape}) while a minimum of 1 is required; "
            "give at least one column of numbers"
        )
    if X.dtype.kind == "c":
        raise InputError(
            f"{source}: Complex data not supported; give real and imaginary parts as columns"
        )
    if len(columns) != X.shape[1]:
        raise InputError(
            f"{source}: found {X.shape[1]} columns but {len(columns)} names; give one name each"
        )
    repeated = next((name for j, name in enumerate(columns) if name in columns[:j]), None)
    if repeated is not None:
        raise InputError(
            f"{source}: {list(columns).count(repeated)} columns are called '{repeated}'; "
            "rename all but one"
        )


def is_number(cell: str) -> bool:
    """Whether the text of a cell is a number (NaN and infinities are)."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def as_numbers(
    X: np.ndarray, columns: Sequence[str], source: str, first_row: int = 0
) -> Float[np.ndarray, "n d"]:
    """Cells of X, (n, d), as float64, nan where one is missing.

    Raises `InputError` that names the first cell of text, of one that is no number where there is
    one: numbers are text too in a column with a single word.

    `first_row` is the place of its first row in the whole table, for the message.
    """
    if X.dtype.kind in "biuf":
        return X.astype(np.float64)
    table = np.empty(X.shape, np.float64)
    for j, name in enumerate(columns):
        numbers = of_one_kind(X[:, j])
        if numbers is not None:
            table[:, j] = numbers
            continue
        for i, cell in enumerate(X[:, j]):
            number = _as_number(cell)
            if number is None:
                i, cell = next(
                    (
                        (k, it)
                        for k, it in enumerate(X[:, j])
                        if _as_number(it) is None and not (isinstance(it, str) and is_number(it))
                    ),
                    (i, cell),
                )
                kind = (
                    f"a date or time; {OF_DATES}"
                    if _is_date(cell)
                    else "not a number; drop the column or turn it into numbers"
                )
                raise InputError(
                    f"{source}: row {first_row + i + 1}, column '{name}' holds "
                    f"{str(cell)[:40]!r}, {kind}"
                )
            table[i, j] = number
    return table


def of_one_kind(cells: np.ndarray) -> np.ndarray | None:
    """Objects as an array of numbers where all are numbers: much faster than cell by cell."""
    try:
        numbers = np.array(cells.tolist())
    except (ValueError, OverflowError):
        return None
    return numbers if numbers.ndim == 1 and numbers.dtype.kind in "biuf" else None


def _is_date(cell: Any) -> bool:
    """Whether an object is a date or a time, of Python, NumPy or pandas; text is none."""
    of_python = datetime.date | datetime.time | datetime.timedelta
    # As with NA, pandas is not imported to know its type.
    return isinstance(cell, of_python | np.datetime64 | np.timedelta64) or (
        type(cell).__name__ == "Period"
    )


def _as_number(cell: Any) -> float | None:
    """The cell as a float; NaN where it is missing; None where it is no number."""
    # pandas.NA cannot be told by `is` without importing pandas.
    if cell is None or type(cell).__name__ == "NAType":
        return math.nan
    if isinstance(cell, (str, bytes, complex, np.datetime64, np.timedelta64)):
        return None
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _refuse_non_finite(
    table: Float[np.ndarray, "n d"], columns: Sequence[str], source: str
) -> None:
    bad = ~np.isfinite(table)
    count = int(bad.sum())
    if count == 0:
        return
    i, j = np.argwhere(bad)[0]
    raise not_finite(int(i), columns[int(j)], float(table[i, j]), count, source)


def not_finite(row: int, name: str, value: float, count: int, source: str) -> InputError:
    """The refusal of `count` cells that are no finite numbers, the first of which is given."""
    found = "nan, NA or empty" if math.isnan(value) else f"{value:g}"
    cells = "the only such cell" if count == 1 else f"the first of {count} such cells"
    return InputError(
        f"{source}: row {row + 1}, column '{name}' is {found} "
        f"({cells}); fill or drop missing and infinite cells"
    )
