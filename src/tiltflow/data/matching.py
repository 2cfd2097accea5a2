"""Columns of one table matched with those that a model was fitted on."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tiltflow.data.errors import InputError

Column = TypeVar("Column")


def match_columns(
    columns: Mapping[str, Column], names: Sequence[str], source: str | Path
) -> tuple[dict[str, Column], str]:
    """The columns called `names`, and a note on what was not taken by name.

    Where the table or the model has no names (x0, x1, ...), equally many are matched by place.

    Raises:
        InputError: one of `names` is missing, and nothing can be matched by place.
    """
    missing = [name for name in names if name not in columns]
    if not missing:
        ignored = [name for name in columns if name not in names]
        note = f"ignored columns that the model does not know: {', '.join(ignored)}"
        return {name: columns[name] for name in names}, note if ignored else ""
    unnamed = any(all(re.fullmatch(r"x\d+", n) for n in known) for known in (names, columns))
    if unnamed and len(columns) == len(names):
        note = f"columns {', '.join(columns)} taken in that order for {', '.join(names)}"
        return dict(zip(names, columns.values())), note
    raise InputError(
        f"{source}: column '{missing[0]}' is missing; the model was fitted on "
        f"{', '.join(names)}: add the column, or rename one"
    )
