"""Distances against exact numbers; a gap of second moments, or of unweighted rows, is caught."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from tiltflow.data.mixtures import two_modes
from tiltflow.evaluation.distances import fisher_divergence, sliced_wasserstein

GENERATOR = np.random.default_rng(0)
X = GENERATOR.standard_normal((2000, 3))


def second_moment_gap(x, y):
    """What was published as a fast sliced distance."""
    spreads = [np.sqrt(((z - z.mean(axis=0)) ** 2).sum(axis=1).mean() / z.shape[1]) for z in (x, y)]
    return abs(spreads[0] - spreads[1])


def test_a_shift_is_its_length_over_root_d():
    """theta . m has the variance |m|^2 / d; by 4 standard errors of 4000 directions."""
    shift = np.array([3.0, 0.0, -4.0])
    found = sliced_wasserstein(X, X + shift, seed=1, projections=4000)
    # theta_1^2 of the unit sphere in three dimensions is Beta(1/2, 1), of variance 4 / 45.
    assert abs(found**2 - 25 / 3) < 4 * 25 * np.sqrt(4 / 45 / 4000)


def test_a_scale_and_a_copy():
    """Twice as wide is as far away as its own width; a copy in another order is nowhere."""
    assert sliced_wasserstein(X, X[::-1], seed=1) < 1e-12
    found = sliced_wasserstein(X, 2 * X, seed=1, projections=1000)
    assert found == pytest.approx(np.sqrt((X**2).mean()), rel=0.02)


def test_shape_alone_is_seen_and_second_moments_do_not_see_it():
    """Of +-1 and N(0, 1), W2^2 = 2 - 2 sqrt(2 / pi), though mean and variance are the same."""
    normal = norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]
    points = np.where(np.arange(5000) % 2, 1.0, -1.0)[:, None]
    exact = np.sqrt(2 - 2 * np.sqrt(2 / np.pi))
    assert sliced_wasserstein(points, normal, seed=0, projections=2) == pytest.approx(
        exact, abs=1e-3
    )
    assert second_moment_gap(points, normal) < 1e-3
    ring = np.random.default_rng(1).standard_normal((4000, 2))
    ring *= np.sqrt(2) / np.linalg.norm(ring, axis=1, keepdims=True)
    assert sliced_wasserstein(ring, X[:, :2], seed=0) > 0.1


def test_weights_are_repetitions():
    counts = np.where(X[:, 0] > 0, 3, 1)
    weighted = sliced_wasserstein(X, X + X**2, seed=2, x_weights=counts.astype(float))
    repeated = sliced_wasserstein(np.repeat(X, counts, axis=0), X + X**2, seed=2)
    assert weighted == pytest.approx(repeated, rel=1e-9)
    assert abs(sliced_wasserstein(X, X + X**2, seed=2) - repeated) > 1e-3
    other_side = sliced_wasserstein(X + X**2, X, seed=2, y_weights=10.0 * counts)
    assert other_side == pytest.approx(repeated, rel=1e-9)


def test_a_row_that_is_not_finite_makes_it_nan():
    broken = X.copy()
    broken[5, 1] = np.inf
    assert np.isnan(sliced_wasserstein(X, broken, seed=0))


class Normal(eqx.Module):
    scale: jax.Array

    def __call__(self, x):
        return -0.5 * jnp.sum((x / self.scale) ** 2)


def test_fisher_divergence_of_normals():
    """Scores -x and -x / s^2: half of (1 - 1 / s^2)^2 E|x|^2, on these points exactly."""
    found = fisher_divergence(Normal(jnp.ones(())), Normal(jnp.asarray(2.0)), X)
    assert found == pytest.approx(0.5 * 0.75**2 * (X**2).sum(axis=1).mean(), rel=1e-5)
    broken = fisher_divergence(Normal(jnp.ones(())), Normal(jnp.asarray(jnp.nan)), X)
    assert np.isnan(broken)


def test_fisher_divergence_is_blind_to_weights():
    """Which is why weights are judged by themselves."""
    target = two_modes()
    other = eqx.tree_at(lambda it: it.weights, target, jnp.array([0.01, 0.99]))
    points = np.asarray(eqx.filter_jit(target.sample)(jax.random.key(0), 2000), float)
    assert fisher_divergence(target.log_prob, other.log_prob, points) < 1e-3
