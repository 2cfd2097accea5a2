"""Benchmark: a step of score matching against one of maximum likelihood, with dense linear layers.

The same flow (two d x d layers with a smooth leaky ReLU between), the same rows and optimiser; only
the loss differs. Compiled chunks are timed in turns by the processor's time (`clock.py`), and
medians compared. By count of additions and multiplications, of b rows:

    likelihood            16/3 d^3 + 10 b d^2    LU and inverse of both layers; 5 products
    denoising                        22 b d^2    11 products: 4 for the score, 7 for its gradient
    finite differences               30 b d^2    15: 5 for each of three energies

so that the likelihood is (8 d / 3 + 5 b) / 11 b times as dear as denoising: 7.9 at d = 3072 and
b = 100, and 75 at b = 10. Beside them every step reads and writes the parameters, their gradient,
Adam's two moments and the average, d^2 each: little beside 100 rows, all there is beside few.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tiltflow.experiments.clock import clock
from tiltflow.models.energy_flow_architectures import fully_connected_energy_flow
from tiltflow.report.table import format_table
from tiltflow.training.denoising_score_matching import DenoisingScoreMatching
from tiltflow.training.finite_difference_score_matching import FiniteDifferenceScoreMatching
from tiltflow.training.flow_losses import (
    FlowLoss,
    MaximumLikelihood,
    SampledMaximumLikelihood,
    ScoreMatching,
)
from tiltflow.training.flow_objective import Minimise
from tiltflow.training.maximum_likelihood import (
    initial_state,
    parts_of,
    run_chunk,
)
from tiltflow.training.sliced_score_matching import SlicedScoreMatching

LOSSES: dict[str, FlowLoss] = {
    "likelihood": MaximumLikelihood(),
    "sampled likelihood": SampledMaximumLikelihood(),
    "sliced": ScoreMatching(SlicedScoreMatching()),
    "denoising": ScoreMatching(DenoisingScoreMatching(0.1)),
    "finite differences": ScoreMatching(FiniteDifferenceScoreMatching(0.1)),
}
# Dimension, steps in a chunk and chunks. A chunk begins with a copy of the state: one step alone
# would pay for all of it.
SIZES = {64: (40, 5), 256: (10, 5), 784: (4, 3), 3072: (4, 1)}
BAR = 10.0
"""How many times as fast denoising should be in the largest dimension."""
BATCHES = (100, 10)
"""Rows a step: the published ones of 28 x 28 and 32 x 32 images, and of 64 x 64."""


def bench_ebflow(*, seed: int, quiet: bool) -> None:
    """Print milliseconds a step for every loss and dimension, ratios and exponents of growth."""
    lines, measured = [], {}
    for batch, dimension in itertools.product(BATCHES, SIZES):
        times = measure(dimension, batch, seed=seed)
        measured[batch, dimension] = times
        for loss, each in times.items():
            ratio = times["likelihood"] / each
            lines.append([str(batch), str(dimension), loss, f"{each:.2f}", f"{ratio:.1f}"])
            if not quiet:
                print(" ".join(lines[-1]), flush=True)
    print(f"one step of a flow of two dense layers, {jax.default_backend()}")
    print(format_table(["batch", "d", "loss", "step, ms", "likelihood / it"], lines))
    *_, before, largest = sorted(SIZES)
    for batch in BATCHES:
        for loss in LOSSES:
            times = {dimension: measured[batch, dimension][loss] for dimension in (before, largest)}
            print(f"batch {batch}, {loss}: grows as d^{growth(times):.2f} from {before} on")
        ratio = measured[batch, largest]["likelihood"] / measured[batch, largest]["denoising"]
        met = "met" if ratio >= BAR else "missed"
        print(f"batch {batch}, d = {largest}: denoising {ratio:.1f} x, bar {BAR:g} x: {met}")


def growth(times: Mapping[int, float]) -> float:
    """The exponent of the power of the dimension that fits best, in logarithms."""
    return float(np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)[0])


def measure(
    dimension: int, batch: int, *, seed: int, losses: Sequence[str] | None = None
) -> dict[str, float]:
    """Median milliseconds a step of `losses` (all if None) on `batch` rows of `dimension`."""
    losses = losses or list(LOSSES)
    chunk, repeats = SIZES[dimension]
    flow = fully_connected_energy_flow(jax.random.key(seed), dimension)
    x = jax.random.normal(jax.random.key(seed + 1), (10 * batch, dimension))
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    runs = {}
    for name in losses:
        parameters, running, static = parts_of(flow)
        rates = jnp.asarray(np.full(chunk, 1e-4, x.dtype))
        decay = jnp.zeros((), x.dtype)
        objective = Minimise(LOSSES[name])
        fixed = (objective, static, x, batch, rates, decay, 0.99, jax.random.key(2))
        state = initial_state(parameters, running)
        runs[name] = (fixed, run_chunk.lower(fixed, state).compile())  # pyright: ignore[reportFunctionMemberAccess]
    for _ in range(repeats + 1):
        for name, (fixed, compiled) in runs.items():
            state = jax.block_until_ready(initial_state(*parts_of(flow)[:2]))
            started = clock()
            jax.block_until_ready(compiled(fixed, state))
            seconds[name].append(clock() - started)
    # The first turn warms up.
    return {name: 1e3 * statistics.median(each[1:]) / chunk for name, each in seconds.items()}
