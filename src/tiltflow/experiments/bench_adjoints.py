"""Benchmark: ways to the gradient of a continuous flow's likelihood, all of one flow and batch.

    the default       the batch as one system, exact trace, gradient through checkpoints
    backwards         the same, gradient by a second solve (`Integration.adjoint`)
    Hutchinson        the same as the default with one probe of noise in place of the exact trace
    by vmap           every point with step sizes of its own, as `log_prob` solves it

64-64-64 (concat-squash) in the plane, tolerance 1e-5; the field is that of some steps of training,
as a field of zeros needs few calls. Loss and gradient alone, with no update; ways take turns.
"""

import statistics
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.distributions import Transformed
from jaxtyping import Array, Float

from tiltflow.experiments.bench_ffjord import LEARNING_RATE, new_flow, standard_rows
from tiltflow.experiments.clock import clock
from tiltflow.models.batch_likelihood import batch_likelihood
from tiltflow.models.continuous import with_integration
from tiltflow.models.flows import trainable
from tiltflow.models.integration import Integration
from tiltflow.report.table import format_table
from tiltflow.training.continuous_fit import ContinuousLikelihood, fit_continuous_flow

BATCHES = (100, 512)
TRAINED_STEPS = 200
TURNS = 5
DEFAULT = "batch as one system, gradient through checkpoints"
BACKWARDS = "the same, gradient by a second solve backwards"
HUTCHINSON = "the same, Hutchinson's trace in place of the exact one"
BY_VMAP = "every point with step sizes of its own (`vmap`)"


def bench_adjoints(*, seed: int, quiet: bool) -> None:
    """Print milliseconds of loss and gradient for every way and batch."""
    x = jnp.asarray(standard_rows(seed))
    flow = trained_flow(x, seed)
    calls = int(eqx.filter_jit(batch_likelihood)(flow, x[: BATCHES[0]]).evaluations)
    rows = {}
    for batch in BATCHES:
        for way, milliseconds in measure(flow, x[:batch], seed=seed).items():
            rows.setdefault(way, [way]).append(f"{milliseconds:.1f}")
            if not quiet:
                print(batch, way, f"{milliseconds:.0f} ms", flush=True)
    print(
        f"loss and gradient of one batch, ms by the processor's time; 64-64-64, exact trace, "
        f"tolerance 1e-5, {calls} calls of the field, {jax.default_backend()}"
    )
    print(format_table(["", *(f"batch {batch}" for batch in BATCHES)], list(rows.values())))


def trained_flow(x: Float[Array, "n 2"], seed: int) -> Transformed:
    """The flow after some steps at a fixed number of solver steps, which is quick."""
    fit = fit_continuous_flow(
        jax.random.key(seed),
        with_integration(new_flow(seed), Integration(steps=2)),
        x,
        x[:500],
        objective=ContinuousLikelihood(trace="exact"),
        learning_rate=LEARNING_RATE,
        batch_size=BATCHES[0],
        max_steps=TRAINED_STEPS,
        chunk=TRAINED_STEPS,
        averaging=0.9,
    )
    return with_integration(fit.flow, Integration())


def measure(flow: Transformed, x: Float[Array, "b 2"], *, seed: int) -> dict[str, float]:
    """Median milliseconds of every way; the first turn warms up."""
    key = jax.random.key(seed)
    backwards = with_integration(flow, Integration(adjoint="backwards"))

    def exact(flow: Any) -> Array:
        return batch_likelihood(flow, x).log_prob.mean()

    def noisy(flow: Any) -> Array:
        return batch_likelihood(flow, x, key, trace="gaussian").log_prob.mean()

    ways: dict[str, tuple[Transformed, Callable[[Any], Array]]] = {
        DEFAULT: (flow, exact),
        BACKWARDS: (backwards, exact),
        HUTCHINSON: (flow, noisy),
        BY_VMAP: (flow, lambda flow: flow.log_prob(x).mean()),
    }
    runs = {way: _compiled(*each) for way, each in ways.items()}
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(TURNS + 1):
        for way, run in runs.items():
            started = clock()
            jax.block_until_ready(run())
            seconds[way].append(clock() - started)
    return {way: 1e3 * statistics.median(each[1:]) for way, each in seconds.items()}


def _compiled(flow: Transformed, value: Callable[[Any], Array]) -> Callable[[], Any]:
    parameters, static = trainable(flow)
    step = jax.jit(jax.value_and_grad(lambda parameters: value(eqx.combine(parameters, static))))
    compiled = step.lower(parameters).compile()
    return lambda: compiled(parameters)
