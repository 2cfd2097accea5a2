"""Weights of rows: the shares that come out of resampling, and what is refused."""

import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.weighting import (
    check_weights,
    count_held_out,
    effective_rows,
    resample,
    split_rows,
)


def test_rows_are_repeated_by_their_weights():
    """Each count is within one of its share, which independent draws would miss by far more."""
    generator = np.random.default_rng(0)
    weights = generator.gamma(2.0, size=300)
    drawn = resample(generator, np.arange(300) + 7, weights)
    counts = np.bincount(drawn - 7, minlength=300)
    expected = len(drawn) * weights / weights.sum()
    assert len(drawn) == 8 * 300
    assert np.abs(counts - expected).max() < 1


def test_the_factor_of_all_weights_does_not_matter():
    a, b = (resample(np.random.default_rng(1), np.arange(4), w * np.arange(4.0)) for w in (1, 1e9))
    np.testing.assert_array_equal(a, b)
    assert 0 not in a


def test_no_row_is_held_out_and_trained_on():
    weights = np.r_[np.zeros(50), np.ones(100), np.full(50, 9.0)]
    held_out, training = split_rows(np.random.default_rng(0), 200, 0.2, weights)
    assert not set(held_out) & set(training)
    assert set(held_out) | set(training) == set(range(50, 200))
    assert len(set(held_out)) == 30


def test_without_weights_every_row_is_there_once():
    held_out, training = split_rows(np.random.default_rng(0), 10, 0.25, None)
    assert sorted([*held_out, *training]) == list(range(10)) and len(held_out) == 2


@pytest.mark.parametrize(("rows", "share", "left"), [(2, 0.15, 1), (10, 0.96, 0), (1, 0.5, 0)])
def test_two_rows_are_left_to_train_on(rows, share, left):
    words = f"validation_fraction: {share} of {rows} rows .* leaves {left} to train on.*add rows"
    with pytest.raises(InputError, match=words):
        split_rows(np.random.default_rng(0), rows, share, None)
    with pytest.raises(InputError, match=words):
        split_rows(np.random.default_rng(0), 99, share, np.r_[np.ones(rows), np.zeros(99 - rows)])


def test_at_least_one_row_is_held_out():
    assert count_held_out(3, 0.01) == 1
    assert count_held_out(10, 0.8) == 8


def test_effective_rows():
    assert effective_rows(np.arange(9)) == 9
    assert effective_rows(np.array([0, 0, 0, 1])) == pytest.approx(16 / 10)


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ([1.0, 2.0], r"shape \(2,\) for 3 rows"),
        (["a", 1, 2], "no number"),
        ([1.0, np.nan, 2.0], "row 2 has the weight nan"),
        ([1.0, 2.0, -1.0], "row 3 has the weight -1"),
        ([0.0, 2.0, 0.0], "all weights are zero but 1"),
    ],
)
def test_bad_weights(weights, found):
    with pytest.raises(InputError, match=f"sample_weight: .*{found}"):
        check_weights(weights, 3)
