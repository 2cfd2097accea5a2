"""Categorical columns: found or declared, coded 0, 1, 2, ..., and given back as what they were.

A code is spread over a cell of width 1 as any whole number is (`dequantisation.py`), so a
log-density in such a column is the log-probability of its level.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from tiltflow.data.checks import OF_DATES, dtypes_of, is_number, of_one_kind
from tiltflow.data.errors import InputError
from tiltflow.data.written_dates import is_date

LEAST_ROWS_PER_LEVEL = 10
MOST_LEVELS = 100
"""Text with more levels, or fewer rows of each, is taken for names or remarks: a density of them
would only remember."""

Levels = Mapping[str, tuple[Any, ...]]
"""For each categorical column its levels, in the order of their codes."""


def levels_of_frame(X: Any) -> dict[str, tuple[Any, ...]]:
    """The levels that a polars or pandas frame itself declares, in its order."""
    levels = {}
    for name, dtype in dtypes_of(X).items():
        declared = getattr(dtype, "categories", None)
        if declared is not None and type(dtype).__name__ in ("Enum", "CategoricalDtype"):
            levels[str(name)] = tuple(declared)
        elif type(dtype).__name__ == "Categorical":
            levels[str(name)] = tuple(sorted(X[name].drop_nulls().unique().to_list()))
    return levels


def find_levels(
    values: Shaped[np.ndarray, "n d"],
    columns: Sequence[str],
    declared: Sequence[str],
    of_frame: Levels,
    source: str,
) -> dict[str, tuple[Any, ...]]:
    """The levels of every categorical column: declared, of the frame's own kind, or of text.

    Levels are ordered as the frame orders them, else by their frequency, the most frequent first.
    Levels that do not occur are left out.

    Args:
        values: (n, d), any dtype.
        columns: d names.
        declared: names of columns that are categorical whatever they hold.
        of_frame: of `levels_of_frame`.
        source: for the messages.

    Raises:
        InputError: a declared column is not there; a column with a single level; text with too
            many levels, or dates.
    """
    check_declared(declared, columns)
    levels = {}
    for j, name in enumerate(columns):
        asked = name in declared or name in of_frame
        if not asked and not _is_text(values[:, j], name, source):
            continue
        counts = Counter(cell for cell in values[:, j] if not is_missing(cell))
        levels[name] = order_levels(counts, name, of_frame.get(name, ()), source, asked=asked)
    return levels


def declared_names(categorical: Iterable[Any] | None) -> tuple[str, ...]:
    """Names of columns as text: of a list, an array or an index of pandas, of which None is none.

    Columns of a frame may be called by numbers, and are then called by their text.
    """
    return () if categorical is None else tuple(str(name) for name in categorical)


def check_declared(declared: Sequence[str], columns: Sequence[str]) -> None:
    """Raise an `InputError` that names the first declared column that is not there."""
    for name in declared:
        if name not in columns:
            raise InputError(
                f"categorical_features: there is no column '{name}'; the columns are "
                f"{', '.join(columns)}: name some of them"
            )


def order_levels(
    counts: Counter[Any], name: str, ordered: Sequence[Any], source: str, *, asked: bool
) -> tuple[Any, ...]:
    """The levels of one column, from how often each occurs: first the `ordered`, then by frequency.

    Raises:
        InputError: a single level, or one that is neither text nor a number; without being `asked`
            for, too many levels, or dates.
    """
    if len(counts) == 1:
        raise InputError(
            f"{source}: column '{name}' is constant ({next(iter(counts))!r} in every row); drop it"
        )
    if not asked:
        _refuse_free_text(counts, name, source)
    order = {level: place for place, level in enumerate(ordered)}
    found = sorted(counts, key=lambda it: (order.get(it, len(order)), -counts[it], str(it)))
    return tuple(_plain(level, name, source) for level in found)


def encode(
    values: Shaped[np.ndarray, "n d"],
    columns: Sequence[str],
    levels: Levels,
    source: str,
    first_row: int = 0,
) -> Shaped[np.ndarray, "n d"]:
    """The table with codes in the place of levels; missing cells become nan.

    `first_row` is the place of its first row in the whole table, for the messages.

    Raises:
        InputError: a level that is not among those of the fit.
    """
    if not levels:
        return values
    coded = values.astype(object)
    for j, name in enumerate(columns):
        if name not in levels:
            continue
        codes = {level: float(code) for code, level in enumerate(levels[name])}
        for i, cell in enumerate(values[:, j]):
            code = codes.get(cell)
            if code is not None:
                coded[i, j] = code
            elif is_missing(cell):
                coded[i, j] = np.nan
            else:
                known = ", ".join(str(level) for level in levels[name][:10])
                raise InputError(
                    f"{source}: row {first_row + i + 1}, column '{name}' holds {str(cell)[:40]!r}, "
                    f"a level that the fit has not seen (it knows {known}); fit it anew, or drop "
                    "the row"
                )
    return coded


def decode(
    rows: Float[np.ndarray, "*n d"], columns: Sequence[str], levels: Levels
) -> Shaped[np.ndarray, "*n d"]:
    """Numbers with levels in the place of codes, an object array; as they are without levels."""
    if not levels:
        return rows
    decoded = rows.astype(object)
    for j, name in enumerate(columns):
        if name in levels:
            known = np.empty(len(levels[name]), object)
            known[:] = levels[name]
            decoded[..., j] = known[np.round(rows[..., j]).astype(int)]
    return decoded


def is_missing(cell: Any) -> bool:
    """Whether a cell of any kind is missing: None, nan, pandas' NA, or empty text."""
    return (
        cell is None
        or type(cell).__name__ in ("NAType", "NaTType")
        or (isinstance(cell, float | np.floating) and bool(np.isnan(cell)))
        or (isinstance(cell, str) and not cell)
    )


