"""Contours hold the share of the mass that they say, wherever the mass is."""

import numpy as np
import pytest
from matplotlib.path import Path

from tiltflow.report.contours import (
    LEAST_DRAWS,
    SHARES,
    all_pair_contours,
    pair_contours,
    robust_limits,
)

NORMAL_LIMITS = np.array([[-3.5, 3.5], [-3.5, 3.5]])


def _normal(n, seed):
    return np.random.default_rng(seed).standard_normal((n, 2))


def _inside(lines, points):
    """Inside an odd number of the lines."""
    return sum(Path(line).contains_points(points).astype(int) for line in lines) % 2 == 1


@pytest.mark.parametrize("modes", [1, 2])
def test_fresh_draws_fall_inside_by_the_share(modes):
    """4 standard errors of 20 000 fresh draws, and 1 % for the smoothing and the grid."""
    apart = 1.5 * np.array([1.0, -1.0])
    width = 1.0 if modes == 1 else 0.3

    def draws(n, seed):
        signs = np.where(np.random.default_rng(seed + 9).random(n) < 0.7, 1.0, -1.0)[:, None]
        return width * _normal(n, seed) + (signs * apart if modes == 2 else 0.0)

    found = pair_contours(draws(8000, 0), draws(8000, 1), NORMAL_LIMITS)
    assert found.shares == SHARES
    fresh = draws(20_000, 2)
    for share, lines in zip(found.shares, found.lines):
        error = np.sqrt(share * (1 - share) / len(fresh))
        assert abs(_inside(lines, fresh).mean() - share) < 4 * error + 0.01 + 0.015 * (modes == 2)


def test_the_contour_of_a_normal_is_its_circle():
    found = pair_contours(_normal(20_000, 0), _normal(20_000, 1), NORMAL_LIMITS)
    (line,) = found.lines[0]
    radius = np.linalg.norm(line, axis=1)
    # P(r < R) = 1 - exp(-R^2 / 2), so that half of the mass lies within sqrt(2 log 2).
    np.testing.assert_allclose(radius, np.sqrt(2 * np.log(2)), rtol=0.12)
    np.testing.assert_allclose(radius.mean(), np.sqrt(2 * np.log(2)), rtol=0.02)


def test_mass_beyond_the_grid_counts_as_outside():
    """A mutant that takes the shares of what the grid holds finds both contours."""
    near, far = _normal(4000, 0), _normal(1000, 1) + 1e6
    both = np.concatenate([near, far])
    found = pair_contours(both, both[::-1], NORMAL_LIMITS)
    assert found.shares == (0.5,)
    # Half of all is five eighths of what is near.
    assert abs(_inside(found.lines[0], near).mean() - 0.625) < 0.04


def test_draws_that_are_not_finite_and_few_draws_do_no_harm():
    draws = _normal(4000, 0)
    draws[::100] = np.nan
    draws[1] = np.inf
    assert pair_contours(draws, draws, NORMAL_LIMITS).shares == SHARES
    few = _normal(LEAST_DRAWS // 2 - 1, 0)
    assert pair_contours(few, few, NORMAL_LIMITS) == ((), ())


def test_every_pair_has_contours_across_before_up():
    draws = np.random.default_rng(0).standard_normal((20, 60, 3)) * [1.0, 5.0, 0.1]
    limits = np.array([robust_limits(column) for column in draws.reshape(-1, 3).T])
    found = all_pair_contours(draws, limits)
    assert sorted(found) == [(0, 1), (0, 2), (1, 2)]
    for (i, j), each in found.items():
        extent = np.concatenate(each.lines[0]).std(axis=0)
        assert (extent[0] < extent[1]) == (i == 0 and j == 1)
        turned = each.transposed().lines[0][0]
        np.testing.assert_array_equal(turned[:, ::-1], each.lines[0][0])


@pytest.mark.parametrize("values", [np.zeros(5), np.full(3, np.nan), np.array([]), np.ones(4) * 7])
def test_limits_of_ugly_columns_are_an_interval(values):
    low, high = robust_limits(values)
    assert np.isfinite([low, high]).all() and low < high
