"""The warm-up's stages: what adapts in each, what is frozen, and when the lessons may end."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import Normal

from tiltflow.data.mixtures import two_modes
from tiltflow.models.gaussian_mixture import GaussianMixture, mixture_template
from tiltflow.sampling.chains import refresh
from tiltflow.sampling.coordinates import Rescaled
from tiltflow.training.adaptive_sweeps import (
    Learning,
    WarmUpSettings,
    initial_flow,
    initial_state,
    run_sweeps,
)
from tiltflow.training.bases import proposal_on
from tiltflow.training.lessons import DRIFT_CHUNKS, DRIFTING, drift
from tiltflow.training.steps import copy_arrays
from tiltflow.training.warm_up import _learning, _proposal

TARGET = two_modes()
SETTINGS = WarmUpSettings(chunk=3, local_steps=2, batch=64, reservoir=256, flow_steps=2)
LOG_DENSITY = eqx.Partial(TARGET.log_prob)


@pytest.fixture(scope="module")
def start():
    """Chains with a flow that proposes well."""
    covariance = np.asarray(TARGET.scale_trils @ jnp.swapaxes(TARGET.scale_trils, 1, 2), float)
    weights, means = (np.asarray(each, float) for each in (TARGET.weights, TARGET.means))
    flow = proposal_on(jax.random.key(0), GaussianMixture(weights, means, covariance), "affine")
    untaught, static = initial_flow(flow)
    position = TARGET.sample(jax.random.key(1), 64)
    return initial_state(LOG_DENSITY, position, untaught, SETTINGS), static


def run(start, learning):
    state, static = start
    inputs = (LOG_DENSITY, static, SETTINGS, learning, jax.random.key(2))
    return run_sweeps(inputs, copy_arrays(state))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_production_changes_nothing_but_the_chains(start):
    state, recording = run(start, _learning(adapts=False))
    assert same(state.flow, start[0].flow)
    assert same(state.adaptation, start[0].adaptation)
    assert same(state.preconditioner, start[0].preconditioner)
    assert not np.array_equal(state.chains.position, start[0].chains.position)
    assert 0.5 < float(recording.global_acceptance_rate.mean()) <= 1
    fresh = refresh(state.chains.position, LOG_DENSITY)
    np.testing.assert_allclose(state.chains.log_density, fresh.log_density, rtol=1e-4, atol=1e-4)


def test_exploration_has_no_global_moves(start):
    state, recording = run(start, _learning(proposes=False))
    assert not recording.moved.any() and np.isnan(recording.log_ratio).all()
    assert not same(state.adaptation, start[0].adaptation)
    assert same(state.flow, start[0].flow)


def test_lessons_change_the_flow_and_the_reservoir_holds_the_chains(start):
    state, recording = run(start, _learning(rate=1e-3))
    assert not same(state.flow.parameters, start[0].flow.parameters)
    assert int(state.flow.steps) == SETTINGS.chunk * SETTINGS.flow_steps
    assert int(state.seen) == SETTINGS.chunk * 64
    # Recorded before each sweep, remembered after it.
    np.testing.assert_array_equal(state.reservoir[:64], recording.position[1])


def test_all_stages_are_one_program():
    """Of one type, down to weakness: anything else compiles the sweeps again."""
    stages = [_learning(), _learning(rate=1e-3), _learning(proposes=False), _learning(adapts=False)]
    kinds = {tuple((x.shape, x.dtype, x.weak_type) for x in stage) for stage in stages}
    assert len(kinds) == 1
    assert isinstance(stages[0], Learning)


def moments(trend, *, chunks=DRIFT_CHUNKS, chains=200, seed=0):
    """Chunk means of chains with memory; `trend` is added from chunk to chunk, in deviations."""
    rng = np.random.default_rng(seed)
    own = 0.5 * rng.standard_normal((chains, 6))
    noise = rng.standard_normal((chunks, chains, 6))
    noise[..., 0] += trend * np.arange(chunks)[:, None]
    return list(own + noise)


def test_a_drift_is_seen_and_rest_is_not():
    """At rest: 100 runs of 6 moments, each below the limit (a normal exceeds 4.5 in 7 of 10^6)."""
    assert max(drift(moments(0.0, seed=seed)) for seed in range(100)) < DRIFTING
    assert drift(moments(0.03)) > DRIFTING
    # The mutant takes the chunks of one chain for the chains: it would see nothing.
    assert drift(moments(0.03)[:7]) == 0.0


def test_a_flow_of_the_user_keeps_its_density_in_other_coordinates():
    scale = jnp.array([100.0, 0.1])
    theirs = Normal(jnp.array([3.0, -1.0]), jnp.array([50.0, 0.2]))
    coordinates = Rescaled(LOG_DENSITY, jnp.array([7.0, 0.5]), scale)
    base = mixture_template(1, 2)
    ours = _proposal(jax.random.key(0), coordinates, theirs, base)
    z = jax.random.normal(jax.random.key(1), (5, 2))
    expected = theirs.log_prob(coordinates.to_user(z)) + jnp.log(scale).sum()
    np.testing.assert_allclose(ours.log_prob(z), expected, rtol=1e-4)
