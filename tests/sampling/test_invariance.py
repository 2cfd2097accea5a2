"""Kernels leave their target invariant; the mutants beside them do not, and are caught.

4096 chains start from exact draws of the target. The means of x_i and x_i x_j, over the chains and
along their way, must be those of the target within `LEVEL` standard errors (two-sided, about 6e-5
a moment, seeds fixed); the chains are independent, so their time averages give the error. Every
mutant is one mistake that was made in practice; the same test must refuse it.

All moves are branches of one compiled function, and all targets mixtures of two.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.sampling.chains import refresh
from tiltflow.sampling.independent import Proposals, independent_metropolis_hastings
from tiltflow.sampling.local import mala

CHAINS = 4096
SWEEPS = 20
LEVEL = 4.0

COVARIANCE = np.array([[1.0, 0.6], [0.6, 0.8]])
HALVES = np.array([0.7, 0.3])
# name: weights, means, covariances of the target
TARGETS = {
    "standard": (HALVES, np.zeros((2, 2)), np.tile(np.eye(2), (2, 1, 1))),
    "correlated": (HALVES, np.zeros((2, 2)), np.tile(COVARIANCE, (2, 1, 1))),
    "mixture": (
        HALVES,
        np.array([[-1.2, 0.0], [1.2, 0.5]]),
        np.array([[[0.5, 0.2], [0.2, 0.3]], [[0.3, -0.1], [-0.1, 0.4]]]),
    ),
}
# Proposals N(mean, scale^2 I), deliberately off.
PROPOSALS = {"shifted": (1.0, 1.2), "wide": (0.0, 2.0)}


def target_and_moments(name):
    weights, means, covariances = TARGETS[name]
    second = np.einsum("k,kij->ij", weights, covariances + means[:, :, None] * means[:, None])
    moments = np.array([*(weights @ means), second[0, 0], second[0, 1], second[1, 1]])
    return GaussianMixture(weights, means, covariances), moments


def products(x):
    """The five monomials of degree one and two of points (n, 2)."""
    return jnp.column_stack([x, x[:, 0] ** 2, x[:, 0] * x[:, 1], x[:, 1] ** 2])


def gaussian(mean, scale):
    return GaussianMixture(np.ones(1), np.full((1, 2), mean), scale**2 * np.eye(2)[None])


def imh(key, chains, kept, proposals, proposal):
    log_prob = proposal.log_prob(chains.position)
    chains, _, _ = independent_metropolis_hastings(key, chains, log_prob, proposals)
    return chains, kept


def local(key, chains, log_density):
    return mala(key, chains, log_density, jnp.asarray(0.2), 1)[0]


def accept_by(log_ratio_of):
    """A wrong IMH: `log_ratio_of` gets log p and log q, new and old, as four arrays."""

    def move(key, chains, kept, proposals, proposal):
        log_ratio = log_ratio_of(
            proposals.chains.log_density,
            proposals.log_prob,
            chains.log_density,
            proposal.log_prob(chains.position),
        )
        accepted = jnp.log(jax.random.uniform(key, (CHAINS,))) < log_ratio
        chains = jax.tree.map(
            lambda new, old: jnp.where(accepted.reshape(-1, *[1] * (new.ndim - 1)), new, old),
            proposals.chains,
            chains,
        )
        return chains, kept

    return move


def imh_with_kept_log_prob(key, chains, kept, proposals, proposal):
    """Log q at the chains is that of their last global state."""
    log_q, log_w = kept
    moved, accepted, _ = independent_metropolis_hastings(key, chains, log_q, proposals)
    return moved, (jnp.where(accepted, proposals.log_prob, log_q), log_w)


def imh_with_kept_weight(key, chains, kept, proposals, proposal):
    """The published bug: both log p and log q, and so the weight, are of the last global state."""
    log_q, log_w = kept
    stale = chains.log_density - log_w
    moved, accepted, _ = independent_metropolis_hastings(key, chains, stale, proposals)
    return moved, (log_q, jnp.where(accepted, proposals.log_weights, log_w))


def no_global_move(key, chains, kept, proposals, proposal):
    return chains, kept


def no_local_move(key, chains, log_density):
    return chains


GLOBAL_MUTANTS = {
    "wrong sign of log q": accept_by(lambda p, q, p_old, q_old: (p + q) - (p_old + q_old)),
    "swapped ratio": accept_by(lambda p, q, p_old, q_old: (p_old - q_old) - (p - q)),
    "no proposal term": accept_by(lambda p, q, p_old, q_old: p - p_old),
    "always accepted": accept_by(lambda p, q, p_old, q_old: jnp.zeros_like(p)),
}


def mala_mutant(sign, with_proposal_term):
    """One MALA step written out, with the sign of its log-ratio and its proposal term at will."""
    h = 0.2

    def move(key, chains, log_density):
        noise_key, accept_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, chains.position.shape)
        y = chains.position + h * chains.gradient + jnp.sqrt(2 * h) * noise
        new = refresh(y, log_density)

        def log_q(to, start):
            return -((to.position - start.position - h * start.gradient) ** 2).sum(-1) / (4 * h)

        log_ratio = new.log_density - chains.log_density
        if with_proposal_term:
            log_ratio += log_q(chains, new) - log_q(new, chains)
        accepted = jnp.log(jax.random.uniform(accept_key, (CHAINS,))) < sign * log_ratio
        return jax.tree.map(
            lambda new, old: jnp.where(accepted.reshape(-1, *[1] * (new.ndim - 1)), new, old),
            new,
            chains,
        )

    return move


LOCAL_MUTANTS = {
    "wrong sign": mala_mutant(-1, True),
    "no proposal term": mala_mutant(1, False),
}


GLOBAL_MOVES = {
    "none": no_global_move,
    "imh": imh,
    "no mutation": accept_by(lambda p, q, p_old, q_old: (p - q) - (p_old - q_old)),
    "stale log q": imh_with_kept_log_prob,
    "stale weight": imh_with_kept_weight,
} | GLOBAL_MUTANTS
LOCAL_MOVES = {
    "none": no_local_move,
    "mala": local,
    "no mutation": mala_mutant(1, True),
} | LOCAL_MUTANTS


@eqx.filter_jit
def run(key, target, proposal, global_index, local_index):
    """The monomials (chains, 5), averaged over the chains' way, from exact draws on."""
    log_density = target.log_prob
    start_key, run_key = jax.random.split(key)
    chains = refresh(target.sample(start_key, (CHAINS,)), log_density)
    # What the chains would carry if the proposal's log-density were kept with them.
    log_q = proposal.log_prob(chains.position)
    kept = (log_q, chains.log_density - log_q)
    global_moves = [
        lambda *args, move=move: move(*args, proposal) for move in GLOBAL_MOVES.values()
    ]
    local_moves = [
        lambda key, chains, move=move: move(key, chains, log_density)
        for move in LOCAL_MOVES.values()
    ]

    def sweep(carry, sweep_key):
        chains, kept, total = carry
        draw_key, global_key, local_key = jax.random.split(sweep_key, 3)
        points, log_prob = proposal.sample_and_log_prob(draw_key, (CHAINS,))
        proposals = Proposals(refresh(points, log_density), log_prob)
        chains, kept = jax.lax.switch(
            global_index, global_moves, global_key, chains, kept, proposals
        )
        total += products(chains.position)
        chains = jax.lax.switch(local_index, local_moves, local_key, chains)
        total += products(chains.position)
        return (chains, kept, total), None

    carry = (chains, kept, jnp.zeros((CHAINS, 5)))
    (_, _, total), _ = jax.lax.scan(sweep, carry, jax.random.split(run_key, SWEEPS))
    return total / (2 * SWEEPS)


