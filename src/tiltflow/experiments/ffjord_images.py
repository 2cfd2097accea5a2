"""FFJORD on grey images: a multiscale continuous flow (Grathwohl et al. 2019), one training.

Solves adapt their steps, the same in training and in the test, and the kinetic-energy and Jacobian
regularisers keep them few (Finlay et al. 2020). The trace is Hutchinson's throughout: at 784 pixels
the exact one costs 784 products. Its mean over test images is without bias, and its noise is in the
error that stands beside. Images are dequantised once; what is reported is -log p in pixel units, in
nats and in bits per dimension, for the flow before training, which is a logit and a normal, too.

Without the files of MNIST, and in a quick run, it is scikit-learn's digits: 8 x 8 pixels of 17
levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import Transformed
from jaxtyping import Array, Float, PRNGKeyArray

import tiltflow
from tiltflow.data.pixel_logit import bits_per_dimension
from tiltflow.experiments import grey_images
from tiltflow.experiments.cells import Cell, Line, run_cells
from tiltflow.experiments.clock import clock
from tiltflow.experiments.failures import failures
from tiltflow.experiments.grey_images import DATA, GreyImages, load_digits, load_grey_images
from tiltflow.models.batch_likelihood import BatchLikelihood, batch_likelihood
from tiltflow.models.integration import Integration
from tiltflow.models.multiscale import multiscale_flow
from tiltflow.report.table import format_table, in_decimals
from tiltflow.training.continuous_fit import ContinuousLikelihood, fit_continuous_flow

EXPERIMENT = "ffjord-images"
DIGITS = "digits"
OBJECTIVE = ContinuousLikelihood(kinetic_energy=0.01, jacobian_norm=0.01, score_trace="rademacher")
ROWS_AT_ONCE = 100


@dataclass(frozen=True)
class Settings:
    """The flow, its training, and how many images of each part there are."""

    rows: int
    held_out: int
    test: int
    steps: int
    chunk: int
    batch_size: int = 32
    learning_rate: float = 5e-3
    channels: tuple[int, ...] = (16, 16)
    tolerance: float = 1e-3

    def flow(self, key: PRNGKeyArray, images: GreyImages) -> Transformed:
        """A new one of two scales."""
        return multiscale_flow(
            key,
            (*images.shape, 1),
            channels=self.channels,
            levels=images.levels,
            integration=Integration(tolerance=self.tolerance),
        )


WHOLE = {
    "mnist": Settings(50_000, 100, 500, steps=120, chunk=20),
    DIGITS: Settings(1200, 200, 397, steps=1200, chunk=60),
}
QUICK = {DIGITS: Settings(1200, 100, 200, steps=80, chunk=20)}


def reproduce_ffjord_images(
    *, seeds: int, seed: int, quiet: bool, out: Path, quick: bool = False
) -> None:
    """The table of the data sets whose files are there, else of the digits."""
    known = QUICK if quick else WHOLE
    found = [name for name in known if name in DATA and (grey_images.FOLDER / DATA[name]).is_dir()]
    chosen = {name: known[name] for name in found or [DIGITS]}
    cells = [
        cell
        for name, settings in chosen.items()
        for cell in make_cells(name, settings, range(seed, seed + seeds))
    ]
    print(summary(run_cells(cells, out, quiet=quiet), chosen), flush=True)


def make_cells(name: str, settings: Settings, seeds: Sequence[int]) -> list[Cell]:
    """One training for each seed."""
    prepared = lru_cache(maxsize=1)(lambda seed: load_images(name, settings, seed=seed))

    def run(cell: Cell, lines: Sequence[Line]) -> dict[str, Any]:
        return train_and_judge(settings, prepared(cell.seed), seed=cell.seed)

    names = (EXPERIMENT, name, "multiscale", f"channels {settings.channels}")
    budget, each = f"{settings.steps} steps", 0.5 if name == DIGITS else 6.0
    told = (tiltflow.__version__, settings, OBJECTIVE)
    guess = 60.0 + each * settings.steps
    return [Cell(*names, seed, budget, told, guess, run) for seed in seeds]


def load_images(name: str, settings: Settings, *, seed: int) -> GreyImages:
    """Those of the data set of that name."""
    parts = settings.rows, settings.held_out, settings.test
    if name == DIGITS:
        return load_digits(*parts, seed=seed)
    return load_grey_images(name, *parts, seed=seed)


def train_and_judge(settings: Settings, images: GreyImages, *, seed: int) -> dict[str, Any]:
    """One training; negative log-likelihoods of test images before and after it."""
    flow_key, fit_key, test_key = jax.random.split(jax.random.key(seed), 3)
    flow = settings.flow(flow_key, images)
    before = log_prob_of_images(flow, images.test, test_key)[0]
    reports: list[dict[str, Any]] = []
    started = clock()
    fit = fit_continuous_flow(
        fit_key,
        flow,
        jnp.asarray(images.train),
        jnp.asarray(images.held_out),
        objective=OBJECTIVE,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        max_steps=settings.steps,
        chunk=settings.chunk,
        patience=settings.steps // settings.chunk,
        on_report=reports.append,
    )
    seconds = clock() - started
    assert isinstance(fit.flow, Transformed)
    log_prob, calls = log_prob_of_images(fit.flow, images.test, test_key)
    nll, pixels = -float(log_prob.mean()), images.test.shape[1]
    return {
        "start_bits": bits_per_dimension(float(before.mean()), pixels),
        "bits_per_dimension": bits_per_dimension(-nll, pixels),
        "nll": nll,
        "nll_stderr": float(log_prob.std() / np.sqrt(len(log_prob))),
        "calls_training": reports[-1].get("evaluations", float("nan")),
        "calls": calls,
        "seconds": seconds,
        "kept_step": fit.steps,
        "skipped": fit.skipped,
        "stopped": fit.stopped,
        "failed_rows": int((~np.isfinite(log_prob)).sum()),
    }


def log_prob_of_images(
    flow: Transformed, x: Float[np.ndarray, "n d"], key: PRNGKeyArray
) -> tuple[Float[np.ndarray, " n"], float]:
    """Log-densities in nats with the noise of `key`, and the mean calls of all fields in a solve.

    NaN where a solve failed, for all of its images.
    """
    # The last part is filled up, so that one program serves all.
    size = min(ROWS_AT_ONCE, len(x))
    filled = np.concatenate([x, np.repeat(x[-1:], -len(x) % size, axis=0)])
    parts = [
        _evaluate(flow, jnp.asarray(part), jax.random.fold_in(key, i))
        for i, part in enumerate(filled.reshape(-1, size, x.shape[1]))
    ]
    log_prob = np.concatenate([np.asarray(part.log_prob, float) for part in parts])[: len(x)]
    return log_prob, float(np.mean([part.evaluations for part in parts]))


@eqx.filter_jit
def _evaluate(flow: Transformed, x: Float[Array, "n d"], key: PRNGKeyArray) -> BatchLikelihood:
    return batch_likelihood(flow, x, key, trace="rademacher")


# Heading, figure and decimals.
COLUMNS = (
    ("bits/dim at the start", "start_bits", 3),
    ("bits/dim", "bits_per_dimension", 3),
    ("NLL, nats", "nll", 1),
    ("its error", "nll_stderr", 1),
    ("calls, training", "calls_training", 0),
    ("calls, test", "calls", 0),
    ("seconds", "seconds", 0),
    ("kept at step", "kept_step", 0),
)


def summary(lines: Sequence[Line], chosen: dict[str, Settings]) -> str:
    """What was run, and the table: means over the seeds."""
    told = [
        f"{name}: {it.rows} training images, {it.test} test images, {it.steps} steps of "
        f"{it.batch_size}; 2 scales, fields of channels {it.channels}, tolerance "
        f"{it.tolerance:g}; calls of all 3 fields in one solve"
        for name, it in chosen.items()
    ]
    rows = []
    for name in chosen:
        group = [line["figures"] for line in lines if line["case"] == name]
        figures = [
            in_decimals([each[it] for each in group], decimals) for _, it, decimals in COLUMNS
        ]
        rows.append([name, str(len(group)), *figures])
    columns = ["data", "seeds", *(heading for heading, _, _ in COLUMNS)]
    return "\n".join([*told, format_table(columns, rows), failures(lines)])
