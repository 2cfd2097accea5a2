"""Maximum likelihood of a flow, stopped early on held-out rows: the first fit of a proposal or
of a flow as base. Other losses (`flow_losses.py`) are stopped by the likelihood too.

Steps run in compiled chunks; between chunks the held-out likelihood of the parameters' moving
average decides which state is kept. (Judged on the last step's parameters, a flow that starts on
a good mixture looks worse than its start for thousands of steps, and was stopped too soon.) A step
whose gradient is not finite is skipped and counted.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from tiltflow.models.flows import trainable
from tiltflow.training.flow_losses import FlowLoss, MaximumLikelihood
from tiltflow.training.steps import copy_arrays, flow_optimiser, moving_average, relative_rates

AVERAGING = 0.99
LIKELIHOOD = MaximumLikelihood()


class FlowFit(NamedTuple):
    """The flow with the best held-out log-likelihood (mean, nats) and the steps it took.

    `skipped` are steps of the whole run that were not finite.
    """

    flow: AbstractDistribution
    held_out_log_likelihood: float
    steps: int
    skipped: int = 0


class FitState(NamedTuple):
    """Everything a step changes."""

    parameters: PyTree
    average: PyTree
    optimiser: PyTree
    step: Int[Array, ""]


def fit_flow(
    key: PRNGKeyArray,
    flow: AbstractDistribution,
    x: Float[Array, "n d"],
    held_out: Float[Array, "m d"],
    *,
    learning_rate: float = 1e-3,
    batch_size: int = 512,
    max_steps: int = 4000,
    chunk: int = 100,
    patience: int = 10,
    weight_decay: float = 0.0,
    loss: FlowLoss = LIKELIHOOD,
    averaging: float = AVERAGING,
    on_report: Callable[[dict], None] | None = None,
) -> FlowFit:
    """Minimise the loss on `x`; stop when `patience` chunks bring no gain on the held-out rows.

    `weight_decay` (decoupled: Loshchilov, Hutter 2019) is of the flow's networks alone: with it
    they go back to no bend, while linear maps stay where they are. `averaging` is the decay of the
    moving average.
    """
    parameters, static = trainable(flow)
    state = initial_state(parameters)
    batch_size = min(batch_size, x.shape[0])
    decay = jnp.asarray(np.asarray(weight_decay, x.dtype))
    best, best_score, best_step, stale = flow, -math.inf, 0, 0
    score = float(_mean_log_prob(parameters, static, held_out))
    if math.isfinite(score):
        best_score = score
    for step in range(0, max_steps, chunk):
        rates = learning_rate * jnp.asarray(relative_rates(step, chunk, max_steps))
        chunk_key = jax.random.fold_in(key, step)
        fixed = (static, x, batch_size, rates, decay, loss, averaging, chunk_key)
        state = run_chunk(fixed, state)
        score = float(_mean_log_prob(state.average, static, held_out))
        if on_report:
            on_report(
                {
                    "step": step + chunk,
                    "total_steps": max_steps,
                    "held_out_log_likelihood": score,
                    "skipped": _skipped(state),
                }
            )
        if score > best_score:
            # The state is donated to the next chunk, so what is kept must be a copy.
            best = eqx.combine(copy_arrays(state.average), static)
            best_score, best_step, stale = score, step + chunk, 0
        else:
            stale += 1
            if stale >= patience or not math.isfinite(score):
                break
    return FlowFit(best, best_score, best_step, _skipped(state))


def initial_state(parameters: PyTree) -> FitState:
    """The state before the first step, all copies: a chunk is given its state to overwrite."""
    return FitState(
        copy_arrays(parameters),
        copy_arrays(parameters),
        _optimiser().init(parameters),
        jnp.asarray(0),
    )


def _optimiser() -> optax.GradientTransformation:
    # It never gives in, however many steps in a row are not finite.
    return optax.apply_if_finite(flow_optimiser(), max_consecutive_errors=np.iinfo(np.int32).max)


def _skipped(state: FitState) -> int:
    return int(state.optimiser.total_notfinite)


@eqx.filter_jit
def _mean_log_prob(parameters: PyTree, static: PyTree, x: Float[Array, "n d"]) -> Array:
    return eqx.combine(parameters, static).log_prob(x).mean()


@eqx.filter_jit(donate="all-except-first")
def run_chunk(fixed: tuple, state: FitState) -> FitState:
    """One step for each rate; `fixed` is what a chunk reads and does not change, as below."""
    static, x, batch_size, rates, weight_decay, loss, averaging, key = fixed
    order = jax.random.permutation(key, x.shape[0])

    def step(state: FitState, inputs: tuple[Array, Array]) -> tuple[FitState, None]:
        i, rate = inputs
        rows = order[(i * batch_size + jnp.arange(batch_size)) % x.shape[0]]

        def on_batch(parameters: PyTree) -> Array:
            flow = eqx.combine(parameters, static)
            return loss(jax.random.fold_in(key, i), flow, x[rows])

        gradient = jax.grad(on_batch)(state.parameters)
        updates, optimiser = _optimiser().update(gradient, state.optimiser, state.parameters)
        parameters = jax.tree.map(
            lambda p, u, w: p - rate * (u + weight_decay * w),
            state.parameters,
            updates,
            _of_networks(state.parameters),
        )
        count = state.step + 1
        average = moving_average(state.average, parameters, count, averaging)
        return FitState(parameters, average, optimiser, count), None

    state, _ = jax.lax.scan(step, state, (jnp.arange(len(rates)), rates))
    return state


def _of_networks(parameters: PyTree) -> PyTree:
    """The parameters of networks, and zeros in place of all others."""

    def is_network(node: PyTree) -> bool:
        return isinstance(node, eqx.nn.MLP)

    def keep(node: PyTree) -> PyTree:
        return node if is_network(node) else jax.tree.map(jnp.zeros_like, node)

    return jax.tree.map(keep, parameters, is_leaf=is_network)
