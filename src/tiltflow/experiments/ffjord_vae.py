"""A variational autoencoder of binary MNIST, its posterior with and without a flow.

Grathwohl et al. (2019) compare posteriors by the negative bound on the test images. Here encoder
and decoder are MLPs of two layers of 300 and the latent space has 32 dimensions, so that all of it
fits a CPU; theirs are gated convolutional networks and 64 dimensions, and their figures stand
beside for reference, not to be matched. All posteriors take the same steps on the same rows; pixels
are drawn from grey levels anew in every step, for held-out and test images once.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

import tiltflow
from tiltflow.data.errors import InputError
from tiltflow.data.idx import read_idx
from tiltflow.data.public_tables import FOLDER
from tiltflow.experiments.cells import Cell, Line, run_cells
from tiltflow.experiments.clock import clock
from tiltflow.experiments.failures import failures
from tiltflow.models.integration import Integration
from tiltflow.models.posteriors import (
    ContinuousPosterior,
    GaussianPosterior,
    PlanarPosterior,
    Posterior,
)
from tiltflow.models.variational_autoencoder import VariationalAutoencoder
from tiltflow.report.table import format_table, mean_and_std
from tiltflow.training.maximum_likelihood import fit_flow
from tiltflow.training.variational import VariationalBound, bound_of_rows

EXPERIMENT = "ffjord-vae"
LATENT = 32
WIDTH = 300
GUESSED_SECONDS = {"gaussian": 120.0, "planar": 180.0, "ffjord": 700.0}
PUBLISHED = {"gaussian": "86.55 ± 0.06", "planar": "86.06 ± 0.31", "ffjord": "82.82 ± 0.01"}
"""Negative bounds of MNIST, nats: Grathwohl et al. (2019), read in a digest of the paper."""


class Budget(NamedTuple):
    """Rows of each part and training steps."""

    train: int = 50_000
    held_out: int = 1000
    test: int = 10_000
    steps: int = 3000
    chunk: int = 500
    batch_size: int = 100
    learning_rate: float = 1e-3


QUICK = Budget(train=5000, held_out=200, test=500, steps=300, chunk=100)


def reproduce_ffjord_vae(
    *,
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None = None,
    quick: bool = False,
) -> None:
    """The negative bound on test images for every posterior, MNIST's published figures beside.

    The images are looked for in TILTFLOW_DATA and beside it, in a folder `mnist`.
    """
    for name in methods or ():
        if name not in POSTERIORS:
            known = ", ".join(POSTERIORS)
            raise InputError(f"--methods: '{name}' is not known; use some of {known}")
    entered = [name for name in POSTERIORS if methods is None or name in methods]
    budget = QUICK if quick else Budget()
    images = lru_cache(maxsize=1)(lambda: load_mnist(find_mnist(), budget))
    cells = [
        Cell(
            EXPERIMENT,
            "MNIST",
            name,
            f"latent {LATENT}",
            run_seed,
            "steps",
            (tiltflow.__version__, budget, LATENT, WIDTH, POSTERIORS[name]),
            GUESSED_SECONDS[name] * budget.steps / Budget().steps + 30,
            lambda cell, lines: run(cell.method, budget, *images(), seed=cell.seed),
        )
        for run_seed in range(seed, seed + seeds)
        for name in entered
    ]
    find_mnist()
    print(summary(run_cells(cells, out, quiet=quiet), budget))


def find_mnist() -> Path:
    """The folder of the four files.

    Raises:
        InputError: there is none.
    """
    for place in (FOLDER, FOLDER / "mnist", FOLDER.parent / "mnist"):
        if (place / FILES[0]).exists():
            return place
    raise InputError(f"{FOLDER}: found no {FILES[0]} here or in 'mnist' beside; set TILTFLOW_DATA")


FILES = ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz")


def load_mnist(
    folder: Path, budget: Budget
) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "v p"], Float[np.ndarray, "t p"]]:
    """Grey levels in [0, 1] to train on, to hold out (the last training images), and to test."""
    found = [read_idx(folder / file) for file in FILES]
    train, test = (each.reshape(len(each), -1).astype(np.float32) / 255 for each in found)
    return train[: budget.train], train[-budget.held_out :], test[: budget.test]


def run(
    name: str,
    budget: Budget,
    train: Float[np.ndarray, "n p"],
    held_out: Float[np.ndarray, "v p"],
    test: Float[np.ndarray, "t p"],
    *,
    seed: int,
) -> dict[str, Any]:
    """Train one posterior and judge it."""
    model_key, fit_key = jax.random.split(jax.random.key(seed))
    model = _new_model(POSTERIORS[name], train.shape[1], LATENT, WIDTH, model_key)
    started = clock()
    reports: list[dict[str, Any]] = []
    fit = fit_flow(
        fit_key,
        model,
        jnp.asarray(train),
        jnp.asarray(held_out),
        learning_rate=budget.learning_rate,
        batch_size=budget.batch_size,
        max_steps=budget.steps,
        chunk=budget.chunk,
        patience=budget.steps // budget.chunk,
        objective=VariationalBound(),
        averaging=0.999,
        on_report=reports.append,
    )
    seconds = clock() - started
    values, calls = bound_of_rows(fit.flow, test)
    return {
        "negative_bound": float(-values.mean()),
        "stderr": float(values.std() / np.sqrt(len(values))),
        "held_out": -fit.held_out_log_likelihood,
        "evaluations": float(reports[-1]["evaluations"]),
        "test_evaluations": calls,
        "seconds": seconds,
        "steps": reports[-1]["step"],
        "best_step": fit.steps,
        "skipped": fit.skipped,
        "stopped": fit.stopped,
        "failed_rows": int((~np.isfinite(values)).sum()),
    }


def summary(lines: Sequence[Line], budget: Budget) -> str:
    """A row for every posterior: mean and spread over the seeds."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(line["method"], []).append(line["figures"])
    rows = [
        [
            name,
            str(len(figures)),
            mean_and_std([it["negative_bound"] for it in figures]),
            f"{np.mean([it['stderr'] for it in figures]):.2f}",
            f"{np.mean([it['evaluations'] for it in figures]):.0f}",
            f"{np.mean([it['test_evaluations'] for it in figures]):.0f}",
            f"{np.mean([it['seconds'] for it in figures]):.0f}",
            PUBLISHED[name],
        ]
        for name, figures in groups.items()
    ]
    columns = [
        "posterior",
        "seeds",
        "negative bound",
        "its error",
        "calls in training",
        "calls in test",
        "seconds",
        "published",
    ]
    return (
        f"binary MNIST, {budget.train} images, {budget.steps} steps, latent {LATENT}; nats on "
        f"{budget.test} test images; published: larger networks, latent 64\n"
        f"{format_table(columns, rows)}\n{failures(lines)}"
    )


def gaussian(latent: int, *, key: PRNGKeyArray) -> Posterior:
    """No flow."""
    return GaussianPosterior()


def planar(latent: int, *, key: PRNGKeyArray, maps: int) -> Posterior:
    """Planar maps, all of them a point's own."""
    return PlanarPosterior(latent, maps)


POSTERIORS: dict[str, Callable[..., Posterior]] = {
    "gaussian": gaussian,
    "planar": partial(planar, maps=8),
    "ffjord": partial(
        ContinuousPosterior, flows=2, widths=(64, 64), rank=20, integration=Integration()
    ),
}
"""With all of their settings, which belong to a cell's fingerprint."""


@eqx.filter_jit
def _new_model(
    make: Callable[..., Posterior], pixels: int, latent: int, width: int, key: PRNGKeyArray
) -> VariationalAutoencoder:
    posterior_key, key = jax.random.split(key)
    posterior = make(latent, key=posterior_key)
    return VariationalAutoencoder(pixels, latent, posterior, width=width, key=key)
