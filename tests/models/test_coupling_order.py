"""The halves of coupling layers: permutations that close, and pairs that are not left out."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
import pytest
from flowjax.distributions import StandardNormal

from tiltflow.models.coupling_order import conditioning_orders, permutations
from tiltflow.models.flows import coupling_flow


def uncovered(orders):
    """The share of ordered pairs (i, j) where no layer changes j by i."""
    d = orders.shape[1]
    had = np.eye(d, dtype=bool)
    for order in orders:
        had[np.ix_(order[: d // 2], order[d // 2 :])] = True
    return (~had).sum() / (d * (d - 1))


@pytest.mark.parametrize("d", [3, 4, 7, 10, 64])
def test_the_permutations_lead_through_the_orders_and_back(d):
    orders = conditioning_orders(d, 6)
    x = np.arange(d)
    for order, following in zip(orders, permutations(orders)):
        np.testing.assert_array_equal(x, order)
        x = x[following]
    np.testing.assert_array_equal(x, np.arange(d))


def test_fewer_pairs_are_left_out_than_by_chance():
    rng = np.random.default_rng(1)
    chance = np.mean(
        [uncovered(np.stack([rng.permutation(10) for _ in range(6)])) for _ in range(99)]
    )
    assert 0.1 < chance < 0.25
    assert uncovered(conditioning_orders(10, 6)) < 0.03
    assert uncovered(conditioning_orders(64, 6)) < 0.13
    assert uncovered(conditioning_orders(4, 6)) == 0


def test_the_flow_has_them():
    """With conditioners that say something, all coordinates act on all, and it inverts."""
    flow = coupling_flow(jax.random.key(0), StandardNormal((5,)), transformer="affine")
    leaves, static = eqx.partition(flow, eqx.is_inexact_array)
    noise = iter(jax.random.split(jax.random.key(1), 99))
    leaves = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(noise), x.shape), leaves)
    wild = paramax.unwrap(eqx.combine(leaves, static))
    x = jnp.array([0.3, -0.2, 0.5, 0.1, -0.4])
    jacobian = np.asarray(jax.jacobian(wild.bijection.inverse)(x))
    assert (np.abs(jacobian) > 1e-6).all()
    y, log_det = wild.bijection.inverse_and_log_det(x)
    np.testing.assert_allclose(wild.bijection.transform(y), x, atol=1e-4)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=1e-3, atol=1e-4)
