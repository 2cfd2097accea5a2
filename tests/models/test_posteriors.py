"""Posteriors: log-determinants against Jacobians, and what the encoder's numbers do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.models.integration import Integration
from tiltflow.models.posteriors import (
    ContinuousPosterior,
    GaussianPosterior,
    PlanarPosterior,
    planar,
)

D, N = 2, 3
KEY = jax.random.key(0)


def continuous():
    options = {"flows": 2, "widths": (6,), "rank": 2, "integration": Integration(steps=4)}
    return ContinuousPosterior(D, key=jax.random.key(1), **options)


@pytest.mark.parametrize("make", [lambda: PlanarPosterior(D, 3), continuous])
def test_the_log_determinant_is_that_of_the_whole_map(make):
    """By central differences, as a solve has no forward mode."""
    posterior = make()
    own = 0.5 * jax.random.normal(jax.random.key(2), (N, posterior.numbers))
    z = jax.random.normal(jax.random.key(3), (N, D))
    move = eqx.filter_jit(lambda posterior, z: posterior(z, own, KEY))
    step = 1e-2
    columns = [
        (move(posterior, z + step * e).z - move(posterior, z - step * e).z) / (2 * step)
        for e in jnp.eye(D)
    ]
    _, expected = jnp.linalg.slogdet(jnp.stack(columns, axis=-1))
    found = move(posterior, z)
    np.testing.assert_allclose(found.log_det, expected, atol=3e-3)
    assert jnp.abs(found.log_det).max() > 0.05
    # A point's own numbers move it alone.
    other = posterior(z, own.at[0].set(0.0), KEY).z
    assert jnp.abs(other[0] - found.z[0]).max() > 0.01
    np.testing.assert_allclose(other[1:], found.z[1:], atol=1e-4)


def test_planar_maps_are_invertible_whatever_the_encoder_gives():
    """The line along w stays increasing: u . w is kept above -1."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        u, w = jnp.asarray(5 * rng.normal(size=(2, D)), jnp.float32)
        line = jnp.linspace(-4, 4, 200)[:, None] * w / jnp.linalg.norm(w)
        moved, log_det = jax.vmap(lambda z, u=u, w=w: planar(z, u, w, jnp.asarray(0.3)))(line)
        assert (jnp.diff(moved @ w) > -1e-3).all()
        assert jnp.isfinite(log_det).all()


def test_an_estimated_trace_is_that_of_a_fixed_noise_and_right_on_average():
    """Mean over 400 keys within 4.5 standard errors of the exact one."""
    posterior = continuous()
    own = 0.7 * jax.random.normal(jax.random.key(2), (1, posterior.numbers))
    z = jnp.array([[0.5, -0.3]])
    exact = posterior(z, own, KEY).log_det[0]
    keys = jax.random.split(jax.random.key(5), 400)
    noisy = jax.vmap(lambda key: posterior(z, own, key, "rademacher").log_det[0])(keys)
    assert noisy.std() > 1e-3
    assert abs(noisy.mean() - exact) < 4.5 * noisy.std() / 20 + 1e-4


def test_no_flow_moves_nothing():
    z = jnp.ones((N, D))
    moved = GaussianPosterior()(z, jnp.zeros((N, 0)), KEY)
    np.testing.assert_array_equal(moved.z, z)
    assert not moved.log_det.any()
