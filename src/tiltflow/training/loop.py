"""The training loop: compiled chunks of likelihood steps, watched from outside between chunks.

Within a chunk nothing leaves the device. Between chunks the host reports, compares the averaged
energy with the best one on held-out rows, keeps the better, stops early, and goes back to the
last good state when something ran away. One compilation serves the whole run, and any longer or
shorter one: everything that changes (the learning rate, the step count) is an argument.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from tiltflow.evaluation.held_out import compare_on_held_out
from tiltflow.models.energies import Energy
from tiltflow.models.flows import trainable
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.independent import check_trace_is_exact
from tiltflow.training.balanced import Balanced, BalancedState
from tiltflow.training.checkpoints import UNSAVED, Stage, replay
from tiltflow.training.guard import Runaway, TrainingFailed, find_runaway
from tiltflow.training.methods import Objective, Source, energy_gradient
from tiltflow.training.steps import copy_arrays, moving_average

OnReport = Callable[[dict[str, Any]], None]

Rows = Callable[[int], Float[Array, "n d"]]
"""The rows that the batches of a chunk are drawn from, given the chunk's first step."""

MOST_EARLIER = 6
"""Copies of the energy from earlier in training, by which chains may cross (`sampling/ladder.py`):
from the start, and from after 1, 2, 4, 8 ... chunks."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast an energy is trained; rates fall to zero by a cosine.

    Attributes:
        steps: at most.
        chunk: steps between two looks from outside: reports, comparison, checkpoints.
        learning_rate: the peak, of Adam (Kingma and Ba 2015).
        weight_decay: decoupled, times the learning rate (Loshchilov and Hutter 2019).
        batch_size: rows of a step.
        clip: largest norm of a gradient.
        averaging: decay of the moving average of the parameters, which is what is kept.
        patience: chunks without a gain on the held-out rows after which training stops.
        draws: of the flow, by which two energies are compared.
        max_rollbacks: returns to the last good state, at half the rate, before it gives up.
    """

    steps: int = 4000
    chunk: int = 100
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    batch_size: int = 1024
    clip: float = 5.0
    averaging: float = 0.998
    patience: int = 10
    draws: int = 8192
    max_rollbacks: int = 5


class Fixed(NamedTuple):
    """Everything a chunk reads and does not change; of the schedule, `of_a_chunk`."""

    source: Any
    base: AbstractDistribution
    energy_static: PyTree
    flow_static: PyTree
    schedule: Schedule
    x: Float[Array, "n d"]


class TrainState(NamedTuple):
    """Everything a step changes. `average` is the moving average of the energy's parameters."""

    energy: PyTree
    average: PyTree
    optimiser: PyTree
    source: Any
    step: Int[Array, ""]


class Trained(NamedTuple):
    """The best energy (or the last average, where nothing was held out) and what trained it.

    `stopped` says which quantity ran away for good, if one did; `energy` is then the last good.
    `earlier` are averaged energies on the way to it, `MOST_EARLIER` at most, the oldest first.
    """

    energy: Energy
    flow: AbstractDistribution | None
    flow_static: PyTree
    source: Any
    best_step: int
    reports: list[dict[str, Any]]
    stopped: Runaway | None
    earlier: tuple[Energy, ...]


class Settled(NamedTuple):
    """Chains and flow under the energy that is kept, and how many proposals chains then take.

    `acceptance_rate` is the mean over the last half of the last chunk; nan where it ran away.
    """

    source: BalancedState
    acceptance_rate: float


