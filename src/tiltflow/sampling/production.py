"""Draws of a fitted model from frozen kernels: what a user gets as samples.

One sweep is one independent Metropolis-Hastings move with a fresh flow draw and some MALA steps.
Nothing adapts, so every move leaves the model invariant.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import Chains, refresh
from tiltflow.sampling.independent import Proposals, independent_metropolis_hastings
from tiltflow.sampling.local import mala


def sweep(
    key: PRNGKeyArray,
    chains: Chains,
    model: TiltedEBM,
    flow: AbstractDistribution,
    step_size: Float[Array, ""],
    local_steps: int,
) -> Chains:
    """One global move and `local_steps` local ones, of every chain."""
    proposal_key, global_key, local_key = jax.random.split(key, 3)
    n = chains.position.shape[0]
    points, log_prob = flow.sample_and_log_prob(proposal_key, (n,))
    proposals = Proposals(refresh(points, model.log_density), log_prob)
    chains, _, _ = independent_metropolis_hastings(
        global_key, chains, flow.log_prob(chains.position), proposals
    )
    chains, _ = mala(local_key, chains, model.log_density, step_size, local_steps)
    return chains


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
    """The positions of `chains` independent chains after `sweeps`.

    They start at flow draws resampled by their importance weights.
    """
    start_key, choice_key, run_key = jax.random.split(key, 3)
    pool, log_prob = flow.sample_and_log_prob(start_key, (4 * chains,))
    log_weights = jax.vmap(model.log_density)(pool) - log_prob
    log_weights = jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf)
    # Not `categorical`, which would draw a number for every pair of a chain and a pool row.
    weights = jax.nn.softmax(log_weights)
    rows = jax.random.choice(choice_key, 4 * chains, (chains,), p=weights)

    def step(state: Chains, sweep_key: PRNGKeyArray) -> tuple[Chains, None]:
        return sweep(sweep_key, state, model, flow, step_size, local_steps), None

    state = refresh(pool[rows], model.log_density)
    state, _ = jax.lax.scan(step, state, jax.random.split(run_key, sweeps))
    return state.position


@eqx.filter_jit
def trace_chains(
    key: PRNGKeyArray,
    model: TiltedEBM,
    flow: AbstractDistribution,
    position: Float[Array, "n d"],
    step_size: Float[Array, ""],
    sweeps: int,
    local_steps: int,
) -> Float[Array, "sweeps n d"]:
    """The positions of n chains after each of `sweeps`, from `position` on."""

    def step(state: Chains, sweep_key: PRNGKeyArray) -> tuple[Chains, Float[Array, "n d"]]:
        state = sweep(sweep_key, state, model, flow, step_size, local_steps)
        return state, state.position

    state = refresh(position, model.log_density)
    return jax.lax.scan(step, state, jax.random.split(key, sweeps))[1]
