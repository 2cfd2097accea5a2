"""Continuous flows as bijections: inverse, Jacobian, mass one, fixed noise, failures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import StandardNormal

from tiltflow.models.batch_likelihood import batch_likelihood
from tiltflow.models.continuous import (
    continuous_flow,
    with_exact_trace,
    with_fixed_noise,
    with_integration,
)
from tiltflow.models.flows import trainable
from tiltflow.models.integration import Integration

X = jnp.asarray(np.random.default_rng(1).normal(size=(4, 2)), jnp.float32)


def perturbed(flow, spread=0.5):
    """The flow with noise on every parameter, so that it is no identity."""
    rng = np.random.default_rng(0)
    parameters, static = trainable(flow)
    return eqx.combine(
        jax.tree.map(
            lambda p: p + spread * jnp.asarray(rng.normal(size=p.shape), p.dtype), parameters
        ),
        static,
    )


@pytest.fixture(scope="module")
def flow():
    """One flow and a batch norm."""
    new = continuous_flow(jax.random.key(0), StandardNormal((2,)), widths=(8,), batch_norm=True)
    return perturbed(new)


@eqx.filter_jit
def log_prob(flow, x):
    return flow.log_prob(x)


@eqx.filter_jit
def inverse(flow, x):
    return jax.vmap(flow.bijection.inverse_and_log_det)(x)


@eqx.filter_jit
def transform(flow, z):
    return jax.vmap(flow.bijection.transform_and_log_det)(z)


def test_a_new_flow_is_its_base():
    new = continuous_flow(jax.random.key(0), StandardNormal((2,)), widths=(4,), kind="mlp")
    np.testing.assert_allclose(log_prob(new, X), StandardNormal((2,)).log_prob(X), atol=1e-6)


def test_both_directions_undo_each_other(flow):
    z, log_det = inverse(flow, X)
    assert jnp.abs(z - X).max() > 0.3
    back, back_log_det = transform(flow, z)
    np.testing.assert_allclose(back, X, atol=2e-4)
    np.testing.assert_allclose(back_log_det, -log_det, atol=2e-4)


def test_the_exact_trace_is_the_determinant_of_the_whole_map(flow):
    _, log_det = inverse(flow, X)
    # Forward mode passes through a solve only without checkpoints, so columns by differences.
    step = 1e-2
    columns = [
        (flow_at(flow, X + step * e) - flow_at(flow, X - step * e)) / (2 * step) for e in np.eye(2)
    ]
    _, expected = jnp.linalg.slogdet(jnp.stack(columns, axis=-1))
    np.testing.assert_allclose(log_det, expected, atol=3e-3)


def flow_at(flow, x):
    return inverse(flow, jnp.asarray(x, jnp.float32))[0]


def test_the_density_integrates_to_one(flow):
    """A midpoint sum on [-8, 8]^2 shifted to where the mass is; mutant: the trace left out."""
    centre = np.asarray(transform(flow, jnp.zeros((1, 2)))[0][0])
    side = (np.arange(60) + 0.5) / 60 * 16 - 8
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2) * 1.5 + centre
    grid = jnp.asarray(grid, jnp.float32)
    values = eqx.filter_jit(lambda flow, x: batch_likelihood(flow, x).log_prob)(flow, grid)
    cell = (1.5 * 16 / 60) ** 2
    assert float(jnp.exp(values).sum() * cell) == pytest.approx(1, abs=3e-3)
    unscaled = eqx.filter_jit(lambda flow, x: flow.base_dist.log_prob(x))(
        flow, inverse(flow, grid)[0]
    )
    assert abs(float(jnp.exp(unscaled).sum() * cell) - 1) > 0.1


def test_draws_come_with_their_log_density(flow):
    draws, with_draw = eqx.filter_jit(lambda flow, key: flow.sample_and_log_prob(key, (4,)))(
        flow, jax.random.key(3)
    )
    np.testing.assert_allclose(log_prob(flow, draws), with_draw, atol=1e-3)


def test_fixed_noise_is_a_function_of_the_point_alone(flow):
    """The same again, in other company, and under another key different; and it is no parameter."""
    noisy = with_fixed_noise(flow, jax.random.key(5), "rademacher")
    first = log_prob(noisy, X)
    np.testing.assert_array_equal(first, log_prob(noisy, X))
    np.testing.assert_allclose(first[::-1], log_prob(noisy, X[::-1]), atol=1e-6)
    other = log_prob(with_fixed_noise(flow, jax.random.key(6), "gaussian"), X)
    exact = log_prob(flow, X)
    assert jnp.abs(first - exact).max() > 0.01
    assert jnp.abs(first - other).max() > 0.01
    np.testing.assert_array_equal(exact, log_prob(with_exact_trace(noisy), X))
    count = [len(jax.tree.leaves(trainable(each)[0])) for each in (noisy, flow)]
    assert count[0] == count[1]


def test_a_batch_and_its_points_agree(flow):
    values = batch_likelihood(flow, X)
    np.testing.assert_allclose(values.log_prob, log_prob(flow, X), atol=1e-4)
    assert values.reached
    assert values.kinetic_energy is None


def test_a_failed_solve_is_minus_infinity():
    integration = Integration(max_steps=1)
    new = continuous_flow(
        jax.random.key(0), StandardNormal((2,)), widths=(8,), integration=integration
    )
    np.testing.assert_array_equal(log_prob(perturbed(new, 1.0), X), -np.inf)


def test_another_integration_changes_nothing_else(flow, key):
    """And back again it is the same tree: parameters, running statistics, noise."""
    noisy = with_fixed_noise(flow, key, "rademacher")
    other = with_integration(noisy, Integration(steps=3))
    assert not eqx.tree_equal(noisy, other)
    assert eqx.tree_equal(with_integration(other, Integration()), noisy)
