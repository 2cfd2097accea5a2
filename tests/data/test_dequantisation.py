"""Grids are found where there are grids, and nowhere else; noise goes on and comes off."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltflow.data.dequantisation import (
    dequantise,
    find_quanta,
    most_frequent,
    requantise,
    share_of_ties,
)

NORMAL = np.random.default_rng(0).normal(size=2000)


def resampled(column):
    return np.random.default_rng(1).choice(column, len(column))


@pytest.mark.parametrize(
    ("column", "quantum"),
    [
        (np.round(NORMAL, 1), 0.1),
        (np.round(NORMAL, 2), 0.01),
        (1e6 + np.round(NORMAL, 1), 0.1),
        (np.round(NORMAL, 2).astype(np.float32).astype(float), 0.01),
        (np.round(NORMAL / 0.05) * 0.05, 0.05),
        (0.3 + 0.7 * np.floor(10 * NORMAL), 0.7),
        (np.floor(np.exp(5 + 2 * NORMAL)), 1.0),
        (np.where(np.arange(2000) % 100 > 0, 0.0, np.abs(np.floor(5 * NORMAL))), 1.0),
        (1.0 * (NORMAL > 0), 1.0),
        # Sixtieths printed to three digits: the step is not decimal.
        (np.round(np.round(60 * NORMAL) / 60, 3), 1 / 60),
        # A few finer values do not hide the grid of 99 % of the rows.
        (np.where(np.arange(2000) < 15, np.round(NORMAL, 3), np.round(NORMAL, 1)), 0.1),
    ],
)
def test_grids_are_found(column, quantum):
    np.testing.assert_allclose(find_quanta(column[:, None]), [quantum], rtol=1e-4)


@pytest.mark.parametrize(
    "column",
    [
        NORMAL,
        np.exp(3 * NORMAL),
        np.round(NORMAL, 8),
        np.concatenate([NORMAL, NORMAL[:40]]),
        resampled(NORMAL),
        resampled(np.round(NORMAL, 6)),
        np.where(NORMAL > 1, NORMAL, 0.0),
        np.zeros(5),
        np.array([1.0]),
    ],
)
def test_continuous_columns_have_none(column):
    assert find_quanta(column[:, None]) == [0.0]


def test_each_column_for_itself():
    X = np.column_stack([NORMAL, np.round(NORMAL, 1), np.floor(3 * NORMAL)])
    np.testing.assert_allclose(find_quanta(X), [0.0, 0.1, 1.0])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(step=st.floats(1e-6, 1e6), origin=st.integers(-1000, 1000), seed=st.integers(0, 2**32 - 1))
def test_noise_stays_in_its_cell_and_comes_off(step, origin, seed):
    generator = np.random.default_rng(seed)
    grid = step * (origin + generator.integers(0, 30, size=(200, 1)))
    X = np.hstack([grid, generator.normal(size=(200, 1))])
    quanta = find_quanta(X)
    np.testing.assert_allclose(quanta, [step, 0.0], rtol=1e-6)
    noisy = dequantise(generator, X, quanta)
    assert (np.abs(noisy - X)[:, 0] <= step / 2 * (1 + 1e-6)).all()
    assert len(np.unique(noisy[:, 0])) == 200
    np.testing.assert_array_equal(noisy[:, 1], X[:, 1])
    back = requantise(noisy, quanta, X.min(axis=0))
    np.testing.assert_allclose(back, np.hstack([grid, noisy[:, 1:]]), atol=1e-3 * step)


@pytest.mark.parametrize("quantum", [0.1, 0.01, 0.05, 1e-7, 1.0, 250.0])
def test_points_of_a_decimal_grid_are_the_decimals_themselves(quantum):
    digits = max(0, round(-np.log10(quantum) + 0.5))
    points = np.round(quantum * np.arange(-2000, 2000)[:, None] + 100 * quantum, digits)
    noisy = dequantise(np.random.default_rng(0), points, np.array([quantum]))
    back = requantise(noisy, np.array([quantum]), points[7])
    assert (back == points).all()


def test_ties_are_counted_where_no_grid_explains_them():
    half = np.where(np.arange(2000) < 1000, 0.5, NORMAL)
    X = np.column_stack([NORMAL, half, np.round(NORMAL, 1)])
    quanta = find_quanta(X)
    np.testing.assert_allclose(quanta, [0.0, 0.0, 0.1])
    np.testing.assert_allclose(share_of_ties(X, quanta), [0.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("values", "shares", "quantum"),
    [
        ([0, 1, 5], [50, 25, 25], 1),
        ([1, 2, 4], [30, 30, 30], 1),
        ([1, 2, 4, 6], [10, 40, 30, 20], 1),
        ([0, 10, 25], [30, 30, 40], 5),
        ([0, 1, 3, 5], [60, 10, 20, 10], 1),
    ],
)
def test_the_most_frequent_value_is_on_the_grid_too(values, shares, quantum):
    X = np.repeat(np.array(values, float), shares)[:, None]
    quanta = find_quanta(X)
    assert quanta == [quantum]
    np.testing.assert_array_equal(requantise(X, quanta, most_frequent(X)), X)


def test_large_whole_numbers_keep_their_last_digit():
    X = 1.6e15 + np.array([[1.0], [2.0], [7.0]])
    np.testing.assert_array_equal(requantise(X + 0.25, np.ones(1), X[0]), X)
