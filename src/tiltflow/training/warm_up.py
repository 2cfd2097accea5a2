"""Warm-up of the sampler of a known log-density: chains move, the proposal flow learns from them.

Adaptive flow MCMC (Gabrié, Rotskoff, Vanden-Eijnden 2022). A sweep is

    1. one independent Metropolis-Hastings move with draws of the flow, where there is one yet;
    2. `local_steps` moves of the local kernel, its step size adapted by dual averaging;
    3. the positions into a reservoir of the last sweeps (a flow taught by the last sweep alone
       overfits and drops modes);
    4. `flow_steps` gradient steps of the flow on the forward Kullback-Leibler divergence, each at
       rows drawn from the reservoir.

First the chains explore by local moves alone, in coordinates scaled by the Fisher information of
their gradients (Titsias 2023), then in coordinates scaled by their own spread. The flow stands on
a Gaussian mixture fitted to the reservoir, once after the exploration and once more when the
global moves have found the weights of the modes; the mixture's components also tell the modes
apart for the local kernel's preconditioner. The flow learns for as long as the effective share of
its draws grows, and the best state is kept. Everything that adapts stops here: production runs
frozen kernels.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.step_size import DualAveragingAdaptationState
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from tiltflow.evaluation.log_normalizer import importance_sampling
from tiltflow.models.flows import trainable
from tiltflow.models.gaussian_mixture import Fitted, GaussianMixture, best_mixture
from tiltflow.sampling import adaptation
from tiltflow.sampling.chains import Chains, LogDensity, refresh
from tiltflow.sampling.coordinates import Rescaled
from tiltflow.sampling.independent import (
    Proposals,
    check_proposal_is_deterministic,
    independent_metropolis_hastings,
)
from tiltflow.sampling.kernels import (
    LocalKernel,
    Preconditioner,
    learn_preconditioner,
    local_moves,
    target_acceptance,
)
from tiltflow.sampling.recording import FrozenKernel
from tiltflow.training.bases import proposal_on
from tiltflow.training.steps import copy_arrays, flow_optimiser, moving_average

AVERAGING = 0.99
MIXTURE_ROWS = 4000
DENSE_MAX_DIMENSION = 256


class WarmUpSettings(NamedTuple):
    """How long and how fast. Sweeps come in chunks, the unit of compilation and of reports."""

    exploration_chunks: int = 4
    mixture_chunks: int = 4
    flow_chunks: int = 24
    patience: int = 4
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


class WarmedUp(NamedTuple):
    """The frozen sampler, in its own coordinates, and chains that have forgotten their start."""

    coordinates: Rescaled
    flow: AbstractDistribution
    kernel: FrozenKernel
    position: Float[Array, "n d"]
    reports: list[dict[str, Any]]


def warm_up(
    key: PRNGKeyArray,
    log_density: LogDensity,
    position: Float[Array, "n d"],
    settings: WarmUpSettings,
    *,
    on_report: Callable[[dict[str, Any]], None] | None = None,
) -> WarmedUp:
    """Adapt a sampler of `log_density` to n chains that start at `position`."""
    explore_key, again_key, mixture_key, flow_key = jax.random.split(key, 4)
    reports: list[dict[str, Any]] = []

    def run(state: WarmUpState, static: PyTree, rate: float, key: PRNGKeyArray, **about: Any):
        inputs = (coordinates, static, settings, jnp.asarray(np.asarray(rate)), key)
        state, trace = run_warm_up_chunk(inputs, state)
        reports.append(about | {name: float(values.mean()) for name, values in trace.items()})
        if on_report:
            on_report(reports[-1])
        return state

    coordinates = _fisher_coordinates(log_density, position)
    state = _initial_state(coordinates, coordinates.from_user(position), settings)
    for stage, stage_key in (("explore", explore_key), ("explore again", again_key)):
        for index in range(settings.exploration_chunks):
            chunk_key = jax.random.fold_in(stage_key, index)
            state = run(state, None, 0.0, chunk_key, stage=stage, step=index + 1)
        if stage == "explore":
            coordinates, state = _rescale(coordinates, state, settings)

    fitted = _search_mixture(state, settings)
    mixture = _refit_mixture(state, [fitted.density], fitted)
    state, static = _with_flow(mixture_key, _precondition(state, mixture), mixture)
    for index in range(settings.mixture_chunks):
        chunk_key = jax.random.fold_in(mixture_key, index)
        state = run(state, static, 0.0, chunk_key, stage="mixture", step=index + 1)

    mixture = _refit_mixture(state, [mixture], fitted)
    state, static = _with_flow(flow_key, _precondition(state, mixture), mixture)
    best, best_share, stale = copy_arrays(state.average), -1.0, 0
    for index, rate in enumerate(_rates(settings)):
        share = float(_share(flow_key, coordinates, eqx.combine(state.average, static)))
        if share > best_share:
            best, best_share, stale = copy_arrays(state.average), share, 0
        else:
            stale += 1
        if stale >= settings.patience:
            break
        chunk_key = jax.random.fold_in(flow_key, index)
        state = run(
            state, static, rate, chunk_key, stage="flow", step=index + 1, effective_share=share
        )
    flow = eqx.combine(best, static)
    check_proposal_is_deterministic(flow, flow_key, state.chains.position)
    kernel = FrozenKernel(
        settings.local_kernel,
        settings.local_steps,
        adaptation.final(state.adaptation),
        state.preconditioner,
    )
    return WarmedUp(coordinates, flow, kernel, state.chains.position, reports)


def _fisher_coordinates(log_density: LogDensity, position: Float[Array, "n d"]) -> Rescaled:
    """Scale 1 / sqrt(E[g_j^2]): for a Gaussian, the inverse root of its precision's diagonal."""
    gradient = refresh(position, log_density).gradient
    square = jnp.mean(gradient**2, axis=0)
    # A direction without any slope keeps the steepest one's scale, or one.
    steepest = jnp.where(square.max() > 0, square.max(), 1.0)
    square = jnp.where(square > 0, square, steepest)
    return Rescaled(log_density, position.mean(axis=0), 1 / jnp.sqrt(square))


