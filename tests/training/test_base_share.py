"""Draws of the base among the proposals: a hole that neither flow nor chains see is found."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
import pytest
from flowjax.distributions import Normal
from scipy.stats import norm

from tiltflow.data.errors import InputError
from tiltflow.models.flows import trainable
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.balanced import Balanced

CHAINS, STEPS, SHARE = 1024, 200, 0.5
BASE = paramax.non_trainable(Normal(jnp.zeros(2), jnp.ones(2)))
FLOW = Normal(jnp.zeros(2), jnp.full(2, 0.3))


class Hole(eqx.Module):
    """Three nats deep from two deviations on; flat elsewhere, so that no gradient leads there."""

    def __call__(self, x):
        return jnp.where(x[0] > 2, -3.0, 0.0)


class Careless(Balanced):
    """The mutant: draws of the base are weighed as if the flow had made them."""

    def _propose(self, key, base, flow):
        points, _ = super()._propose(key, base, flow)
        return points, flow.log_prob(points)


@eqx.filter_jit
def shares_in_the_hole(source):
    """Of the negatives' weight, at every step; all chains start in the middle."""
    _, static = trainable(FLOW)
    model = TiltedEBM(BASE, Hole())
    state = source.init(jax.random.key(0), BASE, FLOW)
    state = state._replace(
        position=0.3 * state.position, log_step_size=jnp.full_like(state.log_step_size, -9.0)
    )
    nothing = jnp.zeros((1, 2))

    def step(state, key):
        negatives, state, _ = source.draw(key, model, static, state, nothing, jnp.asarray(0.0))
        return state, negatives.weights @ (negatives.position[:, 0] > 2)

    return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), STEPS))[1]


def truth():
    mass = norm.sf(2) * np.exp(3)
    return mass / (mass + norm.cdf(2))


def test_with_a_share_of_the_base_the_hole_gets_its_weight():
    """w is at most 28 times its mean, so 28 steps mix: 4 standard errors of 1024 chains."""
    late = float(shares_in_the_hole(Balanced(CHAINS, 1, base_share=SHARE))[100:].mean())
    error = np.sqrt(truth() * (1 - truth()) / CHAINS)
    assert abs(late - truth()) < 4 * error
    careless = float(shares_in_the_hole(Careless(CHAINS, 1, base_share=SHARE))[100:].mean())
    assert abs(careless - truth()) > 8 * error


def test_without_it_nobody_looks_there():
    # Later the local steps, which grow, get there by themselves.
    assert float(shares_in_the_hole(Balanced(CHAINS, 1))[:40].max()) < 1e-3


def test_a_share_that_leaves_the_flow_nothing_is_refused():
    with pytest.raises(InputError, match=r"base_share: found 1\.0; give a share below 1"):
        Balanced(base_share=1.0)
