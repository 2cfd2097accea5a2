"""Sweeps of frozen kernels, with all that a judge of them needs to see.

One sweep offers every chain fresh draws of the flow (one: independent Metropolis-Hastings; more:
i-SIR) and then moves it by the local kernel. Nothing adapts. The chains are recorded before the
sweep, where log q of the flow is at hand. The proposals are not: chains are made of them, so that
they are no second opinion; `weigh_draws` makes one from fresh draws of the flow.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from tiltflow.sampling.chains import Chains, LogDensity, refresh
from tiltflow.sampling.independent import Proposals, independent_metropolis_hastings
from tiltflow.sampling.iterated import iterated_resampling
from tiltflow.sampling.kernels import LocalKernel, Preconditioner, local_moves


class FrozenKernel(NamedTuple):
    """What a warm-up or a training left: the local kernel and its steps, and the global one.

    `proposals` are the flow's draws for each chain in a sweep.
    """

    local: LocalKernel
    local_steps: int
    step_size: Float[Array, ""]
    preconditioner: Preconditioner | None = None
    proposals: int = 1


class Recording(NamedTuple):
    """T sweeps of n chains in d dimensions.

    `log_ratio` is log_density - log q at the chains and need not be finite; `moved` tells which
    chains took their proposal.
    """

    position: Float[Array, "sweeps n d"]
    log_density: Float[Array, "sweeps n"]
    log_ratio: Float[Array, "sweeps n"]
    moved: Bool[Array, "sweeps n"]
    local_acceptance_rate: Float[Array, " sweeps"]
    global_acceptance_rate: Float[Array, " sweeps"]


@eqx.filter_jit
def record_sweeps(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    position: Float[Array, "n d"],
    kernel: FrozenKernel,
    sweeps: int,
) -> tuple[Chains, Recording]:
    """Run `sweeps` from `position`; the chains at the end, and the record of all sweeps.

    `log_density` takes one point; it is an argument, so that a model as a pytree costs no second
    compilation.
    """

    def step(chains: Chains, sweep_key: PRNGKeyArray) -> tuple[Chains, Recording]:
        global_key, local_key = jax.random.split(sweep_key)
        chains_log_prob = flow.log_prob(chains.position)
        after, moved, global_rate = _global_move(
            global_key, chains, chains_log_prob, log_density, flow, kernel.proposals
        )
        after, local_rate, _ = local_moves(
            kernel.local,
            local_key,
            after,
            log_density,
            kernel.step_size,
            kernel.local_steps,
            preconditioner=kernel.preconditioner,
        )
        record = Recording(
            position=chains.position,
            log_density=chains.log_density,
            log_ratio=chains.log_density - chains_log_prob,
            moved=moved,
            local_acceptance_rate=local_rate,
            global_acceptance_rate=global_rate,
        )
        return after, record

    return jax.lax.scan(step, refresh(position, log_density), jax.random.split(key, sweeps))


def _global_move(
    key: PRNGKeyArray,
    chains: Chains,
    chains_log_prob: Float[Array, " n"],
    log_density: LogDensity,
    flow: AbstractDistribution,
    proposals: int,
) -> tuple[Chains, Bool[Array, " n"], Float[Array, ""]]:
    """The chains, which of them moved, and the mean acceptance rate."""
    if proposals > 1:
        chains, moved, rate, _ = iterated_resampling(
            key, chains, chains_log_prob, log_density, flow, proposals
        )
        return chains, moved, rate
    proposal_key, accept_key = jax.random.split(key)
    points, log_prob = flow.sample_and_log_prob(proposal_key, chains_log_prob.shape)
    offered = Proposals(refresh(points, log_density), log_prob)
    return independent_metropolis_hastings(accept_key, chains, chains_log_prob, offered)


@eqx.filter_jit
def importance_start(
    key: PRNGKeyArray, log_density: LogDensity, flow: AbstractDistribution, chains: int, pool: int
) -> Float[Array, "chains d"]:
    """Where chains may start: `pool` draws of the flow, resampled by their importance weights."""
    draw_key, choice_key = jax.random.split(key)
    points, log_prob = flow.sample_and_log_prob(draw_key, (pool,))
    log_weights = jax.vmap(log_density)(points) - log_prob
    log_weights = jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf)
    # Not `categorical`, which would draw a number for every pair of a chain and a pool row.
    rows = jax.random.choice(choice_key, pool, (chains,), p=jax.nn.softmax(log_weights))
    return points[rows]


@eqx.filter_jit
def weigh_draws(
    key: PRNGKeyArray, log_density: LogDensity, flow: AbstractDistribution, draws: int
) -> tuple[Float[Array, "draws d"], Float[Array, " draws"]]:
    """Fresh draws of the flow and their log-weights, in chunks of at most 8192."""
    chunk = min(draws, 8192)

    def draw_chunk(chunk_key: PRNGKeyArray) -> tuple[Array, Array]:
        y, log_prob = flow.sample_and_log_prob(chunk_key, (chunk,))
        return y, jax.vmap(log_density)(y) - log_prob

    y, log_weights = jax.lax.map(draw_chunk, jax.random.split(key, -(-draws // chunk)))
    return y.reshape(-1, y.shape[-1])[:draws], log_weights.reshape(-1)[:draws]
