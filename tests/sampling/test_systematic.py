"""Systematic draws: every component by number, the same density, the same averages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.bijections import Affine
from flowjax.distributions import Normal, Transformed

from tiltflow.models.defensive import DefensiveMixture
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.mixture_of_flows import MixtureOfFlows
from tiltflow.sampling.recording import independent_draws
from tiltflow.sampling.systematic import systematic_draws

DRAWS = 4001
WEIGHTS = np.array([0.37, 0.1, 0.53])
CENTRES = np.array([-20.0, 0.0, 20.0])
MIXTURE = GaussianMixture(
    WEIGHTS, np.stack([CENTRES, CENTRES], axis=1), np.broadcast_to(np.eye(2), (3, 2, 2))
)
SHIFTED = Transformed(MIXTURE, Affine(jnp.array([1.0, -1.0]), jnp.array([1.5, 0.5])))
WIDE = GaussianMixture(np.ones(1), np.full((1, 2), 500.0), np.eye(2)[None])
FLOWS = MixtureOfFlows(jax.random.key(1), MIXTURE)
DENSITIES = {
    "mixture": MIXTURE,
    "flow on a mixture": SHIFTED,
    "mixture of flows": FLOWS,
    "defensive": DefensiveMixture(SHIFTED, WIDE, 0.2),
    "one normal": Normal(jnp.zeros(2), jnp.ones(2)),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_the_density_is_that_of_the_points(name):
    points, log_prob = systematic_draws(jax.random.key(0), DENSITIES[name], DRAWS)
    assert points.shape == (DRAWS, 2)
    np.testing.assert_allclose(log_prob, DENSITIES[name].log_prob(points), rtol=1e-4, atol=1e-3)


def counts(points):
    """Of the three modes, far apart in the first coordinate."""
    return np.bincount(np.digitize(np.asarray(points[:, 0]), (-10.0, 10.0)), minlength=3)


@pytest.mark.parametrize("name", ["mixture", "flow on a mixture", "mixture of flows"])
def test_every_component_is_drawn_by_number(name):
    for seed in range(5):
        points, _ = systematic_draws(jax.random.key(seed), DENSITIES[name], DRAWS)
        assert np.abs(counts(points) - DRAWS * WEIGHTS).max() <= 1
    # Independent draws err by 32 of 4001 in the first mode, one deviation.
    errors = [
        np.abs(counts(independent_draws(jax.random.key(seed), MIXTURE, DRAWS)[0]) / DRAWS - WEIGHTS)
        for seed in range(5)
    ]
    assert np.max(errors) > 0.005


def test_a_defensive_mixture_has_its_shares_by_number():
    points, _ = systematic_draws(jax.random.key(3), DENSITIES["defensive"], DRAWS)
    wide = np.asarray(points[:, 0]) > 250
    assert wide.sum() == round(0.2 * DRAWS)
    assert np.abs(counts(points[~wide]) - (DRAWS - wide.sum()) * WEIGHTS).max() <= 1


def test_within_a_component_draws_are_of_its_gaussian():
    points, _ = systematic_draws(jax.random.key(4), MIXTURE, DRAWS)
    middle = np.asarray(points)[np.abs(points[:, 0]) < 10]
    # 400 draws: deviations of .05 of the means, .07 of the variances; 4 of them.
    np.testing.assert_allclose(middle.mean(axis=0), 0, atol=0.2)
    np.testing.assert_allclose(np.cov(middle.T), np.eye(2), atol=0.28)
