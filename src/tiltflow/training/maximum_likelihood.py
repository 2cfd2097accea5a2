"""Maximum likelihood of a flow, stopped early on held-out rows: the first fit of a proposal or
of a flow as base. Other losses (`flow_losses.py`) are stopped by the likelihood too.

Steps run in compiled chunks; between chunks the held-out likelihood of the parameters' moving
average decides which state is kept. (Judged on the last step's parameters, a flow that starts on
a good mixture looks worse than its start for thousands of steps, and was stopped too soon.)

What is minimised and how it is judged is the objective's: that of continuous flows is in
`continuous_fit.py`. A step whose loss or gradient is not finite is skipped and counted. A fit ends
where the held-out likelihood is not finite any more, or where every step of a chunk was skipped for
a known reason: what was best until then is kept, and the reason is in the last report and in
`FlowFit.stopped`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from tiltflow.data.errors import InputError
from tiltflow.models.batch_norm import RunningStatistics
from tiltflow.models.convolutional_field import ConvolutionalField
from tiltflow.models.flows import trainable
from tiltflow.models.vector_fields import ConcatSquashField, MLPField
from tiltflow.training.checkpoints import UNSAVED, Stage, replay
from tiltflow.training.flow_objective import LIKELIHOOD, FlowObjective, why_not_finite
from tiltflow.training.steps import copy_arrays, flow_optimiser, moving_average, relative_rates

AVERAGING = 0.99


class FlowFit(NamedTuple):
    """The model with the best held-out log-likelihood (mean, nats) and the steps it took.

    `skipped` is the number of steps that were not taken, in the whole run; `stopped` says why it
    ended where rows had no finite likelihood any more.
    """

    flow: Any
    held_out_log_likelihood: float
    steps: int
    skipped: int = 0
    stopped: str | None = None


class FitState(NamedTuple):
    """Everything a step changes; `running` are statistics that no gradient changes."""

    parameters: PyTree
    average: PyTree
    running: PyTree
    optimiser: PyTree
    step: Int[Array, ""]


def fit_flow(
    key: PRNGKeyArray,
    flow: eqx.Module,
    x: Float[Array, "n d"],
    held_out: Float[Array, "m d"],
    *,
    learning_rate: float = 1e-3,
    batch_size: int = 512,
    max_steps: int = 4000,
    chunk: int = 100,
    patience: int = 10,
    weight_decay: float = 0.0,
    objective: FlowObjective = LIKELIHOOD,
    averaging: float = AVERAGING,
    stop: Callable[[], bool] | None = None,
    on_report: Callable[[dict[str, Any]], None] | None = None,
    stage: Stage = UNSAVED,
) -> FlowFit:
    """Minimise the loss on `x`; stop when `patience` chunks bring no gain on the held-out rows.

    `stop`, where it is given, is asked before every chunk.
    `weight_decay` (decoupled: Loshchilov, Hutter 2019) is of the flow's networks alone: with it
    they go back to no bend, while linear maps stay where they are. `averaging` is the decay of the
    moving average. What `stage` has saved is gone on with; its reports are given once more.

    Raises:
        InputError: every step of a chunk was skipped for a known reason, with no gain before.
    """
    parameters, running, static = parts_of(flow)
    state = initial_state(parameters, running)
    batch_size = min(batch_size, x.shape[0])
    decay = jnp.asarray(np.asarray(weight_decay, x.dtype))
    best, best_score, best_step, stale, skipped, step = flow, -math.inf, 0, 0, 0, 0
    reports: list[dict[str, Any]] = []
    if saved := stage.saved():
        best_score, best_step, stale, skipped, step, reports = saved.record["at"]
        replay(reports, on_report)
        if saved.record["done"]:
            return FlowFit(saved.fill(flow), best_score, best_step, skipped, _stopped(reports))
        state, best = saved.fill((state, flow))
    else:
        score = float(_score(objective, parameters, running, static, held_out))
        if math.isfinite(score):
            best_score = score

    def record(done: bool) -> dict[str, Any]:
        at = (best_score, best_step, stale, skipped, step, reports)
        return {"at": at, "done": done}

    def carried() -> tuple[Any, dict[str, Any]]:
        return (state, best), record(done=False)

    while step < max_steps and stale < patience:
        stage.offer(carried)
        if stop and stop():
            break
        rates = learning_rate * jnp.asarray(relative_rates(step, chunk, max_steps))
        chunk_key = jax.random.fold_in(key, step)
        fixed = (objective, static, x, batch_size, rates, decay, averaging, chunk_key)
        state, figures = run_chunk(fixed, state)
        step += chunk
        taken = np.asarray(figures.pop("taken"))
        skipped += int((~taken).sum())
        stopped = None
        if not taken.any():
            present = _join(state.parameters, state.running, static)
            stopped = why_not_finite(objective, present, x, "rows")
            if stopped and best_step == 0:
                raise InputError(stopped)
        score = float(_score(objective, state.average, state.running, static, held_out))
        report = {"step": step, "total_steps": max_steps, "held_out_log_likelihood": score}
        if not taken.all():
            report["skipped_steps"] = int((~taken).sum())
        if not math.isfinite(score):
            averaged = _join(state.average, state.running, static)
            stopped = why_not_finite(objective, averaged, held_out, "held-out rows")
            stopped = stopped or "held-out rows: their mean likelihood is not finite"
        if stopped:
            report["stopped"] = stopped
        if taken.any():
            report |= {name: float(np.mean(each[taken])) for name, each in figures.items()}
        reports.append(report)
        if on_report:
            on_report(report)
        if stopped is None and score > best_score:
            # The state is donated to the next chunk, so what is kept must be a copy.
            best = _join(copy_arrays(state.average), copy_arrays(state.running), static)
            best_score, best_step, stale = score, step, 0
        else:
            stale = patience if stopped else stale + 1
    stage.done(best, record(done=True))
    return FlowFit(best, best_score, best_step, skipped, _stopped(reports))


def check_fit(fit: FlowFit) -> None:
    """Refuse a fit that never had a finite likelihood of held-out rows, not even at its start.

    Raises:
        InputError: why.
    """
    if fit.held_out_log_likelihood == -math.inf:
        raise InputError(fit.stopped or "held-out rows: their likelihood was never finite")


def _stopped(reports: list[dict[str, Any]]) -> str | None:
    return reports[-1].get("stopped") if reports else None


def parts_of(flow: eqx.Module) -> tuple[PyTree, PyTree, PyTree]:
    """What gradients change, the running statistics that batches change, and all else."""
    parameters, fixed = trainable(flow)
    return parameters, *eqx.partition(fixed, _of_batches(fixed))


def initial_state(parameters: PyTree, running: PyTree) -> FitState:
    """The state before the first step, all copies: a chunk is given its state to overwrite."""
    return FitState(
        copy_arrays(parameters),
        copy_arrays(parameters),
        copy_arrays(running),
        flow_optimiser().init(parameters),
        jnp.asarray(0),
    )


@eqx.filter_jit
def _score(objective: FlowObjective, *parts_and_rows: Any) -> Array:
    *parts, x = parts_and_rows
    return objective.score(_join(*parts), x)


@eqx.filter_jit(donate="all-except-first")
def run_chunk(fixed: tuple[Any, ...], state: FitState) -> tuple[FitState, dict[str, Array]]:
    """One step for each rate; `fixed` is what a chunk reads and does not change, as below."""
    objective, static, x, batch_size, rates, weight_decay, averaging, key = fixed
    order = jax.random.permutation(key, x.shape[0])

    def loss(
        parameters: PyTree, running: PyTree, i: Array, batch: Float[Array, "b d"]
    ) -> tuple[Any, ...]:
        flow = _join(parameters, running, static)
        value, (flow, figures) = objective.loss(jax.random.fold_in(key, i), flow, batch)
        fixed = trainable(flow)[1]
        running = eqx.filter(fixed, _of_batches(fixed))
        return value, (running, figures)

    def step(state: FitState, inputs: tuple[Array, Array]) -> tuple[FitState, dict[str, Array]]:
        i, rate = inputs
        rows = order[(i * batch_size + jnp.arange(batch_size)) % x.shape[0]]
        (value, (running, figures)), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.parameters, state.running, i, x[rows]
        )
        updates, optimiser = flow_optimiser().update(gradient, state.optimiser, state.parameters)
        parameters = jax.tree.map(
            lambda p, u, w: p - rate * (u + weight_decay * w),
            state.parameters,
            updates,
            _of_networks(state.parameters),
        )
        count = state.step + 1
        average = moving_average(state.average, parameters, count, averaging)
        taken = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(gradient))
        new = FitState(parameters, average, running, optimiser, count)
        kept = jax.tree.map(lambda new, old: jnp.where(taken, new, old), new, state)
        return kept._replace(step=count), figures | {"taken": taken}

    return jax.lax.scan(step, state, (jnp.arange(len(rates)), rates))


def _join(parameters: PyTree, running: PyTree, static: PyTree) -> PyTree:
    # In this order: where parameters have one None for a whole frozen part, the others have many.
    return eqx.combine(parameters, eqx.combine(running, static))


def _of_batches(tree: PyTree) -> PyTree:
    """What changes with the batches, not by gradients: the filter of running statistics."""

    def is_running(node: PyTree) -> bool:
        return isinstance(node, RunningStatistics)

    return jax.tree.map(is_running, tree, is_leaf=is_running)


def _of_networks(parameters: PyTree) -> PyTree:
    """The parameters of networks, and zeros in place of all others."""

    def is_network(node: PyTree) -> bool:
        return isinstance(node, (eqx.nn.MLP, ConcatSquashField, ConvolutionalField, MLPField))

    def keep(node: PyTree) -> PyTree:
        return node if is_network(node) else jax.tree.map(jnp.zeros_like, node)

    return jax.tree.map(keep, parameters, is_leaf=is_network)
