"""Benchmark: a step of score matching against one of maximum likelihood, with dense linear layers.

The same flow (two d x d layers with a smooth leaky ReLU between), the same rows and optimiser; only
the loss differs. The likelihood's determinants and their gradients are d^3; the losses of scores
are d^2 for each row of the batch. Compiled chunks are timed in turns, and medians compared.
"""

import itertools
import statistics
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

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
from tiltflow.training.maximum_likelihood import (
    Minimise,
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
# Dimension, steps in a chunk and chunks: the largest runs a few steps, once.
SIZES = {64: (40, 5), 256: (10, 5), 784: (4, 3), 3072: (1, 1)}
BATCHES = (100, 10)
"""Rows a step: the published ones of 28 x 28 and 32 x 32 images, and of 64 x 64."""


def bench_ebflow(*, seed: int, quiet: bool) -> None:
    """Print milliseconds a step for every loss and dimension, and the likelihood's over each."""
    lines = []
    for batch, dimension in itertools.product(BATCHES, SIZES):
        times = measure(dimension, batch, seed=seed)
        for loss, each in times.items():
            ratio = times["likelihood"] / each
            lines.append([str(batch), str(dimension), loss, f"{each:.2f}", f"{ratio:.1f}"])
            if not quiet:
                print(" ".join(lines[-1]), flush=True)
    print(f"one step of a flow of two dense layers, {jax.default_backend()}")
    print(format_table(["batch", "d", "loss", "step, ms", "likelihood / it"], lines))


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
            started = time.perf_counter()
            jax.block_until_ready(compiled(fixed, state))
            seconds[name].append(time.perf_counter() - started)
    # The first turn warms up.
    return {name: 1e3 * statistics.median(each[1:]) / chunk for name, each in seconds.items()}
