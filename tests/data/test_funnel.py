"""The funnel: normalised, its draws agree with its density, and its halves weigh the same."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tiltflow.data.funnel import Funnel

N = 4000


@eqx.filter_jit
def draw(target, key, n):
    """Points, labels, and the part of each coordinate's score that Stein's identity tests."""
    points = target.sample(key, n)
    score = jax.vmap(jax.grad(target.log_prob))(points)
    return points, jax.vmap(target.label)(points), points * score


def p_value(points, scale):
    """Kolmogorov-Smirnov: are all the coordinates, brought to unit width, standard normal?"""
    points = np.asarray(points, np.float64)
    standard = np.column_stack([points[:, 0] / scale, points[:, 1:] * np.exp(-points[:, :1] / 2)])
    return min(scipy.stats.kstest(column, "norm").pvalue for column in standard.T)


@pytest.mark.parametrize("x64", [False, True])
def test_log_prob_is_that_of_the_two_normals(x64):
    points = np.array([[0.0, 0.0, 0.0], [-4.0, 0.1, -0.3], [5.0, 20.0, -3.0], [-20.0, 0.0, 1e-5]])
    width = np.exp(points[:, :1] / 2)
    expected = scipy.stats.norm.logpdf(points[:, 0], scale=2.0)
    expected += scipy.stats.norm.logpdf(points[:, 1:], scale=width).sum(axis=1)
    with jax.enable_x64(x64):
        found = jax.jit(jax.vmap(Funnel(3, scale=2.0).log_prob))(jnp.asarray(points, float))
    np.testing.assert_allclose(found, expected, rtol=1e-12 if x64 else 1e-5)


def test_density_integrates_to_one():
    """On a grid of (x_0, z), with x_1 = z e^{x_0 / 2}: the Jacobian of that is e^{x_0 / 2}."""
    grid = np.linspace(-7.0, 7.0, 141)
    first, z = (part.ravel() for part in np.meshgrid(grid, grid))
    points = jnp.asarray(np.stack([first, z * np.exp(first / 2)], axis=1), float)
    log_prob = jax.jit(jax.vmap(Funnel(2, scale=1.0).log_prob))(points)
    mass = np.exp(np.asarray(log_prob, np.float64) + first / 2).sum() * 0.1**2
    assert abs(mass - 1) < 1e-4


@pytest.mark.parametrize("scale", [3.0, 3.0**0.5])
def test_draws_follow_the_law_and_the_halves_weigh_the_same(scale, key):
    """Level 1e-3 for each coordinate and for the labels; a fixed seed."""
    target = Funnel(scale=scale)
    points, labels, _ = draw(target, key, N)
    assert points.shape == (N, 10)
    assert p_value(points, scale) > 1e-3
    np.testing.assert_array_equal(target.weights, 0.5)
    assert scipy.stats.binomtest(int(labels.sum()), N, 0.5).pvalue > 1e-3


def test_draws_agree_with_the_density(key):
    """Under p, E[x_i ∂_i log p] = −1 (Stein); within 4.5 standard errors."""
    products = np.asarray(draw(Funnel(), key, N)[2], np.float64)
    error = products.std(axis=0) / np.sqrt(N)
    assert np.all(np.abs(products.mean(axis=0) + 1) < 4.5 * error)


def test_draws_of_another_width_are_caught(key):
    """The mutant takes e^{x_0} for the standard deviation of the others, not for the variance."""

    points = draw(Funnel(), key, N)[0]
    points = points.at[:, 1:].multiply(jnp.exp(points[:, :1] / 2))
    assert p_value(points, 3.0) < 1e-6
    score = jax.jit(jax.vmap(jax.grad(Funnel().log_prob)))(points)
    products = np.asarray(points * score, np.float64)[:, 1:]
    error = products.std(axis=0) / np.sqrt(N)
    assert np.any(np.abs(products.mean(axis=0) + 1) > 4.5 * error)


def test_far_points_have_finite_log_prob_and_score():
    points = jnp.array([[-30.0, 0.0], [-30.0, 1.0], [40.0, 1e8]])
    value, score = jax.jit(jax.vmap(jax.value_and_grad(Funnel(2).log_prob)))(points)
    assert np.isfinite(value).all() and np.isfinite(score).all()


def test_one_dimension_is_refused():
    with pytest.raises(ValueError, match="dimension >= 2"):
        Funnel(1)
