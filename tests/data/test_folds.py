"""Which rows judge a choice."""

import numpy as np
import pytest

from tiltflow.data.folds import (
    FEW_HELD_OUT,
    FOLDS,
    simplest_within_error,
    validation_splits,
)


def test_enough_held_out_rows_judge_alone():
    x, held_out = np.zeros((10, 2)), np.ones((FEW_HELD_OUT, 2))
    ((training, judging),) = validation_splits(x, held_out)
    assert training is x and judging is held_out


def test_few_held_out_rows_let_every_row_judge_once_and_never_itself():
    rows = np.arange(46.0)[:, None]
    splits = validation_splits(rows[:40], rows[40:])
    assert len(splits) == FOLDS
    for training, judging in splits:
        assert not set(training[:, 0]) & set(judging[:, 0])
        assert len(training) + len(judging) == 46
    assert sorted(np.concatenate([judging for _, judging in splits])[:, 0]) == list(range(46))


def test_two_rows_still_make_splits():
    splits = validation_splits(np.zeros((1, 1)), np.ones((1, 1)))
    assert all(len(training) and len(judging) for training, judging in splits)


@pytest.mark.parametrize("rows", [20, FEW_HELD_OUT])
@pytest.mark.parametrize("nothing", [np.nan, -np.inf])
def test_a_candidate_that_leaves_rows_without_a_density_is_not_chosen(rows, nothing):
    spoiled = np.zeros(rows)
    spoiled[3] = nothing
    fine, better = np.full(rows, -2.0), np.linspace(-1.1, -0.9, rows)
    assert simplest_within_error({"a": spoiled, "b": fine, "c": better}) == "c"
    assert simplest_within_error({"b": fine, "a": spoiled, "c": spoiled}) == "b"
    assert simplest_within_error({"a": spoiled, "c": spoiled}) == "a"
