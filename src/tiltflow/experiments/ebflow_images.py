"""EBFlow on images: every loss on the same flow of grey images (Chao et al. 2023).

    log p(x) in pixel units = log p(flow) + log|dz/dx|,    z = scaling(logit(x + u)),  u ~ U(0, 1)

"Match after preprocessing": scores are those of z, and noise is added to z. The scaling is fitted
to the training rows: by their covariance for the fully connected flow, by every pixel's deviation
for the convolutional one; without it all would be spent on the scale of pixels here, where the
published runs have some thousand times the steps. Denoising alone has z = logit(x + u) / s, since
its noise is published in these units, s with the architecture, and its optimum is the density of
the noised images: noise of one beside whitened pixels would cost d/2 (log 2 - 1/2) nats of any
Gaussian. The fully connected flow then starts with the same scaling in its first layer.
Dequantised once, alike for all losses, and judged by the mean over test images of -log p in nats
and in bits per dimension.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

import tiltflow
from tiltflow.data.pixel_logit import PixelLogit, bits_per_dimension
from tiltflow.data.preprocessing import fit_preprocessing, to_model_units
from tiltflow.experiments.cells import Cell, Line, run_cells
from tiltflow.experiments.clock import clock
from tiltflow.experiments.contenders import choose
from tiltflow.experiments.ebflow_pictures import keep_pictures, make_pictures, save_figure
from tiltflow.experiments.ebflow_units import (
    NOISE,
    SMOOTHNESS,
    Architecture,
    in_published_units,
    start_whitened,
)
from tiltflow.experiments.failures import failures
from tiltflow.experiments.flow_entrants import LIKELIHOOD, Entrant, excess
from tiltflow.experiments.grey_images import ScaledImages, load_grey_images
from tiltflow.models.energy_flow import EnergyFlow
from tiltflow.models.energy_flow_architectures import (
    convolutional_energy_flow,
    fully_connected_energy_flow,
)
from tiltflow.report.table import format_table, in_decimals
from tiltflow.training.denoising_score_matching import DenoisingScoreMatching
from tiltflow.training.energy_flow_fit import fit_energy_flow, user_log_prob
from tiltflow.training.finite_difference_score_matching import FiniteDifferenceScoreMatching
from tiltflow.training.flow_losses import (
    MaximumLikelihood,
    SampledMaximumLikelihood,
    ScoreMatching,
)
from tiltflow.training.sliced_score_matching import SlicedScoreMatching

EXPERIMENT = "ebflow-images"

DENOISING = "denoising"


def denoising(architecture: Architecture) -> Entrant:
    """Denoising in the published units of this architecture."""
    noise, smoothness = NOISE[architecture], SMOOTHNESS[architecture]
    setting = f"noise {noise:g} of logits / {smoothness:g}"
    return Entrant(DENOISING, setting, ScoreMatching(DenoisingScoreMatching(noise)), 1.0)


ENTRANTS = (
    Entrant(LIKELIHOOD, "", MaximumLikelihood(), 1.8),
    Entrant("sampled_likelihood", "", SampledMaximumLikelihood(), 2.4),
    Entrant("sliced", "1 slice", ScoreMatching(SlicedScoreMatching()), 1.5),
    denoising("fully connected"),
    Entrant(
        "finite_differences",
        "1 slice, radius 1",
        ScoreMatching(FiniteDifferenceScoreMatching(1.0)),
        1.3,
    ),
)


@dataclass(frozen=True)
class Settings:
    """One flow on one data set, and how long it is trained."""

    data: str
    architecture: Architecture
    rows: int = 30_000
    held_out: int = 2000
    test: int = 10_000
    steps: int = 1000
    chunk: int = 50
    batch_size: int = 100
    learning_rate: float = 3e-4
    averaging: float = 0.99
    stages: int = 3
    kernel: int = 7

    @property
    def case(self) -> str:
        """Data and flow."""
        return f"{self.data}, {self.architecture}"

    def flow(self, key: PRNGKeyArray, image: tuple[int, int]) -> EnergyFlow:
        """A new one."""
        if self.architecture == "fully connected":
            return fully_connected_energy_flow(key, image[0] * image[1])
        return convolutional_energy_flow(key, (*image, 1), stages=self.stages, size=self.kernel)


ONE_CORE = (
    Settings("mnist", "fully connected"),
    Settings("fashion-mnist", "fully connected"),
)
QUICK = tuple(replace(each, rows=4000, held_out=500, test=2000, steps=200) for each in ONE_CORE)
PUBLISHED = tuple(
    replace(each, rows=55_000, held_out=5000, chunk=2000, learning_rate=1e-4, averaging=0.999)
    for each in (
        Settings("mnist", "fully connected", steps=6_000_000),
        Settings("fashion-mnist", "fully connected", steps=6_000_000),
        Settings("mnist", "convolutional", steps=600_000),
        Settings("fashion-mnist", "convolutional", steps=600_000),
    )
)
"""The paper's steps, rates and both flows."""
CASES = {"cpu": ONE_CORE, "gpu": PUBLISHED}
"""What is run whole, by JAX's backend."""


def reproduce_ebflow_images(
    *,
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None = None,
    quick: bool = False,
) -> None:
    """The table of every data set and flow, and a figure of each."""
    entered = choose(ENTRANTS, methods)
    for settings in QUICK if quick else CASES.get(jax.default_backend(), ONE_CORE):
        lines = run_case(settings, entered, seeds=seeds, seed=seed, out=out, quiet=quiet)
        print(summary(settings, lines, seeds=seeds), flush=True)
        name = f"{settings.data}_{settings.architecture.replace(' ', '_')}.png"
        save_figure(lines, out, name, seed=seed)