def z_of(target_name, proposal_name, global_move, local_move):
    """The largest error of the five moments, in standard errors."""
    target, moments = target_and_moments(target_name)
    proposal = gaussian(*PROPOSALS[proposal_name])
    indices = [list(GLOBAL_MOVES).index(global_move), list(LOCAL_MOVES).index(local_move)]
    averages = run(jax.random.key(11), target, proposal, *map(jnp.asarray, indices))
    averages = np.asarray(averages, float)
    error = averages.mean(0) - moments
    return np.abs(error / (averages.std(0) / CHAINS**0.5)).max()


@pytest.mark.parametrize("target_name", ["correlated", "mixture"])
def test_mala_leaves_the_target_invariant(target_name):
    assert z_of(target_name, "wide", "none", "mala") < LEVEL


@pytest.mark.parametrize("proposal_name", PROPOSALS)
@pytest.mark.parametrize("target_name", ["standard", "mixture"])
def test_independent_moves_leave_the_target_invariant(target_name, proposal_name):
    assert z_of(target_name, proposal_name, "imh", "none") < LEVEL


@pytest.mark.parametrize("proposal_name", PROPOSALS)
@pytest.mark.parametrize("target_name", ["standard", "mixture"])
def test_alternation_leaves_the_target_invariant(target_name, proposal_name):
    assert z_of(target_name, proposal_name, "imh", "mala") < LEVEL


def test_the_mutants_frame_without_a_mutation_passes():
    """What catches the mutants is the mutation, not the code around it."""
    assert z_of("standard", "shifted", "no mutation", "no mutation") < LEVEL


@pytest.mark.parametrize("mutant", GLOBAL_MUTANTS)
def test_mutants_of_the_independent_move_are_caught(mutant):
    assert z_of("standard", "shifted", mutant, "none") > 2 * LEVEL


@pytest.mark.parametrize("mutant", LOCAL_MUTANTS)
def test_mutants_of_mala_are_caught(mutant):
    assert z_of("correlated", "wide", "none", mutant) > 2 * LEVEL


@pytest.mark.parametrize(
    ("proposal_name", "move"),
    [("shifted", "stale log q"), ("shifted", "stale weight"), ("wide", "stale weight")],
)
def test_what_is_kept_across_local_moves_is_caught(proposal_name, move):
    """As published, the mean of N(0, 1) comes out at 0.07, or its variance at 1.04."""
    z = z_of("standard", proposal_name, move, "mala")
    assert z > 2 * LEVEL
