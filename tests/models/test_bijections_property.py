"""Properties of splines and couplings, whatever their parameters: they go back, and increase.

In float64. Parameters are arguments of one compiled function, so nothing is compiled twice.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
import pytest
from flowjax.distributions import StandardNormal
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tiltflow.models.flows import affine_coupling, coupling_flow, trainable
from tiltflow.models.spline import RationalQuadraticSpline

INTERVAL, BINS, POINTS = 4.0, 5, 16
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True, database=None)
logits = st.floats(-4, 4)
sorted_points = arrays(float, POINTS, elements=st.floats(-6, 6), unique=True).map(np.sort)


@eqx.filter_jit
def spline_both_ways(spline, x):
    y, forward = jax.vmap(spline.transform_and_log_det)(x)
    back, inverse = jax.vmap(spline.inverse_and_log_det)(y)
    return y, forward, back, inverse


@PROPERTY
@given(
    arrays(float, BINS, elements=logits),
    arrays(float, BINS, elements=logits),
    arrays(float, BINS - 1, elements=logits),
    sorted_points,
)
def test_splines(widths, heights, slopes, x):
    with jax.enable_x64(True):
        spline = RationalQuadraticSpline(bins=BINS, interval=INTERVAL)
        spline = eqx.tree_at(
            lambda it: (it.widths, it.heights, it.slopes),
            spline,
            tuple(map(jnp.asarray, (widths, heights, slopes))),
        )
        y, forward, back, inverse = map(np.asarray, spline_both_ways(spline, jnp.asarray(x)))
    outside = np.abs(x) >= INTERVAL
    np.testing.assert_array_equal(y[outside], x[outside])
    assert (forward[outside] == 0).all()
    assert (np.abs(y[~outside]) <= INTERVAL + 1e-12).all()
    assert (np.diff(y) >= 0).all()
    apart = np.diff(x) > 1e-6
    assert (np.diff(y)[apart] > 0).all()
    np.testing.assert_allclose(back, x, atol=1e-8)
    np.testing.assert_allclose(inverse, -forward, atol=1e-6)
    assert np.isfinite(forward).all()


def moved(module, seed, size):
    parameters, static = trainable(module)
    rng = np.random.default_rng(seed)
    noisy = jax.tree.map(lambda p: jnp.asarray(p + size * rng.normal(size=p.shape)), parameters)
    return eqx.combine(noisy, static)


@eqx.filter_jit
def both_ways(bijection, x):
    bijection = paramax.unwrap(bijection)

    def one(x):
        y, forward = bijection.transform_and_log_det(x)
        back, inverse = bijection.inverse_and_log_det(y)
        jacobian = jax.jacfwd(lambda it: bijection.transform_and_log_det(it)[0])(x)
        return y, forward, back, inverse, jacobian

    return jax.vmap(one)(x)


@pytest.fixture(scope="module")
def flows():
    with jax.enable_x64(True):
        build = eqx.filter_jit(coupling_flow)
        key = jax.random.key(0)
        return {
            name: build(
                key, StandardNormal((dimension,)), layers=2, width=4, transformer=name
            ).bijection
            for name, dimension in (("spline", 2), ("affine", 3))
        }


@pytest.mark.parametrize("name", ["spline", "affine"])
@PROPERTY
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.5), st.floats(0.1, 3))
def test_coupling_flows(flows, name, seed, size, spread):
    with jax.enable_x64(True):
        flow = moved(flows[name], seed, size)
        x = spread * np.random.default_rng(seed).normal(size=(8, *flow.shape))
        found = both_ways(flow, jnp.asarray(x))
    _, forward, back, inverse, jacobian = map(np.asarray, found)
    np.testing.assert_allclose(back, x, atol=1e-6)
    np.testing.assert_allclose(inverse, -forward, atol=1e-6)
    np.testing.assert_allclose(forward, np.linalg.slogdet(jacobian)[1], atol=1e-6)


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_one_coupling_leaves_half_as_it_is_and_increases_in_each_of_the_others(seed, size):
    with jax.enable_x64(True):
        coupling = moved(affine_coupling(jax.random.key(0), 4, width=4), seed, size)
        x = np.random.default_rng(seed).normal(size=(8, 4))
        found = both_ways(coupling, jnp.asarray(x))
    y, forward, back, inverse, jacobian = map(np.asarray, found)
    np.testing.assert_array_equal(y[:, :2], x[:, :2])
    np.testing.assert_allclose(back, x, atol=1e-9)
    np.testing.assert_allclose(inverse, -forward, atol=1e-9)
    scales = np.diagonal(jacobian, axis1=1, axis2=2)
    assert (scales > 0).all()
    np.testing.assert_allclose(forward, np.log(scales).sum(axis=1), atol=1e-9)
    # No coordinate depends on a later one.
    assert (np.triu(jacobian, k=1) == 0).all()
