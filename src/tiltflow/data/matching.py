"""Columns of one table matched with those that a model was fitted on.

Columns without names of their own are called by their places (x0, x1, ...). Such a name says
nothing of a column that was given one, even if it is the same.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from tiltflow.data.errors import InputError

Column = TypeVar("Column")


class CountedColumns(dict[str, np.ndarray]):
    """Columns of a file that names none, called x0, x1, ... by their places."""


class CountedFrame(pl.DataFrame):
    """A data frame of `CountedColumns`."""


def has_names(table: Any) -> bool:
    """Whether the columns of an array, of a data frame or of a file have names of their own."""
    if isinstance(table, CountedColumns | CountedFrame):
        return False
    if isinstance(table, Mapping):
        return True
    # Frames of pandas that were made of arrays have numbers for names.
    return any(isinstance(name, str) for name in getattr(table, "columns", ()))


def are_counted(names: Sequence[str]) -> bool:
    """Whether names are like those of columns without names, among which some may be left out."""
    places = [int(name[1:]) for name in names if re.fullmatch(r"x(0|[1-9]\d{0,8})", name)]
    return len(places) == len(names) and places[0] == 0 and places == sorted(places)


def match_columns(
    columns: Mapping[str, Column],
    names: Sequence[str],
    source: str | Path,
    *,
    named: bool = True,
    names_are_real: bool = True,
) -> tuple[dict[str, Column], str]:
    """The columns that are meant by `names`, and a note on what was ignored or taken by place.

    By name where both tables have names, or neither; else by place, which takes equally many.

    Args:
        columns: those of the table.
        names: of the model's columns.
        source: the file or the argument that the table comes from, for the message.
        named: whether the table has names of its own (`has_names`).
        names_are_real: whether the table of the fit had.

    Raises:
        InputError: one of `names` is missing, and nothing can be matched by place.
    """
    given = list(columns)
    missing = [name for name in names if name not in columns]
    # What is the same by name and by place leaves no doubt.
    if not missing and (named == names_are_real or given[: len(names)] == list(names)):
        known = set(names)
        ignored = [name for name in given if name not in known]
        note = f"ignored columns that the model does not know: {', '.join(ignored)}"
        return {name: columns[name] for name in names}, note if ignored else ""
    if not (named and names_are_real):
        if len(given) == len(names):
            note = f"columns {', '.join(given)} taken in that order for {', '.join(names)}"
            return dict(zip(names, columns.values())), note
        which = "the table has" if names_are_real else "that of the fit had"
        raise InputError(
            f"{source}: has {len(given)} columns where the model was fitted on {len(names)} "
            f"({', '.join(names)}), and {which} no names to match them by; give as many columns, "
            "in the order of the fit"
        )
    raise InputError(
        f"{source}: column '{missing[0]}' is missing; the model was fitted on "
        f"{', '.join(names)}: add the column, or rename one"
    )


def match_and_warn(
    columns: Mapping[str, Column],
    names: Sequence[str],
    source: str,
    *,
    named: bool,
    names_are_real: bool,
) -> dict[str, Column]:
    """As `match_columns`, with its note as a warning: that arrays go by place needs none."""
    taken, note = match_columns(columns, names, source, named=named, names_are_real=names_are_real)
    if note and (named or len(taken) < len(columns)):
        warnings.warn(f"{source}: {note}", stacklevel=6)
    return taken
