"""Annealed paths: exact as a move, in any coordinates, unbiased as weights; mutants are not.

As for all kernels: 16 384 chains start from exact draws, and moments over the chains' way stay
within 4 standard errors; of the moves between two of six cells half go each way, within 4.5
standard deviations.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.sampling.chains import Chains, refresh
from tiltflow.sampling.independent import Proposals, independent_metropolis_hastings
from tiltflow.sampling.kernels import Preconditioner
from tiltflow.sampling.paths import AnnealedPath, annealed_independent_move, path_between
from tiltflow.sampling.recording import weigh_paths
from tiltflow.sampling.sweep import FrozenKernel, sweep

CHAINS = 16_384
SWEEPS = 8
LEVEL = 4.0


def gaussian(mean, scale):
    return GaussianMixture(np.ones(1), np.full((1, 1), mean), np.full((1, 1, 1), scale**2))


def z_of(moments, expected):
    moments = np.asarray(moments, float)
    return np.abs((moments.mean(0) - expected) / (moments.std(0) / len(moments) ** 0.5)).max()


def z_of_flux(before, after):
    edges = [-1.2, -0.5, 0.0, 0.5, 1.2]
    counts = np.zeros((6, 6))
    np.add.at(counts, (np.digitize(before, edges), np.digitize(after, edges)), 1)
    total = counts + counts.T
    return (np.abs(counts - counts.T) / np.sqrt(np.maximum(total, 1)))[total >= 20].max()


TARGET = GaussianMixture(
    np.array([0.6, 0.4]), np.array([[-1.5], [1.5]]), np.array([[[0.3]], [[0.4]]])
)
TARGET_MOMENTS = np.array([0.0 - 0.3, 0.6 * 0.3 + 0.4 * 0.4 + 2.25])
FLOW = gaussian(0.8, 1.2)
LOG_Z = 2.0


def log_density(x):
    return TARGET.log_prob(x) + LOG_Z


PATH = AnnealedPath(jnp.asarray([0.25, 0.6]), jnp.asarray([0.4, 0.3]))
SCALED = PATH._replace(preconditioner=Preconditioner(jnp.asarray([0.8])))


@eqx.filter_jit
def run_annealed(key, mutant, path):
    start_key, run_key = jax.random.split(key)
    start = refresh(TARGET.sample(start_key, (CHAINS,)), log_density)

    def move(chains, key):
        def right(key, chains):
            return annealed_independent_move(key, chains, log_density, FLOW, path)

        def wrong(key, chains):
            """The path's end competes with the chain's own weight, not that of a path."""
            path_key, accept_key = jax.random.split(key)
            lost = chains._replace(log_density=jnp.full(CHAINS, -jnp.inf))
            ends, _, _, log_weights, own = right(path_key, lost)
            moved, accepted, rate = independent_metropolis_hastings(
                accept_key,
                chains,
                FLOW.log_prob(chains.position),
                Proposals(ends, ends.log_density - log_weights),
            )
            return moved, accepted, rate, log_weights, own

        chains, _, rate, log_weights, own = jax.lax.cond(mutant, wrong, right, key, chains)
        x = chains.position[:, 0]
        return chains, (jnp.stack([x, x**2], -1), x, rate, log_weights, own)

    chains, (moments, x, rate, *log_weights) = jax.lax.scan(
        move, start, jax.random.split(run_key, SWEEPS)
    )
    return chains, moments.mean(0), start.position[:, 0], x[0], rate.mean(), log_weights


@pytest.mark.parametrize("path", [PATH, SCALED])
def test_annealed_paths_leave_the_target_alone(key, path):
    """Up, E[w] is Z and down, E[1 / w] is 1 / Z, within 4.5 standard errors."""
    found = run_annealed(key, jnp.asarray(False), path)
    chains, moments, before, after, rate, (up, down) = found
    assert z_of(moments, TARGET_MOMENTS) < LEVEL
    assert z_of_flux(before, after) < 4.5
    assert 0.3 < float(rate) < 1
    # Weights of one chain's paths are not independent: the means of the chains are.
    for log_weights in (np.asarray(up, float) - LOG_Z, LOG_Z - np.asarray(down, float)):
        weights = np.exp(log_weights).mean(0)
        assert abs(weights.mean() - 1) < 4.5 * weights.std() / weights.size**0.5
    fresh = jax.jit(lambda x: refresh(x, log_density))(chains.position)
    np.testing.assert_allclose(chains.gradient, fresh.gradient, rtol=1e-4, atol=1e-5)


def test_a_path_that_the_chain_does_not_pay_for_is_caught(key):
    _, moments, before, after, _, _ = run_annealed(key, jnp.asarray(True), PATH)
    assert z_of(moments, TARGET_MOMENTS) > 2 * LEVEL
    assert z_of_flux(before, after) > 4.5


def test_a_path_of_one_step_is_independent_metropolis_hastings(key):
    """Its weights are those of the flow's own draws."""
    chains = Chains(*(jnp.zeros(s) for s in ((50, 1), 50, (50, 1))))
    path = AnnealedPath(jnp.zeros(0), jnp.zeros(0))
    move = eqx.filter_jit(annealed_independent_move)
    ends, moved, _, log_weights, own = move(key, chains, log_density, FLOW, path)
    ends = ends.position[moved]
    expected = jax.vmap(log_density)(ends) - FLOW.log_prob(ends)
    np.testing.assert_allclose(log_weights[moved], expected, rtol=1e-4, atol=1e-5)
    at_chains = log_density(jnp.zeros(1)) - FLOW.log_prob(jnp.zeros(1))
    np.testing.assert_allclose(own, np.full(50, at_chains), rtol=1e-4)


