"""The types of a table's columns, and data frames of them again.

Densities are of float64 numbers; what the columns were is kept beside the schema, by the names that
pandas has for it.
"""

import importlib.util
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float

from tiltflow.data.categories import Levels
from tiltflow.data.checks import dtypes_of
from tiltflow.data.errors import InputError

Container = Literal["default", "pandas", "polars"]
"""What rows are given in, by the names of scikit-learn's `set_output`; "default" is an array."""

NUMBERS = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
           "float32", "float64")  # fmt: skip
NULLABLE = ("boolean", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64",
            "Float32", "Float64")  # fmt: skip
"""Of pandas, for columns that may have missing cells."""
TEXT = ("str", "string", "object")
NAMES = (*NUMBERS, *NULLABLE, *TEXT, "category")
OF_POLARS: Mapping[Any, str] = {pl.Boolean: "bool", pl.String: "str", pl.Categorical: "category"}
"""Names of those that polars calls otherwise."""


class ColumnType(NamedTuple):
    """One of `NAMES`; of a category, what a frame declares: its levels, unless it knows of none."""

    name: str
    categories: tuple[Any, ...] | None = None
    ordered: bool = False


Types = Mapping[str, ColumnType]
"""The type of each column, where it is known."""


def types_of(X: Any) -> dict[str, ColumnType]:
    """The types of the columns of a polars or pandas frame, or of an array of whole numbers.

    Nothing for other things.
    """
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "biu":
        return {f"x{j}": ColumnType(X.dtype.name) for j in range(X.shape[1])}
    found = {str(name): _type_of(dtype) for name, dtype in dtypes_of(X).items()}
    return {name: each for name, each in found.items() if each is not None}


def _type_of(dtype: Any) -> ColumnType | None:
    if isinstance(dtype, pl.DataType | type):
        if isinstance(dtype, pl.Enum):
            return ColumnType("category", tuple(dtype.categories))
        name = OF_POLARS.get(dtype.base_type(), str(dtype).lower())
    elif type(dtype).__name__ == "CategoricalDtype":
        return ColumnType("category", tuple(dtype.categories.tolist()), bool(dtype.ordered))
    else:
        name = str(dtype)
    return ColumnType(name) if name in NAMES else None


def is_whole(kind: ColumnType) -> bool:
    """Whether a type is one of integers."""
    return kind.name.lower().lstrip("u").startswith("int")


def typed_levels(levels: Levels, types: Types) -> dict[str, tuple[Any, ...]]:
    """Levels as their columns have them: an array that is made of all columns has floats alone."""
    typed = {}
    for name, found in levels.items():
        kind = types.get(name)
        of_numbers = all(isinstance(level, int | float) for level in found)
        if kind is not None and of_numbers and is_whole(kind):
            typed[name] = tuple(int(level) for level in found)
        elif kind is not None and of_numbers and kind.name in ("bool", "boolean"):
            typed[name] = tuple(bool(level) for level in found)
        else:
            typed[name] = found
    return typed


def read_type(stored: Mapping[str, Any]) -> ColumnType:
    """A type from its fields in JSON; raises `KeyError`, `TypeError` or `ValueError` for others."""
    kind = ColumnType(**stored)
    declared = kind.categories
    if kind.name not in NAMES or type(kind.ordered) is not bool:
        raise ValueError(f"no type of a column: {kind}")
    return kind if declared is None else kind._replace(categories=tuple(declared))


def check_container(container: object) -> None:
    """Raise an `InputError` unless it is one of `Container` and its package is installed."""
    if container not in ("default", "pandas", "polars"):
        raise InputError(f"transform: {container!r} is not known; use default, pandas, polars")
    if container == "pandas" and importlib.util.find_spec("pandas") is None:
        raise InputError("transform: pandas is not installed; install it, or use polars")


def as_container(
    container: Container,
    numbers: Float[np.ndarray, "n d"],
    columns: tuple[str, ...],
    levels: Levels,
    types: Types,
    index: Any = None,
) -> Any:
    """Rows as a data frame, each column of its type; `index` is that of a pandas frame.

    What the type of a column cannot hold (a draw of -1 where the table had unsigned numbers)
    becomes the nearest that it can; columns whose type is not known are text or float64.

    Args:
        container: "pandas" or "polars".
        numbers: (n, d), on their grids, codes in the place of levels.
        columns: d names.
        levels: the levels of categorical columns.
        types: of `types_of`.
        index: n labels of rows, for pandas alone.
    """
    cells = {
        name: _cells(column, levels.get(name), types.get(name))
        for name, column in zip(columns, numbers.T)
    }
    if container == "polars":
        return pl.DataFrame([_as_series(name, it, types.get(name)) for name, it in cells.items()])
    import pandas as pd

    frame = pd.DataFrame(
        {name: pd.Series(it, dtype=_as_pandas(types.get(name), it)) for name, it in cells.items()}
    )
    return frame if index is None else frame.set_axis(index, axis=0)


def _cells(
    column: Float[np.ndarray, " n"], levels: tuple[Any, ...] | None, kind: ColumnType | None
) -> np.ndarray:
    """The cells as NumPy holds them: levels as objects, numbers of the column's type."""
    name = "float64" if kind is None else kind.name.lower().replace("boolean", "bool")
    if levels is not None:
        known = np.empty(len(levels), object)
        known[:] = levels
        if kind is not None and name in NUMBERS and not any(isinstance(it, str) for it in levels):
            known = known.astype(name)
        return known[np.round(column).astype(int)]
    if name not in NUMBERS:
        return column
    dtype = np.dtype(name)
    if dtype.kind == "b":
        return column > 0.5
    if dtype.kind == "f":
        return column.astype(dtype)
    whole, bounds = np.round(column), np.iinfo(dtype)
    # The largest of 64 bits is no float64: what is rounded up to it is beyond.
    inside = (whole > bounds.min) & (whole < bounds.max)
    nearest = np.where(whole > 0, bounds.max, bounds.min).astype(dtype)
    return np.where(inside, np.where(inside, whole, 0).astype(dtype), nearest)


def _as_series(name: str, cells: np.ndarray, kind: ColumnType | None) -> pl.Series:
    if cells.dtype != object:
        return pl.Series(name, cells)
    series = pl.Series(name, cells.tolist(), strict=False)
    if kind is None or kind.name != "category" or series.dtype != pl.String:
        return series
    declared = kind.categories
    return series.cast(pl.Categorical() if declared is None else pl.Enum(list(declared)))


def _as_pandas(kind: ColumnType | None, cells: np.ndarray) -> Any:
    """The dtype of a column for pandas; numbers among objects come back as floats."""
    if kind is None or (cells.dtype != object and kind.name in (*TEXT, "category")):
        return cells.dtype
    if kind.name != "category":
        return kind.name
    import pandas as pd

    declared = sorted(set(cells)) if kind.categories is None else list(kind.categories)
    return pd.CategoricalDtype(declared, ordered=kind.ordered)
