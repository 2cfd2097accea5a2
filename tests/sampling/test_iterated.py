"""i-SIR: it stays at its target and is reversible, its mutants do not; the choice of its size.

Invariance: 4096 chains start from exact draws; the moments, over the chains' way, must be those of
the target within 4 standard errors (about 6e-5 a moment). Reversibility: of the c moves between
two of six cells half go each way, within 4.5 standard deviations.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.sampling.chains import Chains, refresh
from tiltflow.sampling.iterated import choose_global_kernel, iterated_resampling
from tiltflow.sampling.local import mala

CHAINS = 4096
SWEEPS = 12
LEVEL = 4.0
# Moments of the standard normal in one dimension: mean and mean square.
MOMENTS = np.array([0.0, 1.0])


def gaussian(mean, scale, d=1):
    return GaussianMixture(np.ones(1), np.full((1, d), mean), scale**2 * np.eye(d)[None])


TARGET = gaussian(0.0, 1.0)
FLOW = gaussian(0.7, 1.5)
# An unnormalised target: log Z is the log of what it is multiplied with.
LOG_Z = 3.0


def log_density(x):
    return TARGET.log_prob(x) + LOG_Z


MUTANTS = ["no mutation", "no proposal term", "wrong sign", "no current point", "stale weight"]


def mutant_move(key, chains, mutant):
    """Resampling among own point and 3 draws, written out, with one mistake."""
    draw_key, choice_key = jax.random.split(key)
    points, log_q = FLOW.sample_and_log_prob(draw_key, (3, len(chains.position)))
    log_p = jax.vmap(jax.vmap(log_density))(points)
    own_log_p, own_log_q = chains.log_density, FLOW.log_prob(chains.position)

    def of(which):
        return mutant == MUTANTS.index(which)

    log_w = jnp.where(of("no proposal term"), log_p, log_p - log_q)
    own = jnp.where(of("no proposal term"), own_log_p, own_log_p - own_log_q)
    sign = jnp.where(of("wrong sign"), -1, 1)
    log_w, own = sign * log_w, sign * own
    own = jnp.where(of("no current point"), -jnp.inf, own)
    own = jnp.where(of("stale weight"), own[0], own)
    rows = jax.random.categorical(choice_key, jnp.vstack([own, log_w]), axis=0)
    every = jnp.concatenate([chains.position[None], points])
    return refresh(jnp.take_along_axis(every, rows[None, :, None], 0)[0], log_density)


@eqx.filter_jit
def run(key, move, with_mala):
    """Moments on the chains' way, positions before and after one sweep, and what `move` tells."""
    start_key, run_key = jax.random.split(key)
    start = refresh(TARGET.sample(start_key, (CHAINS,)), log_density)

    def sweep(chains, key):
        global_key, local_key = jax.random.split(key)
        chains, told = move(global_key, chains)
        chains = jax.lax.cond(
            with_mala,
            lambda chains: mala(local_key, chains, log_density, jnp.asarray(0.3), 1)[0],
            lambda chains: chains,
            chains,
        )
        x = chains.position[:, 0]
        return chains, (jnp.stack([x, x**2], -1), x, told)

    _, (moments, x, told) = jax.lax.scan(sweep, start, jax.random.split(run_key, SWEEPS))
    return moments.mean(0), start.position[:, 0], x[0], told


@eqx.filter_jit
def run_right(key, proposals, with_mala):
    def move(key, chains):
        log_q = FLOW.log_prob(chains.position)
        chains, _, rate, log_weights = iterated_resampling(
            key, chains, log_q, log_density, FLOW, proposals, 2
        )
        return chains, (rate, log_weights)

    return run(key, move, with_mala)


@eqx.filter_jit
def run_mutant(key, mutant):
    return run(key, lambda key, chains: (mutant_move(key, chains, mutant), 0), jnp.asarray(False))


def z_of_moments(moments):
    moments = np.asarray(moments, float)
    return np.abs((moments.mean(0) - MOMENTS) / (moments.std(0) / CHAINS**0.5)).max()


def z_of_flux(before, after):
    edges = [-1.2, -0.5, 0.0, 0.5, 1.2]
    counts = np.zeros((6, 6))
    np.add.at(counts, (np.digitize(before, edges), np.digitize(after, edges)), 1)
    total = counts + counts.T
    return (np.abs(counts - counts.T) / np.sqrt(np.maximum(total, 1)))[total >= 20].max()


