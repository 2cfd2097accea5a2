"""Draws of a density given some of the coordinates: chains that move the unknown ones only.

p(x_U | x_K) is p(x) up to a constant, so that no model of its own is needed. A sweep is an
independent Metropolis-Hastings move from a Gaussian mixture conditioned on x_K, which crosses
between what modes are left, and MALA in the coordinates in which the likeliest component is round,

    x = m + F z,      F F^T = P_UU^-1,

where known coordinates have zero rows in F. The step size adapts in the first half of the sweeps
and is frozen in the second. One point is conditioned on at a time; `vmap` serves a table with holes
wherever they are.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from tiltflow.models.conditional_mixture import condition, draw
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.sampling import adaptation
from tiltflow.sampling.chains import LogDensity, refresh
from tiltflow.sampling.independent import Proposals, independent_metropolis_hastings
from tiltflow.sampling.kernels import local_moves, target_acceptance

POOL = 8
"""Draws of the mixture for each chain, of which its start is one, by importance."""


class ConditionalDraws(NamedTuple):
    """Where the chains end, and the mean acceptance rates of the frozen half of the sweeps."""

    position: Float[Array, "draws d"]
    global_acceptance_rate: Float[Array, ""]
    local_acceptance_rate: Float[Array, ""]


def sample_given(
    key: PRNGKeyArray,
    log_density: LogDensity,
    mixture: GaussianMixture,
    x: Float[Array, " d"],
    known: Bool[Array, " d"],
    *,
    draws: int,
    sweeps: int,
    local_steps: int,
) -> ConditionalDraws:
    """The ends of `draws` chains of `sweeps` that leave p(x_U | x_K) invariant.

    `log_density` and `mixture` are of the same coordinates; the mixture need only overlap.
    """
    start_key, choice_key, run_key = jax.random.split(key, 3)
    conditional = condition(mixture, x, known)
    likeliest = conditional.log_weights.argmax()
    mean, factor = conditional.means[likeliest], conditional.factors[likeliest]
    inverse = conditional.inverses[likeliest]

    def density(z: Float[Array, " d"]) -> Float[Array, ""]:
        return log_density(mean + factor @ z)

    def to_z(points: Float[Array, "n d"]) -> Float[Array, "n d"]:
        return (points - mean) @ inverse.T

    def log_proposal(z: Float[Array, "n d"]) -> Float[Array, " n"]:
        # Up to the density of what is known.
        return mixture.log_prob(mean + z @ factor.T)

    def propose(proposal_key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        return to_z(draw(proposal_key, conditional, n))

    def sweep(carry: Any, step: tuple[PRNGKeyArray, Array]) -> tuple[Any, Any]:
        chains, step_size, adapting = carry
        sweep_key, warm = step
        proposal_key, accept_key, local_key = jax.random.split(sweep_key, 3)
        points = propose(proposal_key, draws)
        offered = Proposals(refresh(points, density), log_proposal(points))
        chains, _, global_rate = independent_metropolis_hastings(
            accept_key, chains, log_proposal(chains.position), offered
        )
        chains, local = local_moves("mala", local_key, chains, density, step_size, local_steps)
        updated = adaptation.update(adapting, local.acceptance_rate, target_acceptance("mala"))
        adapting = jax.tree.map(lambda a, b: jnp.where(warm, a, b), updated, adapting)
        step_size = jnp.where(warm, adaptation.current(adapting), adaptation.final(adapting))
        return (chains, step_size, adapting), (global_rate, local.acceptance_rate)

    pool = propose(start_key, POOL * draws)
    log_weights = jax.vmap(density)(pool) - log_proposal(pool)
    log_weights = jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf)
    rows = jax.random.choice(choice_key, len(pool), (draws,), p=jax.nn.softmax(log_weights))
    chains = refresh(pool[rows], density)
    step_size = adaptation.first_step_size(chains.position)
    carry = (chains, step_size, adaptation.init(step_size))
    warm = jnp.arange(sweeps) < sweeps // 2
    carry, rates = jax.lax.scan(sweep, carry, (jax.random.split(run_key, sweeps), warm))
    frozen = sweeps - sweeps // 2
    global_rate, local_rate = (each[-frozen:].mean() for each in rates)
    # What is known is given back to the last bit.
    position = jnp.where(known, x, mean + carry[0].position @ factor.T)
    return ConditionalDraws(position, global_rate, local_rate)
