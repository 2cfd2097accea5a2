"""A flow that cannot be integrated: the cause and the remedy in one line."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import StandardNormal

from tiltflow.data.errors import InputError
from tiltflow.models.continuous import ContinuousFlow, continuous_flow, continuous_flows
from tiltflow.models.failed_solves import check_solves
from tiltflow.models.integration import Integration

X = jnp.asarray(np.random.default_rng(1).normal(size=(4, 2)), jnp.float32)


def steep(speed, **integration):
    """A flow whose last layer is drawn at scale `speed`."""
    new = continuous_flow(
        jax.random.key(0), StandardNormal((2,)), widths=(8,), integration=Integration(**integration)
    )
    weight = speed * jax.random.normal(jax.random.key(1), (2, 8))
    return eqx.tree_at(
        lambda flow: continuous_flows(flow)[0].field.layers[-1].linear.weight, new, weight
    )


def test_a_flow_that_arrives_is_accepted():
    check_solves(steep(0.3), X)


def test_too_few_steps_are_told_with_every_remedy():
    with pytest.raises(InputError, match=r"did not arrive in 2 steps at tolerance 1e-05.*float64"):
        check_solves(steep(3.0, max_steps=2), X)


def test_a_field_that_is_not_finite_is_told_with_its_row():
    with pytest.raises(InputError, match=r"not finite at row 1\b"):
        check_solves(steep(jnp.nan), X)
    with pytest.raises(InputError, match=r"not finite at row 3\b"):
        check_solves(steep(1.0), X.at[2, 0].set(jnp.nan))


class Explosive(eqx.Module):
    """f = x^3, which reaches infinity."""

    dimension: int = 2
    width: int = 2

    def enter(self, t, x):
        return x

    def leave(self, t, hidden):
        return -1e3 * hidden**3

    def __call__(self, t, x):
        return self.leave(t, x)


def test_equal_steps_that_explode_are_told():
    new = steep(1.0)
    field = Explosive()
    flow = eqx.tree_at(
        lambda flow: flow.bijection,
        new,
        ContinuousFlow(field, integration=Integration(steps=4), end_time=1.0),
    )
    with pytest.raises(InputError, match="4 equal steps left the finite numbers"):
        check_solves(flow, X)
