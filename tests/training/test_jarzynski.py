"""Jarzynski's weights: exact while the model changes and the steps are coarse, with mutants."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import StandardNormal

from tiltflow.data.errors import InputError
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training import jarzynski
from tiltflow.training.jarzynski import Jarzynski

BASE = StandardNormal((2,))
LINEAR, CURVATURE = np.array([1.0, -0.5]), np.array([1.0, 2.0])
# At the end the energy is LINEAR . x + CURVATURE . x^2 / 2.
MEAN = -LINEAR / (1 + CURVATURE)
Z = np.prod(np.exp(LINEAR**2 / (2 * (1 + CURVATURE))) / np.sqrt(1 + CURVATURE))
SOURCE = Jarzynski(chains=256, step_size=0.3, threshold=0.8)
RATE = jnp.asarray(0.0)


class Share(eqx.Module):
    """This share of the energy of the end."""

    share: jax.Array

    def __call__(self, x):
        return self.share * (jnp.dot(LINEAR, x) + jnp.dot(CURVATURE, x**2) / 2)


def model_at(share):
    return TiltedEBM(BASE, Share(jnp.asarray(share)))


def replicate(key, source, ignored=0.0):
    """One run of 8 steps: Z, Z E[x] and Z E[x^2] (3, 2), and the effective shares on the way.

    The energy grows from 0.3 of its size, where the walkers do not start, to all of it, in steps
    of 0.3: at 0.67 the unadjusted chain would not even be stable in the narrow direction. With
    `ignored` at 1 the first weights leave out the first energy.
    """
    init_key, run_key = jax.random.split(key)
    state = source.init(init_key, BASE)
    first = jax.vmap(model_at(0.3).log_density)(state.position) + state.forward
    state = state._replace(forward=state.forward - ignored * first)

    def step(state, inputs):
        share, key = inputs
        negatives, state, figures = source.draw(
            key, model_at(share), None, state, jnp.zeros((1, 2)), RATE
        )
        x = negatives.position
        moments = jnp.stack([jnp.ones_like(x), x, x**2])
        moments = jnp.exp(figures["log_z"]) * jnp.einsum("n,knd->kd", negatives.weights, moments)
        return state, (moments, figures["effective_share"])

    shares = jnp.linspace(0.3, 1.0, 8)
    _, (moments, share) = jax.lax.scan(step, state, (shares, jax.random.split(run_key, 8)))
    return moments[-1], share


KEYS = jax.random.split(jax.random.key(1), 200)


def worst(moments):
    """The largest deviation of a mean over replicates from its exact value, in standard errors.

    All six are unbiased as they are, without self-normalisation. Of the right weights no standard
    error exceeds 0.01; where it does, 0.01 is taken, or wild weights would excuse themselves.
    """
    expected = Z * np.stack([np.ones(2), MEAN, 1 / (1 + CURVATURE) + MEAN**2])
    moments = np.asarray(moments, float)
    error = np.minimum(moments.std(axis=0) / len(KEYS) ** 0.5, 0.01)
    return np.nan_to_num(np.abs(moments.mean(axis=0) - expected) / error, nan=np.inf).max()


def test_the_weights_are_exact_while_the_model_changes():
    """Six exact values, seed 1, level 4 standard errors; walkers are resampled on the way."""
    moments, shares = jax.jit(jax.vmap(lambda key: replicate(key, SOURCE)))(KEYS)
    assert worst(moments) < 4
    assert 0.02 < (shares < SOURCE.threshold).mean() < 0.9


def test_several_steps_to_an_update_without_resampling_are_exact_too():
    """As above."""
    source = Jarzynski(chains=256, step_size=0.3, threshold=0.0, local_steps=3)
    moments, _ = jax.jit(jax.vmap(lambda key: replicate(key, source)))(KEYS)
    assert worst(moments) < 4


@pytest.fixture(scope="module")
def mutated():
    """The same, with factors on the three terms of a(x, y) and on the first energy."""

    @jax.jit
    def run(factors, ignored):
        def action(chains, displacement, step_size):
            work = -factors[0] * chains.log_density
            work -= factors[1] * jnp.sum(displacement * chains.gradient, axis=-1) / 2
            return work + factors[2] * step_size * jnp.sum(chains.gradient**2, axis=-1) / 4

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jarzynski, "_action", action)
            return jax.vmap(lambda key: replicate(key, SOURCE, ignored))(KEYS)[0]

    return lambda factors, ignored=0.0: worst(run(jnp.asarray(factors), jnp.asarray(ignored)))


MUTANTS = {
    "forward and backward swapped": (-1.0, -1.0, -1.0),
    "no correction for the move": (1.0, 0.0, 0.0),
    "the squared gradients left out": (1.0, 1.0, 0.0),
    "the sign of the displacement wrong": (1.0, -1.0, 1.0),
    "a half forgotten": (1.0, 2.0, 1.0),
}


@pytest.mark.parametrize("factors", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_wrong_action_is_caught(mutated, factors):
    assert mutated(factors) > 8


def test_the_mutants_frame_without_a_mutation_passes(mutated):
    assert mutated((1.0, 1.0, 1.0)) < 4


def test_a_start_that_ignores_the_first_energy_is_caught(mutated):
    assert mutated((1.0, 1.0, 1.0), 1.0) > 8


def test_weights_that_are_reset_without_resampling_are_caught(monkeypatch):
    monkeypatch.setattr(jarzynski, "systematic", lambda key, weights, n: jnp.arange(n))
    moments, _ = jax.jit(jax.vmap(lambda key: replicate(key, SOURCE)))(KEYS)
    assert worst(moments) > 8


def test_the_walkers_of_the_state_have_the_weights_of_the_last_model(key):
    """What a watcher reads: they stand for the model of the last draw, resampled or not."""
    source = Jarzynski(chains=4000, step_size=0.1, threshold=0.9)

    @jax.jit
    def two_steps(key):
        state = source.init(key, BASE)
        for share, step_key in zip((0.5, 1.0), jax.random.split(key)):
            model = model_at(share)
            _, state, _ = source.draw(step_key, model, None, state, jnp.zeros((1, 2)), RATE)
        return state

    state = two_steps(key)
    weights = jax.nn.softmax(state.log_weights)
    # Some 3000 effective walkers: four standard errors are 0.05.
    np.testing.assert_allclose(weights @ state.position, MEAN, atol=0.05)
    assert float(state.log_z) == pytest.approx(np.log(Z), abs=0.05)
    assert not np.array_equal(state.position, state.moved)


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"threshold: found 1\.5"):
        Jarzynski(threshold=1.5)
    with pytest.raises(InputError, match=r"step_size: found -0\.1"):
        Jarzynski(step_size=-0.1)
