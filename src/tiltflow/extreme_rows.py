"""The most and the least likely rows of a table, with their places in it.

They are looked for when the table is there, at the fit; a model keeps 2000 rows of it at most, and
not where they stood.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from tiltflow.data.errors import InputError

MOST = 5
"""Rows of either kind."""
KINDS = {"rows": "f", "log_prob": "f", "numbers": "i", "scored": "i"}
PREFIX = "extreme_"


class ExtremeRows(NamedTuple):
    """The likeliest rows first and the least likely last, as many of either; no two are the same.

    `numbers` are their places in the table, from 0, of equal rows the first one; None where nobody
    knows. `scored` is how many different rows they were found among.
    """

    rows: Float[np.ndarray, "k d"]
    log_prob: Float[np.ndarray, " k"]
    numbers: Int[np.ndarray, " k"] | None
    scored: int


def find_extremes(
    score: Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, " n"]],
    rows: Float[np.ndarray, "n d"],
    numbers: Int[np.ndarray, " n"] | None,
    batch: int,
) -> ExtremeRows:
    """The extremes of `rows` by the log-density that `score` gives to so many rows at once.

    `numbers` are the places of the rows in the table. A batch that is the last one overlaps the
    one before, since each number of rows is compiled for.
    """
    if numbers is not None:
        order = np.argsort(numbers, kind="stable")
        rows, numbers = rows[order], numbers[order]
    _, first = np.unique(rows, axis=0, return_index=True)
    first.sort()
    rows, numbers = rows[first], None if numbers is None else numbers[first]
    log_prob = np.empty(len(rows))
    for start in range(0, len(rows), batch):
        part = slice(max(0, min(start, len(rows) - batch)), start + batch)
        log_prob[part] = score(rows[part])
    order = np.argsort(-np.nan_to_num(log_prob, nan=-np.inf), kind="stable")
    count = min(MOST, len(order) // 2)
    picked = np.concatenate([order[:count], order[len(order) - count :]])
    places = None if numbers is None else numbers[picked]
    return ExtremeRows(rows[picked], log_prob[picked], places, len(rows))


def extreme_arrays(extremes: ExtremeRows | None) -> dict[str, np.ndarray]:
    """What is stored of them; nothing of rows without places, which are found again."""
    if extremes is None or extremes.numbers is None:
        return {}
    return {PREFIX + name: np.asarray(it) for name, it in extremes._asdict().items()}


def read_extremes(
    arrays: Mapping[str, np.ndarray], dimension: int, source: str
) -> ExtremeRows | None:
    """What `extreme_arrays` gave; None of models that have none.

    Raises:
        InputError: one is missing, or of another kind or shape; `source` names where.
    """
    found = {name: arrays[PREFIX + name] for name in KINDS if PREFIX + name in arrays}
    if not found:
        return None
    count = len(found["rows"]) if "rows" in found and found["rows"].ndim else 0
    shapes = {"rows": (count, dimension), "log_prob": (count,), "numbers": (count,), "scored": ()}
    for name, kind in KINDS.items():
        array = found.get(name)
        if array is None or array.shape != shapes[name] or array.dtype.kind != kind:
            raise InputError(
                f"{source}: array '{PREFIX + name}' is missing, or not of shape {shapes[name]}; "
                "fit the model anew"
            )
    return ExtremeRows(found["rows"], found["log_prob"], found["numbers"], int(found["scored"]))