def train_energy(
    key: PRNGKeyArray,
    energy: Energy,
    base: AbstractDistribution,
    source: Source | Objective,
    flow: AbstractDistribution | None,
    x: Float[Array, "n d"] | Rows,
    held_out: Float[Array, "m d"] | None,
    schedule: Schedule,
    *,
    on_report: OnReport | None = None,
    watch: Callable[[Energy, Any], dict[str, Any]] | None = None,
    stage: Stage = UNSAVED,
) -> Trained:
    """Train `energy` on rows `x` by maximum likelihood with negatives from `source`.

    Rows that are not all in memory are given chunk by chunk, always as many. With `held_out` rows
    and a flow, the best averaged energy on them is kept and training stops after `patience`
    reports without a gain. `watch` adds figures of its own to each report, from the averaged energy
    and the source's state. What `stage` has saved is gone on with; its reports are given once more.

    Raises:
        InputError: the base or the flow holds noise for the trace of a continuous flow.
        TrainingFailed: it ran away from the very first state, again and again.
    """
    check_trace_is_exact(base, "base")
    check_trace_is_exact(flow, "flow")
    init_key, run_key, report_key = jax.random.split(key, 3)
    energy_parameters, energy_static = eqx.partition(energy, eqx.is_inexact_array)
    flow_static = trainable(flow)[1]
    source_state = source.init(init_key, base, flow)
    state = initial_state(energy_parameters, source_state, schedule)
    best, best_flow, best_step, stale = energy, flow, 0, 0
    reports: list[dict[str, Any]] = []
    rollbacks, rate_scale, stopped, step = 0, 1.0, None, 0
    earlier = {0: energy}
    if saved := stage.saved():
        best_step, stale, rollbacks, rate_scale, step, at_steps, reports = saved.record["at"]
        earlier = dict.fromkeys(at_steps, energy)
        state, best, best_flow, earlier = saved.fill((state, best, best_flow, earlier))
        replay(reports, on_report)
    good = copy_arrays(state)

    def carried() -> tuple[Any, dict[str, Any]]:
        at = (best_step, stale, rollbacks, rate_scale, step, list(earlier), reports)
        return (state, best, best_flow, earlier), {"at": at}

    while step < schedule.steps and stale < schedule.patience:
        stage.offer(carried)
        rates = _rates(step, schedule) * rate_scale
        chunk_key = jax.random.fold_in(run_key, step + 1_000_003 * rollbacks)
        rows = x(step) if callable(x) else x
        fixed = Fixed(source, base, energy_static, flow_static, of_a_chunk(schedule), rows)
        started = time.perf_counter()
        state, trace = run_chunk((fixed, rates, rates, chunk_key), state)
        trace = {name: np.asarray(values) for name, values in trace.items()}
        seconds = time.perf_counter() - started

        runaway = find_runaway(trace, step, rows.shape[1])
        if runaway is not None:
            rollbacks += 1
            rate_scale *= 0.5
            event = {
                "stage": "energy",
                "event": "rollback",
                "step": step,
                "reason": str(runaway),
                "rate_scale": rate_scale,
            }
            reports.append(event)
            if on_report:
                on_report(event)
            if rollbacks > schedule.max_rollbacks:
                stopped, state = runaway, good
                break
            state = copy_arrays(good)
            continue
        step += schedule.chunk
        good = copy_arrays(state)

        candidate = eqx.combine(state.average, energy_static)
        chunks = step // schedule.chunk
        if chunks & (chunks - 1) == 0:
            earlier[step] = copy_arrays(candidate)
        report: dict[str, Any] = {
            "stage": "energy",
            "step": step,
            "total_steps": schedule.steps,
            **{name: float(values.mean()) for name, values in trace.items()},
            "steps_per_second": schedule.chunk / seconds,
        }
        if held_out is not None and flow is not None:
            candidate_flow = eqx.combine(state.source.flow, flow_static)
            comparison = compare_on_held_out(
                jax.random.fold_in(report_key, step),
                base,
                candidate,
                best,
                candidate_flow,
                held_out,
                schedule.draws,
            )
            report |= {name: float(value) for name, value in comparison.items()}
            if report["gain"] > 0 and report["clear"]:
                best, best_flow, best_step, stale = (
                    copy_arrays(candidate),
                    copy_arrays(candidate_flow),
                    step,
                    0,
                )
            else:
                stale += 1
        if watch:
            report |= watch(candidate, state.source)
        reports.append(report)
        if on_report:
            on_report(report)
    if stopped is not None and step == 0:
        raise TrainingFailed(
            f"training ran away from its first state {rollbacks} times: {stopped}. "
            "Lower the learning rate, or look at the rows for outliers."
        )
    if stopped is None:
        stage.done(*carried())
    if held_out is None or flow is None:
        best, best_step = eqx.combine(state.average, energy_static), step
    # The start always: what is kept may still be polished.
    on_the_way = [each for at, each in earlier.items() if at == 0 or at < best_step]
    if len(on_the_way) > MOST_EARLIER:
        on_the_way = [on_the_way[0], *on_the_way[1 - MOST_EARLIER :]]
    return Trained(
        best, best_flow, flow_static, state.source, best_step, reports, stopped, tuple(on_the_way)
    )


