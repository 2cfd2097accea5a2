"""Which rows judge a choice: the held-out ones, or every row in turn where those are too few.

A held-out mean over m rows has a standard error of about one nat over sqrt(m); with a few dozen
rows the best of many candidates is the luckiest. Cross-validation (Stone 1974) lets all rows judge.
"""

from typing import TypeVar

import numpy as np
from jaxtyping import Float

Name = TypeVar("Name")

FEW_HELD_OUT = 500
FOLDS = 5


def validation_splits(
    x: Float[np.ndarray, "n d"], held_out: Float[np.ndarray, "m d"]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of rows to fit and rows to judge: one pair, or `FOLDS` of them with few held-out rows.

    Each is (rows, d). Rows are taken in their order, which must be random.
    """
    if len(held_out) >= FEW_HELD_OUT:
        return [(x, held_out)]
    rows = np.concatenate([x, held_out])
    fold = np.arange(len(rows)) % FOLDS
    splits = [(rows[fold != i], rows[fold == i]) for i in range(FOLDS)]
    return [split for split in splits if len(split[1]) and len(split[0])]


def simplest_within_error(scores: dict[Name, Float[np.ndarray, " m"]]) -> Name:
    """The best candidate; with few rows, the first that no later one clearly beats.

    Candidates come from simple to flexible, with their log-likelihoods of the same rows.
    Below `FEW_HELD_OUT` a later one must win by a standard error, paired row by row (the rule of
    Breiman et al. 1984): there the winner of a noisy race flatters itself. One that gives a row no
    density, or none that is a number, is left out; of none but such, it is the first.
    """
    names = [name for name, each in scores.items() if np.isfinite(each).all()]
    best = names[0] if names else next(iter(scores))
    for name in names[1:]:
        difference = scores[name] - scores[best]
        error = difference.std() / np.sqrt(len(difference))
        if difference.mean() > (error if len(difference) < FEW_HELD_OUT else 0.0):
            best = name
    return best