def _plain(level: Any, name: str, source: str) -> str | bool | int | float:
    """A level as JSON has it: numbers of NumPy become those of Python."""
    level = level.item() if isinstance(level, np.generic) else level
    if not isinstance(level, str | bool | int | float):
        raise InputError(
            f"{source}: column '{name}' has the level {str(level)[:40]!r}, which is neither text "
            "nor a number; turn its levels into text"
        )
    return level


def _is_text(column: Shaped[np.ndarray, " n"], name: str, source: str) -> bool:
    """Whether a column holds text; numbers written as text are not categories.

    Raises:
        InputError: most cells are numbers, but not all.
    """
    if column.dtype.kind not in "OU" or of_one_kind(column) is not None:
        return False
    text = np.array([isinstance(cell, str) and bool(cell) for cell in column])
    words = text & np.array([not isinstance(it, str) or not is_number(it) for it in column])
    numbers = len(column) - words.sum() - sum(is_missing(cell) for cell in column)
    row = int(words.argmax())
    return mostly_words(int(words.sum()), int(numbers), (row, column[row]), name, source)


def mostly_words(
    words: int, numbers: int, first_word: tuple[int, Any], name: str, source: str
) -> bool:
    """Whether a column of so many `words` and `numbers` is text; `first_word` is row and cell.

    Raises:
        InputError: most cells are numbers, but not all.
    """
    if words and numbers >= words:
        row, cell = first_word
        raise InputError(
            f"{source}: row {row + 1}, column '{name}' holds {cell[:40]!r}, not a number, "
            "where most cells are numbers; mend that cell, or drop the row or the column"
            f"{_of_numbers(cell)}"
        )
    return words > 0


def _refuse_free_text(counts: Counter[Any], name: str, source: str) -> None:
    found, rows = list(counts), counts.total()
    if all(is_date(level) for level in found[:10]):
        raise InputError(f"{source}: column '{name}' holds dates ({found[0]!r}); {OF_DATES}")
    if len(found) > MOST_LEVELS or rows < LEAST_ROWS_PER_LEVEL * len(found):
        raise InputError(
            f"{source}: column '{name}' holds text of {len(found)} levels in {rows} rows "
            f"({str(found[0])[:40]!r}, ...), too many to learn their shares; drop the column, set "
            "it apart as labels, join rare levels, or name it among the categorical columns"
            f"{_of_numbers(found[0])}"
        )


def _of_numbers(cell: Any) -> str:
    """More advice on numbers as people write them."""
    if not isinstance(cell, str) or not re.fullmatch(r"[+-]?\d[\d.,' \u00a0\u202f]*\d", cell):
        return ""
    return "; write numbers with a decimal point, and thousands without separators"