def settle(
    key: PRNGKeyArray,
    trained: Trained,
    base: AbstractDistribution,
    source: Balanced,
    x: Float[Array, "n d"],
    schedule: Schedule,
    *,
    chunks: int,
) -> Settled:
    """Freeze the energy and let the chains and the flow come to it; the compiled chunk is reused.

    Training leaves a flow that follows the last energy, while the best averaged one is kept.
    """
    energy_parameters, energy_static = eqx.partition(trained.energy, eqx.is_inexact_array)
    fixed = Fixed(source, base, energy_static, trained.flow_static, of_a_chunk(schedule), x)
    state = initial_state(energy_parameters, trained.source, schedule)
    frozen = jnp.zeros(schedule.chunk)
    acceptance_rate = math.nan
    for index in range(chunks):
        # By way of NumPy: a weakly typed array would not match what training compiled.
        flow_rate = 0.5 * (1 + math.cos(math.pi * index / chunks))
        flow_rates = jnp.asarray(np.full(schedule.chunk, flow_rate))
        state, trace = run_chunk((fixed, frozen, flow_rates, jax.random.fold_in(key, index)), state)
        trace = {name: np.asarray(values) for name, values in trace.items()}
        if find_runaway(trace, 0, x.shape[1]) is not None:
            return Settled(trained.source, math.nan)
        acceptance_rate = float(trace["global_acceptance_rate"][schedule.chunk // 2 :].mean())
    return Settled(state.source, acceptance_rate)


def of_a_chunk(schedule: Schedule) -> Schedule:
    """The schedule as a chunk is compiled for it: the same for runs of any length."""
    return replace(schedule, steps=schedule.chunk)


def initial_state(energy_parameters: PyTree, source_state: Any, schedule: Schedule) -> TrainState:
    """The state before the first step, all copies: a chunk is given its state to overwrite."""
    return TrainState(
        energy=copy_arrays(energy_parameters),
        average=copy_arrays(energy_parameters),
        optimiser=_optimiser(schedule).init(energy_parameters),
        source=copy_arrays(source_state),
        step=jnp.asarray(0),
    )


def _rates(first_step: int, schedule: Schedule) -> Float[Array, " steps"]:
    """The cosine schedule of one chunk, relative to the peak, with a short warm-up."""
    steps = first_step + np.arange(schedule.chunk)
    cosine = 0.5 * (1 + np.cos(math.pi * np.minimum(steps / schedule.steps, 1.0)))
    return jnp.asarray(cosine * np.minimum(1.0, (steps + 1) / 100))


def _optimiser(schedule: Schedule) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(schedule.clip),
        optax.scale_by_adam(),
        optax.add_decayed_weights(schedule.weight_decay),
    )


@eqx.filter_jit(donate="all-except-first")
def run_chunk(
    inputs: tuple[Fixed, Float[Array, " steps"], Float[Array, " steps"], PRNGKeyArray],
    state: TrainState,
) -> tuple[TrainState, dict[str, Float[Array, " steps"]]]:
    """One chunk of likelihood steps; also returns the trace of every watched quantity.

    `inputs` are the fixed parts, the rates of the energy and of the proposal at every step
    relative to their peaks, and a key. `state` is donated.
    """
    fixed, energy_rates, flow_rates, key = inputs
    source, base, energy_static, flow_static, schedule, x = fixed
    shuffle_key, run_key = jax.random.split(key)
    order = jax.random.permutation(shuffle_key, x.shape[0])
    batch_size = min(schedule.batch_size, x.shape[0])

    def step(state: TrainState, inputs: tuple[Any, ...]) -> tuple[TrainState, dict[str, Any]]:
        i, energy_rate, flow_rate = inputs
        batch = x[order[(i * batch_size + jnp.arange(batch_size)) % x.shape[0]]]
        gradient, source_state, info = energy_gradient(
            source,
            jax.random.fold_in(run_key, i),
            TiltedEBM(base, eqx.combine(state.energy, energy_static)),
            flow_static,
            state.source,
            batch,
            flow_rate,
        )
        gradient, _ = eqx.partition(gradient, eqx.is_inexact_array)
        updates, optimiser = _optimiser(schedule).update(gradient, state.optimiser, state.energy)
        parameters = jax.tree.map(
            lambda p, u: p - schedule.learning_rate * energy_rate * u, state.energy, updates
        )
        count = state.step + 1
        average = moving_average(state.average, parameters, count, schedule.averaging)
        info |= {"gradient_norm": optax.tree.norm(gradient)}
        return TrainState(parameters, average, optimiser, source_state, count), info

    return jax.lax.scan(step, state, (jnp.arange(schedule.chunk), energy_rates, flow_rates))
