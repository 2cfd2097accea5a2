"""Columns of the text of a CSV file, as whole numbers, as numbers, as booleans or as text.

Numbers may have decimal commas where something else parts the cells. A kind is what all cells of
a column are; batches of a column are looked at one after the other.
"""

import re
from typing import NamedTuple

import numpy as np
import polars as pl

MISSING = ("", "NA", "N/A", "null", "NULL", "nan", "NaN", "NAN")
_NUMBER = r"[+-]?([0-9]+|[0-9]*,[0-9]+)([eE][+-]?[0-9]+)?"


class Kind(NamedTuple):
    """What all cells seen so far are, of those that are not missing; and how many miss."""

    numbers: bool = True
    booleans: bool = True
    whole: bool = True
    commas: bool = False
    """Whether they are numbers with decimal commas, or whole; never in files that commas part."""
    missing: int = 0


TEXT = Kind(numbers=False, booleans=False, whole=False)
"""The kind of a column that is text whatever it holds."""


def as_found(text: pl.Series, first: Kind) -> tuple[np.ndarray, Kind]:
    """A column, (n,), and its kind, of which `first` is what it may be."""
    if first.numbers:
        numbers = _as_numbers(text)
        # Most often, and much faster than what follows.
        if numbers.null_count() == text.null_count():
            kind = Kind(booleans=False, whole=_are_whole(text), missing=text.null_count())
            return as_kind(text, kind), kind
    cells = without_missing(text)
    kind = kind_of(cells, first)
    return as_kind(cells, kind), kind


def without_missing(text: pl.Series) -> pl.Series:
    """Cells without blanks around them, and null where they say that they miss."""
    text = text.str.strip_chars()
    return text.set(text.is_in(MISSING), None)


def kind_of(cells: pl.Series, before: Kind) -> Kind:
    """The kind of cells `without_missing` and of those `before` them."""
    numbers = before.numbers and _as_numbers(cells).null_count() == cells.null_count()
    return Kind(
        numbers=numbers,
        # A column that is all missing so far is of both kinds.
        booleans=before.booleans and _are_booleans(cells),
        whole=before.whole and numbers and _are_whole(cells),
        commas=before.commas and _have_commas(cells),
        missing=before.missing + cells.null_count(),
    )


def becomes_whole(kind: Kind) -> bool:
    """Whether a column is of integers, which have no value for a cell that is missing."""
    return kind.numbers and kind.whole and not kind.missing


def has_commas(kind: Kind) -> bool:
    """Whether a column is of numbers, one at least with a decimal comma."""
    return kind.commas and not kind.numbers


def may_have_comma(cell: str) -> bool:
    """Whether the text of a cell is a number with a decimal comma, or whole."""
    return re.fullmatch(_NUMBER, cell) is not None


def as_kind(cells: pl.Series, kind: Kind) -> np.ndarray:
    """Cells `without_missing` as an array, (n,): nan, or "" in text, where one misses."""
    if becomes_whole(kind):
        return cells.cast(pl.Int64).to_numpy()
    if kind.numbers:
        return _as_numbers(cells).fill_null(float("nan")).to_numpy()
    if has_commas(kind):
        return _as_numbers(cells.str.replace(",", ".")).fill_null(float("nan")).to_numpy()
    if kind.booleans:
        booleans = (cells.str.to_lowercase() == "true").cast(pl.Float64)
        return booleans.fill_null(float("nan")).to_numpy()
    return np.asarray(cells.fill_null("").to_list(), dtype=object)


def _are_booleans(cells: pl.Series) -> bool:
    """Whether all that are not missing are; of most columns the first cells tell that not."""
    parts = (part.drop_nulls().str.to_lowercase() for part in (cells.head(100), cells))
    return all(part.is_in(["true", "false"]).all() for part in parts)


def _are_whole(cells: pl.Series) -> bool:
    """Whether all that are not missing are, and float64 has room for them."""
    parts = ((part, part.cast(pl.Int64, strict=False)) for part in (cells.head(100), cells))
    return all(
        whole.null_count() == part.null_count() and whole.is_between(-(2**53), 2**53).all()
        for part, whole in parts
    )


def _have_commas(cells: pl.Series) -> bool:
    parts = (part.drop_nulls() for part in (cells.head(100), cells))
    return all(part.str.contains(f"^(?:{_NUMBER})$").all() for part in parts)


def _as_numbers(cells: pl.Series) -> pl.Series:
    return cells.cast(pl.Float64, strict=False)
