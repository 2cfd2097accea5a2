"""Draws and log-densities on the host: those of flowjax, or the reason why there are none."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.bijections import Affine
from flowjax.distributions import StandardNormal, Transformed

from tiltflow.data.errors import InputError
from tiltflow.models.checked_flows import draw, log_prob_of_rows
from tiltflow.models.continuous import continuous_flow, continuous_flows
from tiltflow.models.energy_flow import EnergyFlow
from tiltflow.models.energy_flow_architectures import fully_connected_energy_flow
from tiltflow.models.integration import Integration

X = np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)
KEY = jax.random.key(3)


def steep(speed, **integration):
    """A flow whose last layer is drawn at scale `speed`."""
    flow = continuous_flow(
        jax.random.key(0), StandardNormal((2,)), widths=(8,), integration=Integration(**integration)
    )
    weight = speed * jax.random.normal(jax.random.key(1), (2, 8))
    last = lambda flow: continuous_flows(flow)[0].field.layers[-1].linear.weight  # noqa: E731
    return eqx.tree_at(last, flow, weight)


def test_they_are_those_of_flowjax():
    for flow in (
        Transformed(StandardNormal((2,)), Affine(jnp.ones(2), 2 * jnp.ones(2))),
        fully_connected_energy_flow(jax.random.key(0), 2, depth=1),
    ):
        np.testing.assert_allclose(log_prob_of_rows(flow, X), flow.log_prob(X), rtol=1e-5)
        np.testing.assert_allclose(draw(flow, KEY, 5), flow.sample(KEY, (5,)), rtol=1e-5)


def test_a_solver_that_runs_out_of_steps_is_told_both_ways():
    """flowjax gives -inf, and rows of NaN."""
    flow = steep(3.0, max_steps=2)
    with pytest.raises(InputError, match=r"row 1: continuous flow 1: .*in 2 steps.*max_steps"):
        log_prob_of_rows(flow, X)
    with pytest.raises(InputError, match=r"draw 1: continuous flow 1: .*in 2 steps.*max_steps"):
        draw(flow, KEY, 4)


def test_a_field_that_is_not_finite_is_told_both_ways():
    flow = steep(jnp.nan)
    for call in (lambda: log_prob_of_rows(flow, X), lambda: draw(flow, KEY, 4)):
        with pytest.raises(InputError, match=r"its vector field is not finite.*start anew"):
            call()


def test_a_singular_layer_is_told_both_ways():
    flow = fully_connected_energy_flow(jax.random.key(0), 2, depth=1)
    flow = jax.tree.map(lambda leaf: 0 * leaf if jnp.ndim(leaf) == 2 else leaf, flow)
    assert isinstance(flow, EnergyFlow)
    for call in (lambda: log_prob_of_rows(flow, X), lambda: draw(flow, KEY, 4)):
        with pytest.raises(InputError, match=r"layer \d, FullLinear, is singular"):
            call()


def test_what_is_asked_for_is_checked():
    flow = Transformed(StandardNormal((2,)), Affine(jnp.ones(2), 2 * jnp.ones(2)))
    with pytest.raises(InputError, match=r"n: found 0"):
        draw(flow, KEY, 0)
    with pytest.raises(InputError, match=r"rows: found shape \(6, 1\) for a flow of shape \(2,\)"):
        log_prob_of_rows(flow, X[:, :1])
    spoiled = X.copy()
    spoiled[2, 1] = np.nan
    with pytest.raises(InputError, match="row 3 is not finite"):
        log_prob_of_rows(flow, spoiled)
    spoiled[2, 1] = 1e30
    with pytest.raises(InputError, match=r"row 3: the flow is not finite there.*outlier"):
        log_prob_of_rows(flow, spoiled)
