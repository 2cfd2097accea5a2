"""Noised toys: densities that integrate to one, and draws that follow them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.noised_toys import NOISE, NoisedCurve, checkerboard, sine, swirl

TOYS = {"sine": sine, "swirl": swirl, "checkerboard": checkerboard}
CENTRES = (np.arange(240) + 0.5) / 240 * 28 - 14
GRID = np.stack(np.meshgrid(CENTRES, CENTRES), axis=-1).reshape(-1, 2)


def mass(toy):
    """Of every cell of the grid."""
    log_prob = jax.jit(lambda x: jax.lax.map(toy.log_prob, x, batch_size=4096))(jnp.asarray(GRID))
    return np.exp(np.asarray(log_prob, float)) * (28 / 240) ** 2


@pytest.mark.parametrize("name", TOYS)
def test_densities_integrate_to_one_and_draws_follow_them(name):
    """First and second moments of 20 000 draws, level 4.5 standard errors."""
    toy = TOYS[name]()
    weights = mass(toy)
    assert abs(weights.sum() - 1) < 1e-3
    draws = np.asarray(toy.sample(jax.random.key(0), 20_000), float)
    for power in (1, 2, 4):
        expected, error = weights @ GRID**power, (draws**power).std(0) / 20_000**0.5
        assert (np.abs((draws**power).mean(0) - expected) < 4.5 * error).all()


def test_scores_are_finite_far_out():
    for make in TOYS.values():
        score = jax.vmap(jax.grad(make().log_prob))(jnp.array([[30.0, -30.0], [0.0, 50.0]]))
        assert np.isfinite(score).all()


def test_without_noise_points_lie_on_the_figure():
    toy = swirl()
    points = np.asarray(toy.sample(jax.random.key(1), 50, noise=0.0))
    nearest = np.linalg.norm(points[:, None] - np.asarray(toy.nodes), axis=2).min(axis=1)
    np.testing.assert_allclose(nearest, 0, atol=1e-6)
    points = np.asarray(checkerboard().sample(jax.random.key(1), 200, noise=0.0))
    assert np.abs(points).max() <= 6
    assert (np.floor(points / 3).sum(axis=1) % 2 == 0).all()


def test_nodes_are_closer_than_the_noise():
    for make in (sine, swirl):
        toy = make()
        assert isinstance(toy, NoisedCurve)
        steps = np.abs(np.diff(np.asarray(toy.nodes), axis=0)) / np.hypot(toy.spread, NOISE)
        assert np.sort(np.linalg.norm(steps, axis=1))[-5] < 0.5
