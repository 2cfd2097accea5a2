"""Weights of rows: checked, and turned into repetitions by systematic resampling.

Row i with the share w_i of all weight appears in m rows floor(m w_i) or ceil(m w_i) times, and
m w_i times on average (Kitagawa 1996, appendix): the likelihood of what is drawn is the weighted
one, up to a rounding of the weights.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from tiltflow.data.errors import InputError

FEWEST_TRAINING = 2
LEAST_ROWS = 50_000
MOST_COPIES = 8
"""Small tables are repeated, so that weights are rounded to an eighth of their mean."""


def check_weights(sample_weight: Any, rows: int) -> Float[np.ndarray, " n"]:
    """Weights as an array, (rows,), that are zero or more, and several of them more.

    Raises:
        InputError: another number of weights; text, nan, infinite or negative ones; all but one 0.
    """
    try:
        weights = np.asarray(sample_weight, dtype=float)
    except (TypeError, ValueError):
        raise InputError("sample_weight: holds what is no number; give one number a row") from None
    if weights.shape != (rows,):
        raise InputError(
            f"sample_weight: has shape {weights.shape} for {rows} rows; give one number a row"
        )
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        raise InputError(
            f"sample_weight: row {bad.argmax() + 1} has the weight {weights[bad.argmax()]:g}; "
            "give finite numbers, zero or more"
        )
    if np.count_nonzero(weights) < 2:
        raise InputError(
            f"sample_weight: all weights are zero but {np.count_nonzero(weights)}; "
            "a fit needs two rows or more of a positive weight"
        )
    return weights


def split_rows(
    generator: np.random.Generator,
    rows: int,
    held_out: float,
    weights: Float[np.ndarray, " n"] | None,
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " k"]]:
    """Which of the `rows` are held out, that share of them, and which are trained on.

    Each in random order, and with weights repeated as they say; no row is in both.

    Raises:
        InputError: as `count_held_out`.
    """
    order = generator.permutation(rows if weights is None else np.flatnonzero(weights))
    first, second = np.split(order, [count_held_out(len(order), held_out)])
    if weights is None:
        return first, second
    return (
        resample(generator, first, weights[first]),
        resample(generator, second, weights[second]),
    )


def count_held_out(rows: int, share: float) -> int:
    """How many of so many `rows` are held out: that share of them, and at least one.

    Raises:
        InputError: fewer than two are left to train on.
    """
    held_out = max(1, round(share * rows))
    left = rows - held_out
    if left < FEWEST_TRAINING:
        raise InputError(
            f"validation_fraction: {share:g} of {rows} rows holds out {held_out} and leaves {left} "
            f"to train on, where a fit needs at least {FEWEST_TRAINING}; add rows, or hold out "
            "fewer"
        )
    return held_out


def resample(
    generator: np.random.Generator, rows: Int[np.ndarray, " n"], weights: Float[np.ndarray, " n"]
) -> Int[np.ndarray, " m"]:
    """The given `rows` repeated in proportion to their weights, in random order."""
    copies = min(MOST_COPIES, max(1, LEAST_ROWS // len(rows)))
    m = copies * len(rows)
    share = np.cumsum(weights)
    places = (generator.random() + np.arange(m)) / m * share[-1]
    drawn = rows[np.minimum(np.searchsorted(share, places, side="right"), len(rows) - 1)]
    return generator.permutation(drawn)


def effective_rows(rows: Int[np.ndarray, " m"]) -> float:
    """How many rows of equal weight have the same error: (sum w)^2 / sum w^2 (Kish 1965)."""
    _, counts = np.unique(rows, return_counts=True)
    return float(counts.sum() ** 2 / (counts.astype(float) ** 2).sum())
