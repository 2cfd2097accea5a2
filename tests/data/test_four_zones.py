"""The four zones: every shape by its own moments, every zone's mass by quadrature."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.four_zones import CENTRES, FourZones


@pytest.fixture(scope="module")
def on_grid():
    """Points, log-densities and labels on a fine grid of the square of half-width 10."""
    centres = (np.arange(800) + 0.5) / 40 - 10
    points = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)

    @jax.jit
    def both(x):
        target = FourZones()
        return jax.vmap(target.log_prob)(x), jax.vmap(target.label)(x)

    log_prob, labels = both(jnp.asarray(points, float))
    return points, np.exp(np.asarray(log_prob, float)) / 40**2, np.asarray(labels)


def test_the_zones_hold_the_weights(on_grid):
    _, mass, labels = on_grid
    found = np.bincount(labels, weights=mass)
    np.testing.assert_allclose(found, FourZones().weights, atol=1e-5)


def test_every_shape_has_its_covariance(on_grid):
    points, mass, labels = on_grid
    long = 0.5 * np.array([[0.68, 0.6], [0.6, 0.68]])
    # Var of 0.3 (u^2 - 1) is 0.18; a ring's is (radius^2 + deviation^2) / 2 on each axis.
    bent, ring = np.diag([0.36, 0.0625 + 0.18]), np.eye(2) * (1.2**2 + 0.15**2) / 2
    for zone, expected in enumerate([0.25 * np.eye(2), long, bent, ring]):
        inside = labels == zone
        np.testing.assert_allclose(
            np.average(points[inside], weights=mass[inside], axis=0), CENTRES[zone], atol=1e-3
        )
        found = np.cov(points[inside].T, aweights=mass[inside], ddof=0)
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_draws_have_the_density(on_grid):
    """Cells of half a unit by chi-squared, at level 1e-3; a mutant that bends upwards fails."""
    points, mass, _ = on_grid
    n = 20_000
    draws = np.asarray(eqx.filter_jit(FourZones().sample)(jax.random.key(0), n))
    edges = np.linspace(-10, 10, 41)
    expected = n * np.histogram2d(*points.T, bins=edges, weights=mass)[0]
    enough = expected > 5

    def surprise(draws):
        counts = np.histogram2d(*draws.T, bins=edges)[0]
        return ((counts - expected)[enough] ** 2 / expected[enough]).sum() - enough.sum()

    # A chi-squared of k degrees of freedom has the standard deviation sqrt(2 k).
    limit = 3.3 * np.sqrt(2 * enough.sum())
    assert surprise(draws) < limit
    lower_left = (draws < 0).all(axis=1)
    draws = np.where(lower_left[:, None] & [False, True], -6 - draws, draws)
    assert surprise(draws) > 20 * limit
