"""Sweeps that adapt: chains move, step size and proposal flow learn from them.

Adaptive flow MCMC (Gabrié, Rotskoff, Vanden-Eijnden 2022). A sweep is

    1. one independent Metropolis-Hastings move with draws of the flow, where there is one yet;
    2. `local_steps` moves of the local kernel, its step size adapted by dual averaging;
    3. the positions into a reservoir of the last sweeps (a flow taught by the last sweep alone
       overfits and drops modes);
    4. `flow_steps` gradient steps of the flow on the forward Kullback-Leibler divergence, each at
       rows drawn from the reservoir.

All stages run this one program: exploration without 1 and 4, production without 4 and without
adaptation, by frozen kernels (`Learning`).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from blackjax.adaptation.step_size import DualAveragingAdaptationState
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from tiltflow.models.flows import trainable
from tiltflow.sampling import adaptation
from tiltflow.sampling.chains import Chains, LogDensity, refresh
from tiltflow.sampling.kernels import (
    LocalKernel,
    Preconditioner,
    target_acceptance,
)
from tiltflow.sampling.quick_jit import quick_jit
from tiltflow.sampling.sweep import FrozenKernel, Recording, sweep
from tiltflow.training.steps import copy_arrays, flow_optimiser, moving_average

AVERAGING = 0.99
DENSE_MAX_DIMENSION = 256


class WarmUpSettings(NamedTuple):
    """How long and how fast. Sweeps come in chunks, the unit of compilation and of reports.

    Attributes:
        exploration_chunks: by local moves alone.
        mixture_chunks: with a Gaussian mixture as proposal.
        flow_chunks: with the flow that learns; most of them, lessons end by themselves.
        patience: chunks without a gain in acceptance after which they end.
        chunk: sweeps.
        local_kernel: "mala", "barker", "hmc", "nuts" or "mclmc".
        local_steps: moves of the local kernel in a sweep.
        reservoir: most positions that the flow is taught by.
        flow_steps: gradient steps of the flow in a sweep.
        batch: positions of the reservoir in each of them.
        learning_rate: its peak.
        max_components: of the mixture that the flow stands on.
    """

    exploration_chunks: int = 3
    mixture_chunks: int = 3
    flow_chunks: int = 64
    patience: int = 4
    chunk: int = 16
    local_kernel: LocalKernel = "mala"
    local_steps: int = 10
    reservoir: int = 65_536
    flow_steps: int = 4
    batch: int = 1024
    learning_rate: float = 1e-3
    max_components: int = 16


class FlowState(NamedTuple):
    """The flow that learns, and the moving average of it that proposes."""

    parameters: PyTree
    average: PyTree
    optimiser: PyTree
    steps: Int[Array, ""]


class WarmUpState(NamedTuple):
    """Everything a sweep changes; `reservoir` holds the last positions, row after row."""

    chains: Chains
    adaptation: DualAveragingAdaptationState
    preconditioner: Preconditioner
    reservoir: Float[Array, "rows d"]
    seen: Int[Array, ""]
    flow: FlowState


class Learning(NamedTuple):
    """What happens in a chunk of sweeps: numbers, so that one program serves all stages.

    Whether the flow proposes; the rate at which it is taught, 0 for not at all; whether the step
    size adapts.
    """

    proposes: Bool[Array, ""]
    rate: Float[Array, ""]
    adapts: Bool[Array, ""]


@quick_jit(0)
def initial_state(
    log_density: LogDensity,
    position: Float[Array, "n d"],
    flow: FlowState,
    settings: WarmUpSettings,
) -> WarmUpState:
    """Chains at `position`, and a step size that the steepest direction allows."""
    chains = refresh(position, log_density)
    n, d = position.shape
    rows = max(1, settings.reservoir // n) * n
    # Of the order of 1 / E[g^2].
    steepness = jnp.mean(jnp.sum(chains.gradient**2, axis=1)) / d
    # Copies, because a chunk is given its state to overwrite, and no buffer twice.
    return copy_arrays(
        WarmUpState(
            chains=chains,
            adaptation=adaptation.init(
                jnp.minimum(0.5 / (steepness + 1e-6), adaptation.first_step_size(position))
            ),
            preconditioner=Preconditioner(jnp.eye(d) if d <= DENSE_MAX_DIMENSION else jnp.ones(d)),
            reservoir=jnp.zeros((rows, d)),
            seen=jnp.asarray(0),
            flow=flow,
        )
    )


@eqx.filter_jit
def initial_flow(flow: AbstractDistribution) -> tuple[FlowState, PyTree]:
    """The state of an untaught flow, and its fixed part."""
    parameters, static = trainable(flow)
    optimiser = flow_optimiser().init(parameters)
    state = FlowState(parameters, parameters, optimiser, jnp.asarray(0))
    return copy_arrays(state), static


@quick_jit(1, donate="all-except-first")
def run_sweeps(
    inputs: tuple[LogDensity, PyTree, WarmUpSettings, Learning, PRNGKeyArray],
    state: WarmUpState,
) -> tuple[WarmUpState, Recording]:
    """One chunk of sweeps; `state` is donated. `static` is the fixed part of the flow."""
    log_density, static, settings, learning, key = inputs
    n = len(state.chains.position)

    def step(state: WarmUpState, key: PRNGKeyArray) -> tuple[WarmUpState, Recording]:
        sweep_key, batch_key = jax.random.split(key)
        kernel = FrozenKernel(
            settings.local_kernel,
            settings.local_steps,
            jnp.where(
                learning.adapts,
                adaptation.current(state.adaptation),
                adaptation.final(state.adaptation),
            ),
            state.preconditioner,
        )
        flow = eqx.combine(state.flow.average, static)
        chains, recording = sweep(
            sweep_key, state.chains, log_density, flow, kernel, learning.proposes
        )
        adapted = adaptation.update(
            state.adaptation,
            recording.local_acceptance_rate,
            target_acceptance(settings.local_kernel),
        )
        adapted = jax.tree.map(
            lambda new, old: jnp.where(learning.adapts, new, old), adapted, state.adaptation
        )
        slots = (state.seen + jnp.arange(n)) % len(state.reservoir)
        state = state._replace(
            chains=chains,
            adaptation=adapted,
            reservoir=state.reservoir.at[slots].set(chains.position),
            seen=state.seen + n,
        )
        flow = jax.lax.cond(
            learning.rate > 0,
            lambda: _teach(batch_key, state, static, settings, learning.rate),
            lambda: state.flow,
        )
        return state._replace(flow=flow), recording

    return jax.lax.scan(step, state, jax.random.split(key, settings.chunk))


def _teach(
    key: PRNGKeyArray,
    state: WarmUpState,
    static: PyTree,
    settings: WarmUpSettings,
    rate: Float[Array, ""],
) -> FlowState:
    """`flow_steps` steps of the flow towards the reservoir."""
    filled = jnp.minimum(state.seen, len(state.reservoir))

    def loss(parameters: PyTree, rows: Float[Array, "b d"]) -> Float[Array, ""]:
        return -eqx.combine(parameters, static).log_prob(rows).mean()

    def step(flow: FlowState, key: PRNGKeyArray) -> tuple[FlowState, None]:
        # Not `randint`, which draws twice to be exact for any range.
        rows = (jax.random.uniform(key, (settings.batch,)) * filled).astype(int)
        gradient = jax.grad(loss)(flow.parameters, state.reservoir[rows])
        updates, optimiser = flow_optimiser().update(gradient, flow.optimiser, flow.parameters)
        parameters = jax.tree.map(lambda p, u: p - rate * u, flow.parameters, updates)
        steps = flow.steps + 1
        average = moving_average(flow.average, parameters, steps, AVERAGING)
        return FlowState(parameters, average, optimiser, steps), None

    return jax.lax.scan(step, state.flow, jax.random.split(key, settings.flow_steps))[0]
