"""Draws of a fitted model from frozen kernels: what a user gets as samples.

One sweep is one independent Metropolis-Hastings move with a fresh flow draw and some MALA steps.
Nothing adapts, so every move leaves the model invariant.
"""

import equinox as eqx
import jax
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import Chains, refresh
from tiltflow.sampling.independent import Proposals, independent_metropolis_hastings
from tiltflow.sampling.local import mala
from tiltflow.sampling.recording import importance_start


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
    start_key, run_key = jax.random.split(key)
    position = importance_start(start_key, model.log_density, flow, chains, 4 * chains)

    def step(state: Chains, sweep_key: PRNGKeyArray) -> tuple[Chains, None]:
        return sweep(sweep_key, state, model, flow, step_size, local_steps), None

    state = refresh(position, model.log_density)
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
