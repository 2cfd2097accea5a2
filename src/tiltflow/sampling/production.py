"""Draws of a fitted model from frozen kernels: what a user gets as samples.

Chains start at flow draws resampled by their importance weights, then alternate independent
Metropolis-Hastings and MALA with nothing adapting, so every move leaves the model invariant.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import refresh
from tiltflow.sampling.independent import Proposals, independent_metropolis_hastings
from tiltflow.sampling.local import mala


@eqx.filter_jit
def draw_samples(
    key: PRNGKeyArray,
    model: TiltedEBM,
    flow: AbstractDistribution,
    step_size: Float[Array, ""],
    chains: int,
    sweeps: int,
    local_steps: int,
) -> Float[Array, "chains d"]:
    """The positions of `chains` independent chains after `sweeps` of one global and local moves."""
    start_key, choice_key, run_key = jax.random.split(key, 3)
    pool, log_prob = flow.sample_and_log_prob(start_key, (4 * chains,))
    log_weights = jax.vmap(model.log_density)(pool) - log_prob
    log_weights = jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf)
    rows = jax.random.categorical(choice_key, log_weights, shape=(chains,))

    def sweep(state, sweep_key):
        proposal_key, global_key, local_key = jax.random.split(sweep_key, 3)
        points, proposal_log_prob = flow.sample_and_log_prob(proposal_key, (chains,))
        proposals = Proposals(refresh(points, model.log_density), proposal_log_prob)
        state, _, _ = independent_metropolis_hastings(
            global_key, state, flow.log_prob(state.position), proposals
        )
        state, _ = mala(local_key, state, model.log_density, step_size, local_steps)
        return state, None

    state = refresh(pool[rows], model.log_density)
    state, _ = jax.lax.scan(sweep, state, jax.random.split(run_key, sweeps))
    return state.position
