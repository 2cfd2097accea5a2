"""What the columns of a table are: names, categories and grids; rows to numbers, and back."""

import warnings
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from tiltflow.data.categories import (
    Levels,
    declared_names,
    decode,
    encode,
    find_levels,
    levels_of_frame,
)
from tiltflow.data.checks import as_table, check_cells, check_shape, check_table
from tiltflow.data.column_types import (
    Container,
    Types,
    as_container,
    is_whole,
    typed_levels,
    types_of,
)
from tiltflow.data.delimited import KeepText
from tiltflow.data.dequantisation import find_quanta, most_frequent, requantise, share_of_ties
from tiltflow.data.errors import InputError
from tiltflow.data.matching import has_names, match_and_warn, match_columns

MANY_TIES = 0.2


class Schema(NamedTuple):
    """The columns of a fit, d of them.

    `quanta` is the grid step of every column, 0 where it is continuous, 1 where it is categorical;
    `origin` a point of each grid.
    """

    columns: tuple[str, ...]
    levels: Levels
    quanta: Float[np.ndarray, " d"]
    origin: Float[np.ndarray, " d"]
    types: Types = MappingProxyType({})
    """What the columns were before they became numbers, where that is known."""
    named: bool = True
    """Whether the names are those of the table, which may have had none (`has_names`)."""


def find_schema(
    X: Any, categorical: Iterable[Any] | None, source: str = "X"
) -> tuple[Schema, Float[np.ndarray, "n d"]]:
    """The schema of the rows a density shall be fitted to, and the rows as numbers.

    Args:
        X: (n, d), an array or a data frame.
        categorical: names of columns that are categorical whatever they hold; text with few levels
            is so without being named.
        source: the file or argument that X comes from, for the messages.

    Raises:
        InputError: as `check_table` and `find_levels`.
    """
    values, columns = as_table(X)
    check_shape(values, columns, source)
    declared = declared_names(categorical)
    types = types_of(X if hasattr(X, "columns") else values)
    levels = find_levels(values, columns, declared, levels_of_frame(X), source)
    levels = typed_levels(levels, types)
    rows = check_table(encode(values, columns, levels, source), columns, source)
    return describe_columns(rows, columns, levels, types, named=has_names(X)), rows


def describe_columns(
    rows: Float[np.ndarray, "n d"],
    columns: Sequence[str],
    levels: Levels,
    types: Types,
    *,
    named: bool = True,
) -> Schema:
    """The schema of checked rows, (n, d), in which codes stand for the `levels`.

    Columns of whole numbers by their type have a step of 1 at least, however few values repeat.
    """
    coded = np.array([name in levels for name in columns])
    quanta = np.where(coded, 1.0, 0.0)
    quanta[~coded] = find_quanta(rows[:, ~coded])
    whole = np.array([name in types and is_whole(types[name]) for name in columns])
    quanta = np.where(whole & (quanta == 0), 1.0, quanta)
    return Schema(tuple(columns), levels, quanta, most_frequent(rows), types, named)


def warn_of_ties(rows: Float[np.ndarray, "n d"], schema: Schema) -> None:
    """Warn of every column in which many rows repeat a value, on no grid."""
    for name, share in zip(schema.columns, share_of_ties(rows, schema.quanta)):
        if share > MANY_TIES:
            warnings.warn(
                f"X: column '{name}': {share:.0%} of the rows repeat a value, and on no grid; "
                "a density narrows onto repeated values without bound, so do not compare its "
                "likelihoods; drop the column, or add noise of the size of its resolution",
                stacklevel=4,
            )


def to_numbers(
    schema: Schema, X: Any, source: str = "X", *, missing: bool = False
) -> Float[np.ndarray, "n d"]:
    """Rows of a table as numbers, its columns in the order of the schema.

    Columns are matched as `match_columns` does, with a warning of those that are ignored. Cells
    may be `missing` (nan) where that is said.

    Raises:
        InputError: other columns, text where numbers were, levels that are not known.
    """
    values, columns = as_table(X)
    check_shape(values, columns, source)
    # The words are those that scikit-learn's checks of estimators look for.
    if not hasattr(X, "columns") and len(columns) != len(schema.columns):
        raise InputError(
            f"{source} has {len(columns)} features, but BalancedEBM is expecting "
            f"{len(schema.columns)} features as input: {', '.join(schema.columns)}"
        )
    matched = match_and_warn(
        dict(zip(columns, range(len(columns)))),
        schema.columns,
        source,
        named=has_names(X),
        names_are_real=schema.named,
    )
    places = list(matched.values())
    if places != list(range(values.shape[1])):
        values = values[:, places]
    coded = encode(values, schema.columns, schema.levels, source)
    return check_cells(coded, schema.columns, source, missing)


def text_columns(schema: Schema) -> KeepText:
    """Which columns of a file are text since they were so in the fit, even if they hold numbers."""
    levels = schema.levels
    of_text = {name for name in levels if all(isinstance(each, str) for each in levels[name])}

    def keep_text(columns: Sequence[str], named: bool) -> set[str]:
        real = schema.named
        own = dict(zip(columns, columns))
        try:
            taken, _ = match_columns(own, schema.columns, "", named=named, names_are_real=real)
        except InputError:  # is raised again where the rows are matched
            return set()
        return {taken[name] for name in of_text}

    return keep_text


def on_grids(schema: Schema, numbers: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
    """Numbers on the grids of their columns; codes within those of the levels."""
    rows = requantise(numbers, schema.quanta, schema.origin)
    for j, name in enumerate(schema.columns):
        if name in schema.levels:
            rows[..., j] = np.clip(rows[..., j], 0, len(schema.levels[name]) - 1)
    return rows


def to_rows(schema: Schema, numbers: Float[np.ndarray, "*n d"]) -> Shaped[np.ndarray, "*n d"]:
    """Rows as they were: numbers on their grids, and levels for codes (an object array then)."""
    return decode(on_grids(schema, numbers), schema.columns, schema.levels)


def to_container(
    schema: Schema, rows: Float[np.ndarray, "n d"], container: Container, index: Any = None
) -> Any:
    """Rows that are on their grids with their levels, in an array, or in a frame of their types."""
    if container == "default":
        return decode(rows, schema.columns, schema.levels)
    return as_container(container, rows, schema.columns, schema.levels, schema.types, index)