def test_the_ends_of_paths_carry_the_weights_of_the_target(key):
    """The weighted moments of 16 384 ends, within 4 standard errors by the delta method."""
    ends, log_weights = weigh_paths(key, log_density, FLOW, CHAINS, PATH)
    x, weights = np.asarray(ends, float)[:, 0], np.exp(np.asarray(log_weights, float))
    weights /= weights.sum()
    for values, expected in zip((x, x**2), TARGET_MOMENTS):
        mean = weights @ values
        assert abs(mean - expected) < LEVEL * np.sqrt(weights**2 @ (values - mean) ** 2)


def test_a_sweep_with_a_path_records_the_weights_of_paths(key):
    """Its log ratios are those of the chains' own paths, not of their places."""
    chains = refresh(TARGET.sample(key, (500,)), log_density)
    kernel = FrozenKernel("mala", 1, jnp.asarray(0.1), path=PATH)
    _, record = eqx.filter_jit(sweep)(key, chains, log_density, FLOW, kernel)
    global_key, _ = jax.random.split(key)
    move = eqx.filter_jit(annealed_independent_move)
    expected = move(global_key, chains, log_density, FLOW, PATH)
    np.testing.assert_allclose(record.log_ratio, expected[4], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(record.moved, expected[1])
    assert 0.3 < float(record.global_acceptance_rate) < 1
    assert float(record.nan_share) == 0


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_between_gaussians_a_path_rises_in_a_geometric_row_of_precisions(key, width):
    """From slopes of 4000 points at each end, known to a few per cent."""
    flow, target = gaussian(0.0, width), gaussian(0.0, 1.0)
    position = target.sample(key, (4000,))
    path = path_between(key, target.log_prob, flow, position, jnp.asarray(0.3), 5)
    precisions = width ** (-2 * (1 - np.arange(1, 6) / 6))
    b = np.asarray(path.temperatures)
    assert ((b > 0) & (b < 1)).all() and (np.diff(b) > 0).all()
    np.testing.assert_allclose((1 - b) / width**2 + b, precisions, rtol=0.1)
    np.testing.assert_allclose(path.step_sizes, 0.3 / precisions, rtol=0.1)
