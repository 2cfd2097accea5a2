"""Sweeps that adapt: chains move, step size and proposal flow learn from them.

Adaptive flow MCMC (Gabrié, Rotskoff, Vanden-Eijnden 2022). A sweep is

    1. one independent Metropolis-Hastings move with draws of the flow, where there is one yet;
    2. `local_steps` moves of the local kernel, its step size adapted by dual averaging;
    3. the positions into a reservoir of the last sweeps (a flow taught by the last sweep alone
       overfits and drops modes);
    4. `flow_steps` gradient steps of the flow on the forward Kullback-Leibler divergence, each at
       rows drawn from the reservoir.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from blackjax.adaptation.step_size import DualAveragingAdaptationState
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from tiltflow.evaluation.log_normalizer import importance_sampling
from tiltflow.sampling import adaptation
from tiltflow.sampling.chains import Chains, LogDensity, refresh
from tiltflow.sampling.independent import Proposals, independent_metropolis_hastings
from tiltflow.sampling.kernels import (
    LocalKernel,
    Preconditioner,
    local_moves,
    target_acceptance,
)
from tiltflow.training.steps import copy_arrays, flow_optimiser, moving_average

AVERAGING = 0.99
DENSE_MAX_DIMENSION = 256


class WarmUpSettings(NamedTuple):
    """How long and how fast. Sweeps come in chunks, the unit of compilation and of reports."""

    exploration_chunks: int = 4
    mixture_chunks: int = 4
    flow_chunks: int = 24
    patience: int = 6
    chunk: int = 10
    local_kernel: LocalKernel = "mala"
    local_steps: int = 10
    reservoir: int = 16_384
    flow_steps: int = 4
    batch: int = 1024
    learning_rate: float = 1e-3
    max_components: int = 16


class WarmUpState(NamedTuple):
    """Everything a sweep changes; `reservoir` holds the last positions, row after row."""

    chains: Chains
    adaptation: DualAveragingAdaptationState
    preconditioner: Preconditioner
    reservoir: Float[Array, "rows d"]
    seen: Int[Array, ""]
    flow: PyTree
    average: PyTree
    optimiser: PyTree
    flow_count: Int[Array, ""]


def initial_state(
    log_density: LogDensity, position: Float[Array, "n d"], settings: WarmUpSettings
) -> WarmUpState:
    """Chains at `position`, no flow yet, and a step size that the steepest direction allows."""
    chains = refresh(position, log_density)
    n, d = position.shape
    rows = max(1, settings.reservoir // n) * n
    # Of the order of 1 / E[g^2].
    steepness = jnp.mean(jnp.sum(chains.gradient**2, axis=1)) / d
    step_size = jnp.minimum(0.5 / (steepness + 1e-6), 0.5 / d ** (1 / 3))
    # Copies, because a chunk is given its state to overwrite, and no buffer twice.
    state = WarmUpState(
        chains=chains,
        adaptation=adaptation.init(step_size),
        preconditioner=Preconditioner(jnp.eye(d) if d <= DENSE_MAX_DIMENSION else jnp.ones(d)),
        reservoir=jnp.zeros((rows, d)),
        seen=jnp.asarray(0),
        flow=None,
        average=None,
        optimiser=None,
        flow_count=jnp.asarray(0),
    )
    return copy_arrays(state)


@eqx.filter_jit(donate="all-except-first")
def run_sweeps(
    inputs: tuple[LogDensity, PyTree, WarmUpSettings, Float[Array, ""], PRNGKeyArray],
    state: WarmUpState,
) -> tuple[WarmUpState, dict[str, Float[Array, " sweeps"]]]:
    """One chunk of sweeps; `state` is donated. Without a flow in `state` they are local alone."""
    log_density, static, settings, rate, key = inputs
    n = state.chains.position.shape[0]
    rows = state.reservoir.shape[0]

    def sweep(state: WarmUpState, key: PRNGKeyArray) -> tuple[WarmUpState, dict]:
        proposal_key, global_key, local_key, batch_key = jax.random.split(key, 4)
        chains = state.chains
        info = {}
        if static is not None:
            flow = eqx.combine(state.average, static)
            points, log_prob = flow.sample_and_log_prob(proposal_key, (n,))
            proposals = Proposals(refresh(points, log_density), log_prob)
            chains, _, info["global_acceptance_rate"] = independent_metropolis_hastings(
                global_key, chains, flow.log_prob(chains.position), proposals
            )
            info["importance_ess"] = importance_sampling(proposals.log_weights).ess
        chains, local_rate, _ = local_moves(
            settings.local_kernel,
            local_key,
            chains,
            log_density,
            adaptation.current(state.adaptation),
            settings.local_steps,
            preconditioner=state.preconditioner,
        )
        info["local_acceptance_rate"] = local_rate
        slots = (state.seen + jnp.arange(n)) % rows
        state = state._replace(
            chains=chains,
            adaptation=adaptation.update(
                state.adaptation, local_rate, target_acceptance(settings.local_kernel)
            ),
            reservoir=state.reservoir.at[slots].set(chains.position),
            seen=state.seen + n,
        )
        if static is not None:
            state = _teach(batch_key, state, static, settings, rate)
        return state, info

    return jax.lax.scan(sweep, state, jax.random.split(key, settings.chunk))


def _teach(
    key: PRNGKeyArray,
    state: WarmUpState,
    static: PyTree,
    settings: WarmUpSettings,
    rate: Float[Array, ""],
) -> WarmUpState:
    """`flow_steps` steps of the flow towards the reservoir."""
    filled = jnp.minimum(state.seen, len(state.reservoir))

    def loss(parameters: PyTree, rows: Float[Array, "b d"]) -> Float[Array, ""]:
        return -eqx.combine(parameters, static).log_prob(rows).mean()

    def step(carry: tuple, key: PRNGKeyArray) -> tuple[tuple, None]:
        parameters, average, optimiser, count = carry
        rows = jax.random.randint(key, (settings.batch,), 0, filled)
        gradient = jax.grad(loss)(parameters, state.reservoir[rows])
        updates, optimiser = flow_optimiser().update(gradient, optimiser, parameters)
        parameters = jax.tree.map(lambda p, u: p - rate * u, parameters, updates)
        count = count + 1
        return (
            parameters,
            moving_average(average, parameters, count, AVERAGING),
            optimiser,
            count,
        ), None

    carry = (state.flow, state.average, state.optimiser, state.flow_count)
    keys = jax.random.split(key, settings.flow_steps)
    (flow, average, optimiser, count), _ = jax.lax.scan(step, carry, keys)
    return state._replace(flow=flow, average=average, optimiser=optimiser, flow_count=count)