def run_case(
    settings: Settings,
    entered: Sequence[Entrant],
    *,
    seeds: int,
    seed: int,
    out: Path,
    quiet: bool,
) -> list[Line]:
    """The cells of one data set and flow, kept one by one in `out`."""
    prepared = lru_cache(maxsize=1)(lambda run_seed: load_images(settings, seed=run_seed))

    def running(entrant: Entrant) -> Callable[[Cell, Sequence[Line]], dict[str, Any]]:
        def run(cell: Cell, lines: Sequence[Line]) -> dict[str, Any]:
            images = prepared(cell.seed)
            if entrant.name == DENOISING:
                images = in_published_units(images, settings.architecture)
            flow, figures = train_and_judge(settings, entrant, images, seed=cell.seed)
            if cell.seed == seed:
                keep_pictures(out, cell.about, make_pictures(flow, images, seed=cell.seed))
            return figures

        return run

    cells = []
    for run_seed in range(seed, seed + seeds):
        for entrant in entered:
            if entrant.name == DENOISING:
                entrant = denoising(settings.architecture)
            names = (EXPERIMENT, settings.case, entrant.name, entrant.setting, run_seed)
            told = (tiltflow.__version__, settings, entrant)
            guess = 20.0 + 0.03 * entrant.cost * settings.steps
            cells.append(Cell(*names, f"{settings.steps} steps", told, guess, running(entrant)))
    return run_cells(cells, out, quiet=quiet)


def load_images(settings: Settings, *, seed: int) -> ScaledImages:
    """The images with the scaling of the training rows, otherwise as `load_grey_images`."""
    grey = load_grey_images(
        settings.data, settings.rows, settings.held_out, settings.test, seed=seed
    )
    logit = PixelLogit(grey.train.shape[1])
    kind = "whiten" if settings.architecture == "fully connected" else "standardise"
    scaling = fit_preprocessing(to_model_units(logit, grey.train)[0], kind)
    return ScaledImages(grey.train, grey.held_out, grey.test, grey.shape, logit, scaling)


def train_and_judge(
    settings: Settings, entrant: Entrant, images: ScaledImages, *, seed: int
) -> tuple[EnergyFlow, dict[str, Any]]:
    """One training; seconds of a step without the compilation; negative log-likelihoods."""
    key = jax.random.key(seed)
    flow = settings.flow(jax.random.fold_in(key, 0), images.shape)
    if entrant.name == DENOISING:
        flow = start_whitened(flow, images)
    at: list[tuple[int, float, float]] = []
    fit = fit_energy_flow(
        jax.random.fold_in(key, 1),
        flow,
        images.train,
        images.held_out,
        preprocessing=images.preprocessing,
        loss=entrant.loss,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        max_steps=settings.steps,
        chunk=settings.chunk,
        patience=settings.steps // settings.chunk,
        averaging=settings.averaging,
        on_report=lambda report: at.append(
            (report["step"], clock(), -report["held_out_log_likelihood"])
        ),
    )
    (first, started, _), (last, ended, last_nll) = at[0], at[-1]
    log_prob = user_log_prob(fit.flow, images.preprocessing, images.test)
    nll = -float(log_prob.mean())
    return fit.flow, {
        "nll": nll,
        "nll_stderr": float(log_prob.std() / np.sqrt(len(log_prob))),
        "bits_per_dimension": bits_per_dimension(-nll, images.test.shape[1]),
        "milliseconds": 1e3 * (ended - started) / (last - first) if last > first else float("nan"),
        "held_out_nll": -fit.held_out_log_likelihood,
        "last_held_out_nll": last_nll,
        "kept_step": fit.steps,
        "skipped": fit.skipped,
        "stopped": fit.stopped,
    }


# Heading, figure and decimals: of 1100 nats three digits would say nothing.
COLUMNS = (
    ("NLL, nats", "nll", 1),
    ("its error", "nll_stderr", 1),
    ("bits/dim", "bits_per_dimension", 3),
    ("step, ms", "milliseconds", 1),
    ("kept at step", "kept_step", 0),
    ("held out there", "held_out_nll", 1),
    ("at the last step", "last_held_out_nll", 1),
)


def summary(settings: Settings, lines: Sequence[Line], *, seeds: int) -> str:
    """What was run, and the table: means over the seeds."""
    title = (
        f"{settings.case}: {settings.rows} training images, {settings.test} of the test's, "
        f"{settings.steps} steps of {settings.batch_size} at {settings.learning_rate:g}, "
        f"{seeds} seeds. (The paper's table is not known here; its fully connected runs take "
        "10 000 epochs.)"
    )
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line["method"], line["setting"]), []).append(line)
    rows = []
    for names, group in groups.items():
        figures = [
            # Earlier cells have not all of them.
            in_decimals([line["figures"].get(name, math.nan) for line in group], decimals)
            for _, name, decimals in COLUMNS
        ]
        above = in_decimals([excess(lines, line, "nll") for line in group], 1)
        rows.append([*names, figures[0], above, *figures[1:]])
    first, *others = (heading for heading, _, _ in COLUMNS)
    columns = ["loss", "setting", first, "above likelihood", *others]
    return f"{title}\n{format_table(columns, rows)}\n{failures(lines)}"