@pytest.mark.parametrize("with_mala", [False, True])
@pytest.mark.parametrize("proposals", [1, 6])
def test_it_stays_at_its_target(key, proposals, with_mala):
    moments, before, after, (rate, log_weights) = run_right(key, proposals, jnp.asarray(with_mala))
    assert z_of_moments(moments) < LEVEL
    if not with_mala:
        assert z_of_flux(before, after) < 4.5
        moved = (np.asarray(before) != np.asarray(after)).mean()
        assert abs(moved - float(rate[0])) < 4.5 * 0.5 / CHAINS**0.5
    # The weights of all draws estimate log Z.
    weights = np.exp(np.asarray(log_weights, float))
    assert weights.shape == (SWEEPS, proposals, CHAINS)
    error = weights.mean() / np.exp(LOG_Z) - 1
    assert abs(error) < 4.5 * weights.std() / weights.mean() / weights.size**0.5


def test_more_proposals_move_more_chains(key):
    one, six = (run_right(key, m, jnp.asarray(False))[3][0].mean() for m in (1, 6))
    assert six > one + 0.2


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(key, mutant):
    moments, before, after, _ = run_mutant(key, jnp.asarray(MUTANTS.index(mutant)))
    if mutant == "no mutation":
        assert z_of_moments(moments) < LEVEL
        assert z_of_flux(before, after) < 4.5
        return
    assert z_of_moments(moments) > 2 * LEVEL
    # A weight that is wrong by chance alone shows only after many moves.
    assert mutant == "stale weight" or z_of_flux(before, after) > 4.5


@jax.jit
def compiled_offer(key, own_log_density, own_log_q, wall):
    """One move of chains at 0 where draws beyond the wall have the density nan."""

    def walled(x):
        return jnp.where(x[0] > wall, jnp.nan, -0.5 * x[0] ** 2)

    n = 50
    chains = Chains(jnp.zeros((n, 1)), jnp.full(n, own_log_density), jnp.zeros((n, 1)))
    return iterated_resampling(key, chains, jnp.full(n, own_log_q), walled, FLOW, 4, 2)


def offer(key, *numbers):
    return compiled_offer(key, *map(jnp.asarray, numbers))


def test_draws_that_are_not_finite_are_never_chosen(key):
    after, moved, rate, log_weights = offer(key, -30.0, 0.0, 0.5)
    assert np.isfinite(after.log_density).all()
    assert after.position.max() <= 0.5
    assert 0 < moved.mean() < 1
    assert np.isnan(log_weights).any()  # as they came
    after, moved, rate, _ = offer(key, -30.0, 0.0, -jnp.inf)
    assert not moved.any()
    assert rate == 0
    assert (after.position == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_chain_whose_own_weight_is_not_finite_does_not_freeze(key, bad):
    for own in ((bad, 0.0), (0.0, bad)):
        after, moved, rate, _ = offer(key, *own, np.inf)
        assert moved.all()
        assert rate == 1
        np.testing.assert_allclose(after.gradient, -after.position, rtol=1e-5)


def test_no_proposals_are_refused(key):
    chains = Chains(jnp.zeros((4, 1)), jnp.zeros(4), jnp.zeros((4, 1)))
    with pytest.raises(InputError, match="proposals: found 0"):
        iterated_resampling(key, chains, jnp.zeros(4), log_density, FLOW, 0)


def log_weights_of(sigma, n=4096):
    """Log-normal weights of unit mean: at draws of the flow, and at draws of the target."""
    normal = sigma * np.random.default_rng(0).standard_normal((2, n))
    return normal[0] - sigma**2 / 2, normal[1] + sigma**2 / 2


def test_a_good_flow_needs_one_proposal():
    fresh, own = log_weights_of(0.5)
    assert choose_global_kernel(own, fresh, 1.0, 1.0) == 1


def test_a_poor_flow_pays_for_more_where_the_local_sweep_is_dear():
    fresh, own = log_weights_of(3.0)
    dear, cheap = (choose_global_kernel(own, fresh, 1.0, cost) for cost in (50.0, 0.1))
    assert dear >= 8
    assert cheap == 1


def test_the_choice_knows_of_a_place_that_the_flow_misses():
    """By the flow's draws alone it is perfect; the chains sit where it seldom goes."""
    fresh, own = np.zeros(1000), np.full(500, 4.0)
    assert choose_global_kernel(fresh, fresh, 1.0, 20.0) == 1
    assert choose_global_kernel(own, fresh, 1.0, 20.0) > 4


def test_the_choice_survives_weights_that_are_not_finite():
    fresh, own = log_weights_of(1.0)
    fresh[::7], own[::5] = np.nan, np.inf
    assert choose_global_kernel(own, fresh, 1.0, 1.0) >= 1
    assert choose_global_kernel(np.full(4, np.nan), fresh, 1.0, 1.0) == 1
    assert choose_global_kernel(own, np.full(4, -np.inf), 1.0, 1.0) == 1
    assert choose_global_kernel(own * 1e4, fresh * 1e4, 1.0, 1.0) >= 1
