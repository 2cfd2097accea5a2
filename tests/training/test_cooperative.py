"""Cooperative training: chains start at the flow, and the flow moves to where they end."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import Normal, StandardNormal

from tiltflow.data.errors import InputError
from tiltflow.models.flows import trainable
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.cooperative import LONGEST_STEP, Cooperative

BASE = StandardNormal((2,))
MODEL = TiltedEBM(BASE, lambda x: jnp.zeros(()))
FLOW = Normal(jnp.full(2, 3.0), 0.5 * jnp.ones(2))
N = 4000


def draws(source, key, steps=1, rate=1.0, model=MODEL):
    """`steps` draws in a row: the last negatives, the flow and every value of its loss."""
    static = trainable(FLOW)[1]

    @jax.jit
    def run(state, key):
        def step(state, key):
            negatives, state, figures = source.draw(
                key, model, static, state, jnp.zeros((1, 2)), jnp.asarray(rate)
            )
            return state, (negatives.position, negatives.weights, figures["flow_loss"])

        return jax.lax.scan(step, state, jax.random.split(key, steps))

    state, (position, weights, losses) = run(source.init(key, BASE, FLOW), key)
    np.testing.assert_array_equal(position[-1], state.position)
    np.testing.assert_allclose(weights[-1].sum(), 1, rtol=1e-5)
    return np.asarray(position[-1]), eqx.combine(state.flow, static), losses


def moments(flow):
    x = np.asarray(flow.sample(jax.random.key(7), (20_000,)))
    return x.mean(0), x.std(0)


def test_negatives_are_langevin_steps_from_the_flow(key):
    """Under N(0, 1), from N(3, 1/4), one step of h: (1 - h) of the mean, variance with 2 h more.

    4000 chains, level 4.5 standard errors; at rate 0 the flow stays as it is.
    """
    h = 0.2
    source = Cooperative(chains=N, local_steps=1, step_size=h)
    x, flow, _ = draws(source, key, rate=0.0)
    variance = (1 - h) ** 2 / 4 + 2 * h
    assert np.abs(x.mean(0) - 3 * (1 - h)).max() < 4.5 * (variance / N) ** 0.5
    assert np.abs(x.var(0) / variance - 1).max() < 4.5 * (2 / N) ** 0.5
    np.testing.assert_array_equal(flow.loc, FLOW.loc)


def test_the_flow_moves_towards_the_ends_step_by_step(key):
    """Its first step is as long as the learning rate, and it is downhill, towards 0."""
    source = Cooperative(chains=256, local_steps=5, step_size=0.1, flow_learning_rate=0.01)
    _, flow, _ = draws(source, key)
    np.testing.assert_allclose(flow.loc, 3.0 - 0.01, atol=1e-4)
    assert (flow.scale > 0.5).all()


def test_the_flow_comes_to_the_model(key):
    """Ends of 5 steps of 0.1 from a flow that is there already have variance 1 / (1 - h / 2)."""
    source = Cooperative(chains=256, local_steps=5, step_size=0.1, flow_learning_rate=0.05)
    _, flow, losses = draws(source, key, steps=400)
    mean, deviation = moments(flow)
    np.testing.assert_allclose(mean, 0.0, atol=0.15)
    np.testing.assert_allclose(deviation, 0.95**-0.5, atol=0.15)
    assert losses[-1] < losses[0]


def test_without_noise_the_chains_climb_by_bounded_steps(key):
    """The authors' setting: from x far out, 0.1 a step; near the top, (1 - h) of x a step."""
    source = Cooperative(chains=64, local_steps=4, step_size=0.05, noise=False)
    far = TiltedEBM(BASE, lambda x: jnp.sum(50.0 * x))
    x, _, _ = draws(source, key, rate=0.0, model=far)
    flow_key = jax.random.split(jax.random.split(key, 1)[0])[0]
    start = np.asarray(FLOW.sample(flow_key, (64,)))
    np.testing.assert_allclose(x, start - 4 * LONGEST_STEP, atol=1e-5)
    near, _, _ = draws(source, key, rate=0.0, model=TiltedEBM(BASE, lambda x: -2.5 * x.sum()))
    np.testing.assert_allclose(near, 2.5 + 0.95**4 * (start - 2.5), atol=1e-4)


def test_without_noise_the_flow_collapses(key):
    """No temperature, no spread: what is learned is a point, not the density of the model."""
    source = Cooperative(256, 5, 0.1, noise=False, flow_learning_rate=0.05)
    _, flow, _ = draws(source, key, steps=400)
    mean, deviation = moments(flow)
    np.testing.assert_allclose(mean, 0.0, atol=0.15)
    assert (deviation < 0.2).all()


def test_a_missing_flow_is_refused(key):
    with pytest.raises(InputError, match="flow: found None"):
        Cooperative().init(key, BASE, None)
    with pytest.raises(InputError, match=r"flow_learning_rate: found 0\.0"):
        Cooperative(flow_learning_rate=0.0)