def _rescale(
    coordinates: Rescaled, state: WarmUpState, settings: WarmUpSettings
) -> tuple[Rescaled, WarmUpState]:
    """Coordinates in which the newer half of the reservoir has mean zero and deviation one."""
    rows = _newest(state)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    refined = coordinates.refined(jnp.asarray(mean), jnp.asarray(deviation))
    position = refined.from_user(coordinates.to_user(state.chains.position))
    return refined, _initial_state(refined, position, settings)


def _with_flow(
    key: PRNGKeyArray, state: WarmUpState, mixture: GaussianMixture
) -> tuple[WarmUpState, PyTree]:
    """The state with an untaught flow on `mixture`, and the flow's fixed part."""
    parameters, static = trainable(proposal_on(key, mixture))
    state = state._replace(
        flow=copy_arrays(parameters),
        average=copy_arrays(parameters),
        optimiser=flow_optimiser().init(parameters),
        flow_count=jnp.asarray(0),
    )
    return state, static


def _initial_state(
    log_density: LogDensity, position: Float[Array, "n d"], settings: WarmUpSettings
) -> WarmUpState:
    chains = refresh(position, log_density)
    n, d = position.shape
    rows = max(1, settings.reservoir // n) * n
    # The step that the steepest direction allows: h of the order of 1 / E[g^2].
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


def _rates(settings: WarmUpSettings) -> Float[np.ndarray, " chunks"]:
    """A warm-up over an eighth of the chunks, without which a good start is lost, and a cosine."""
    step = np.arange(settings.flow_chunks)
    cosine = 0.5 * (1 + np.cos(math.pi * step / settings.flow_chunks))
    return settings.learning_rate * cosine * np.minimum(1.0, 8 * (step + 1) / settings.flow_chunks)


def _newest(state: WarmUpState) -> Float[np.ndarray, "rows d"]:
    """The newer half of what is in the reservoir, newest first."""
    rows = np.asarray(state.reservoir, dtype=float)
    filled = min(int(state.seen), len(rows))
    return rows[(int(state.seen) - 1 - np.arange(max(1, filled // 2))) % len(rows)]


def _search_mixture(state: WarmUpState, settings: WarmUpSettings) -> Fitted:
    """The kind of mixture that stands under the flow, by a search on few rows."""
    rows = np.random.default_rng(0).permutation(_newest(state))[:MIXTURE_ROWS]
    held_out = len(rows) // 5
    return best_mixture(
        rows[held_out:], rows[:held_out], seed=0, max_components=settings.max_components
    )


def _refit_mixture(
    state: WarmUpState, known: list[GaussianMixture], fitted: Fitted
) -> GaussianMixture:
    """A mixture of the kind of `fitted` on the newer half of the reservoir, or a known one.

    EM may end in a worse optimum than before: the likeliest one of these rows is kept.
    """
    rows = _newest(state)
    points = jnp.asarray(rows)
    return max(
        [*known, fitted.fit(rows)], key=lambda mixture: float(_mean_log_prob(mixture, points))
    )


@eqx.filter_jit
def _mean_log_prob(mixture: GaussianMixture, points: Float[Array, "n d"]) -> Float[Array, ""]:
    return mixture.log_prob(points).mean()


@eqx.filter_jit
def _precondition(state: WarmUpState, mixture: GaussianMixture) -> WarmUpState:
    """Coordinates in which the modes, told apart by the mixture, are round; a new step size."""
    filled = jnp.arange(len(state.reservoir)) < state.seen
    rows = jnp.where(filled[:, None], state.reservoir, jnp.nan)
    labels = jax.vmap(lambda x: jnp.argmax(mixture.joint_log_prob(x)))(state.reservoir)
    kind = "dense" if state.preconditioner.scale.ndim == 2 else "diagonal"
    d = rows.shape[1]
    return copy_arrays(
        state._replace(
            preconditioner=learn_preconditioner(rows, kind, labels),
            adaptation=adaptation.init(jnp.asarray(0.5 / d ** (1 / 3))),
        )
    )


@eqx.filter_jit(donate="all-except-first")
def run_warm_up_chunk(
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


@eqx.filter_jit
def _share(
    key: PRNGKeyArray, log_density: LogDensity, flow: AbstractDistribution
) -> Float[Array, ""]:
    points, log_prob = flow.sample_and_log_prob(key, (4096,))
    return importance_sampling(jax.vmap(log_density)(points) - log_prob).ess
