"""Warm-up of the sampler of a known log-density: exploration, a mixture, a flow, frozen kernels.

First the chains explore by local moves alone, in coordinates scaled by the Fisher information of
their gradients (Titsias 2023), then in coordinates scaled by their own spread. The flow stands on
a Gaussian mixture fitted to the reservoir, once after the exploration and once more when the
global moves have found the weights of the modes; the mixture's components also tell the modes
apart for the local kernel's preconditioner. The flow learns for as long as the acceptance rate of
its draws grows, and the best state is kept (their effective share would be a sharper measure, but
where tails are heavy it is all noise). Everything that adapts stops here: production runs frozen
kernels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.models.flows import trainable
from tiltflow.models.gaussian_mixture import Fitted, GaussianMixture, best_mixture, padded
from tiltflow.sampling import adaptation
from tiltflow.sampling.chains import Chains, LogDensity, refresh
from tiltflow.sampling.coordinates import Rescaled
from tiltflow.sampling.cost import operations
from tiltflow.sampling.independent import check_proposal_is_deterministic
from tiltflow.sampling.iterated import choose_global_kernel
from tiltflow.sampling.kernels import learn_preconditioner
from tiltflow.sampling.recording import FrozenKernel
from tiltflow.training.adaptive_sweeps import (
    WarmUpSettings,
    WarmUpState,
    initial_state,
    run_sweeps,
)
from tiltflow.training.bases import proposal_on
from tiltflow.training.steps import copy_arrays, flow_optimiser, relative_rates

ACCEPTANCE = "global_acceptance_rate"
MIXTURE_ROWS = 4000
WEIGHED_DRAWS = 4096
MOST_PROPOSALS = 64
FEW_COMPONENTS = 4


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
        state, trace = run_sweeps(inputs, state)
        reports.append(about | {name: float(values.mean()) for name, values in trace.items()})
        if on_report:
            on_report(reports[-1])
        return state

    coordinates = _fisher_coordinates(log_density, position)
    state = initial_state(coordinates, coordinates.from_user(position), settings)
    for stage, stage_key in (("explore", explore_key), ("explore again", again_key)):
        for index in range(settings.exploration_chunks):
            chunk_key = jax.random.fold_in(stage_key, index)
            state = run(state, None, 0.0, chunk_key, stage=stage, step=index + 1)
        if stage == "explore":
            coordinates, state = _rescale(coordinates, state, settings)

    fitted = _search_mixture(state, settings)
    mixture = _refit_mixture(state, [fitted.density], fitted, settings)
    state, static = _with_flow(mixture_key, _precondition(state, mixture), mixture)
    for index in range(settings.mixture_chunks):
        chunk_key = jax.random.fold_in(mixture_key, index)
        state = run(state, static, 0.0, chunk_key, stage="mixture", step=index + 1)

    mixture = _refit_mixture(state, [mixture], fitted, settings)
    state, static = _with_flow(flow_key, _precondition(state, mixture), mixture)
    best, best_rate, stale = copy_arrays(state.average), reports[-1][ACCEPTANCE], 0
    rates = settings.learning_rate * relative_rates(0, settings.flow_chunks, settings.flow_chunks)
    for index, rate in enumerate(rates):
        chunk_key = jax.random.fold_in(flow_key, index)
        state = run(state, static, rate, chunk_key, stage="flow", step=index + 1)
        if reports[-1][ACCEPTANCE] > best_rate:
            best, best_rate, stale = copy_arrays(state.average), reports[-1][ACCEPTANCE], 0
        else:
            stale += 1
        if stale >= settings.patience:
            break
    flow = eqx.combine(best, static)
    check_proposal_is_deterministic(flow, flow_key, state.chains.position)
    kernel = FrozenKernel(
        settings.local_kernel,
        settings.local_steps,
        adaptation.final(state.adaptation),
        state.preconditioner,
        _choose_proposals(flow_key, coordinates, flow, state, settings),
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
    return refined, initial_state(refined, position, settings)


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
    state: WarmUpState,
    known: list[GaussianMixture],
    fitted: Fitted,
    settings: WarmUpSettings,
) -> GaussianMixture:
    """A mixture of the kind of `fitted` on the newer half of the reservoir, or a known one.

    EM may end in a worse optimum than before: the likeliest one of these rows is kept. It has one
    of two sizes, so that what is compiled for one target serves the next run on it.
    """
    rows = _newest(state)
    points = jnp.asarray(rows)
    few = len(fitted.density.log_weights) <= FEW_COMPONENTS
    size = FEW_COMPONENTS if few else settings.max_components
    mixtures = [padded(mixture, size) for mixture in (*known, fitted.fit(rows))]
    return max(mixtures, key=lambda mixture: float(_mean_log_prob(mixture, points)))


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


def _choose_proposals(
    key: PRNGKeyArray,
    coordinates: Rescaled,
    flow: AbstractDistribution,
    state: WarmUpState,
    settings: WarmUpSettings,
) -> int:
    """Draws of the flow that pay best for each chain and sweep: 1 for IMH, more for i-SIR."""
    weights = _log_weights(key, coordinates, flow, state.chains)
    point = state.chains.position[0]
    evaluation = operations(coordinates, point)
    # A gradient costs about twice as much again as the value.
    local_sweep = 3 * evaluation * settings.local_steps
    draw = operations(lambda: flow.sample_and_log_prob(key)) + evaluation
    return choose_global_kernel(*weights, draw, local_sweep, most=MOST_PROPOSALS)


@eqx.filter_jit
def _log_weights(
    key: PRNGKeyArray, log_density: LogDensity, flow: AbstractDistribution, chains: Chains
) -> tuple[Float[Array, " n"], Float[Array, " k"]]:
    """Log-weights at the chains and at draws of the flow."""
    points, log_prob = flow.sample_and_log_prob(key, (WEIGHED_DRAWS,))
    at_chains = chains.log_density - flow.log_prob(chains.position)
    return at_chains, jax.vmap(log_density)(points) - log_prob
