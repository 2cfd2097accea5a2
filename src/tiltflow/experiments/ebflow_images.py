"""EBFlow on images: every loss on the same flow of grey images (Chao et al. 2023).

    log p(x) in pixel units = log p(flow) + log|dz/dx|,    z = scaling(logit(x + u)),  u ~ U(0, 1)

"Match after preprocessing": scores are those of z, and noise is added to z. The scaling is fitted
to the training rows: by their covariance for the fully connected flow, by every pixel's deviation
for the convolutional one; without it all would be spent on the scale of pixels here, where the
published runs have some thousand times the steps. Dequantised once, alike for all losses, and
judged by the mean over test images of -log p in nats and in bits per dimension.

The figure has draws by inversion and what Langevin steps make of half an image and of a noisy one
(`sampling/langevin_inpainting.py`, in logits).
"""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import AbstractBijection, Chain
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

import tiltflow
from tiltflow.data.arrays import load_npz
from tiltflow.data.dequantisation import dequantise
from tiltflow.data.errors import InputError
from tiltflow.data.idx import read_idx
from tiltflow.data.pixel_logit import PixelLogit, bits_per_dimension
from tiltflow.data.preprocessing import (
    fit_preprocessing,
    to_model_units,
    to_user_units,
)
from tiltflow.data.public_tables import FOLDER as TABLES
from tiltflow.experiments.cells import Cell, Line, run_cells
from tiltflow.experiments.contenders import choose
from tiltflow.experiments.flow_entrants import LIKELIHOOD, Entrant, excess
from tiltflow.models.energy_flow import EnergyFlow
from tiltflow.models.energy_flow_architectures import (
    convolutional_energy_flow,
    fully_connected_energy_flow,
)
from tiltflow.report.figure_images import ImageRow, draw_figure_images
from tiltflow.report.files import write_atomically
from tiltflow.report.style import save_png
from tiltflow.report.table import format_table, mean_and_std
from tiltflow.sampling.langevin_inpainting import denoise, inpaint
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
FOLDER = TABLES.parent
# Data set and its folder there; file names are those of the official archives.
DATA = {"mnist": "mnist", "fashion-mnist": "fashion_mnist"}
FILES = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}

ENTRANTS = (
    Entrant(LIKELIHOOD, "", MaximumLikelihood(), 1.8),
    Entrant("sampled_likelihood", "", SampledMaximumLikelihood(), 2.4),
    Entrant("sliced", "1 slice", ScoreMatching(SlicedScoreMatching()), 1.5),
    Entrant("denoising", "noise 1", ScoreMatching(DenoisingScoreMatching(1.0)), 1.0),
    Entrant(
        "finite_differences",
        "1 slice, radius 1",
        ScoreMatching(FiniteDifferenceScoreMatching(1.0)),
        1.3,
    ),
)
SHOWN = 8
LANGEVIN_STEPS = 500
NOISE = 1.5
"""Of the images to be denoised, in logits; black is at -6, white at 6."""


@dataclass(frozen=True)
class Settings:
    """One flow on one data set, and how long it is trained."""

    data: str
    architecture: Literal["fully connected", "convolutional"]
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


class Images(NamedTuple):
    """Rows of pixels, dequantised; the map from them to model units, and its two parts."""

    train: Float[np.ndarray, "n d"]
    held_out: Float[np.ndarray, "m d"]
    test: Float[np.ndarray, "t d"]
    shape: tuple[int, int]
    logit: PixelLogit
    scaling: AbstractBijection

    @property
    def preprocessing(self) -> AbstractBijection:
        """Logits, then their scaling."""
        return Chain([self.logit, self.scaling])


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
        save_figure(settings, lines, out, seed=seed)


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
            flow, figures = train_and_judge(settings, entrant, images, seed=cell.seed)
            if cell.seed == seed:
                keep_pictures(out, cell.about, make_pictures(flow, images, seed=cell.seed))
            return figures

        return run

    cells = []
    for run_seed in range(seed, seed + seeds):
        for entrant in entered:
            names = (EXPERIMENT, settings.case, entrant.name, entrant.setting, run_seed)
            told = (tiltflow.__version__, settings, entrant)
            guess = 20.0 + 0.03 * entrant.cost * settings.steps
            cells.append(Cell(*names, f"{settings.steps} steps", told, guess, running(entrant)))
    return run_cells(cells, out, quiet=quiet)


def load_images(settings: Settings, *, seed: int) -> Images:
    """Shuffled, dequantised, and with the scaling of the training rows.

    Raises:
        InputError: a file is missing or damaged, or has fewer images than are asked for.
    """
    folder = FOLDER / DATA[settings.data]
    if not folder.is_dir():
        raise InputError(
            f"{folder}: is not there; put {' and '.join(FILES.values())} into it, or set "
            "TILTFLOW_DATA to a folder beside it"
        )
    generator = np.random.default_rng(seed)
    wanted = {"train": settings.rows + settings.held_out, "test": settings.test}
    rows, shape = {}, (0, 0)
    for part, name in FILES.items():
        images = read_idx(folder / name)
        if len(images) < wanted[part]:
            raise InputError(
                f"{folder / name}: has {len(images)} images for {wanted[part]}; fetch it anew"
            )
        shape = images.shape[1:]
        chosen = generator.permutation(len(images))[: wanted[part]]
        pixels = images[chosen].reshape(wanted[part], -1).astype(np.float64)
        rows[part] = dequantise(generator, pixels, np.ones(pixels.shape[1]))
    train, held_out = np.split(rows["train"], [settings.rows])
    logit = PixelLogit(train.shape[1])
    kind = "whiten" if settings.architecture == "fully connected" else "standardise"
    scaling = fit_preprocessing(to_model_units(logit, train)[0], kind)
    return Images(train, held_out, rows["test"], shape, logit, scaling)


def train_and_judge(
    settings: Settings, entrant: Entrant, images: Images, *, seed: int
) -> tuple[EnergyFlow, dict[str, Any]]:
    """One training; seconds of a step without the compilation; negative log-likelihoods."""
    key = jax.random.key(seed)
    at: list[tuple[int, float]] = []
    fit = fit_energy_flow(
        jax.random.fold_in(key, 1),
        settings.flow(jax.random.fold_in(key, 0), images.shape),
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
        on_report=lambda report: at.append((report["step"], time.perf_counter())),
    )
    (first, started), (last, ended) = at[0], at[-1]
    log_prob = user_log_prob(fit.flow, images.preprocessing, images.test)
    nll = -float(log_prob.mean())
    return fit.flow, {
        "nll": nll,
        "nll_stderr": float(log_prob.std() / np.sqrt(len(log_prob))),
        "bits_per_dimension": bits_per_dimension(-nll, images.test.shape[1]),
        "milliseconds": 1e3 * (ended - started) / (last - first) if last > first else float("nan"),
        "kept_step": fit.steps,
        "skipped": fit.skipped,
    }


class Pictures(NamedTuple):
    """What the figure shows of one model; those of the data are the same for all models."""

    draws: UInt8[np.ndarray, "n h w"]
    half: UInt8[np.ndarray, "n h w"]
    inpainted: UInt8[np.ndarray, "n h w"]
    noisy: UInt8[np.ndarray, "n h w"]
    denoised: UInt8[np.ndarray, "n h w"]


class InLogits(eqx.Module):
    """A flow behind a scaling, as an unnormalised density of logits."""

    flow: EnergyFlow
    scaling: AbstractBijection

    def log_density(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Up to the scaling's determinant, which is a constant, and log Z."""
        return self.flow.log_density(self.scaling.transform(x))


def make_pictures(flow: EnergyFlow, images: Images, *, seed: int) -> Pictures:
    """Draws, lower halves by Langevin steps, and noise taken off by the same."""
    draw_key, inpaint_key, noise_key, denoise_key = jax.random.split(jax.random.key(seed), 4)

    def seen(logits: Any) -> UInt8[np.ndarray, "n h w"]:
        pixels = to_user_units(images.logit, np.asarray(logits, float))
        return np.clip(np.round(pixels), 0, 255).astype(np.uint8).reshape(-1, *images.shape)

    draws = np.asarray(flow.sample(draw_key, (SHOWN,)), float)
    model = InLogits(flow, _in_default_precision(images.scaling))
    logits = to_model_units(images.logit, images.test[:SHOWN])[0]
    known = np.zeros((SHOWN, *images.shape), bool)
    known[:, : images.shape[0] // 2] = True
    known = known.reshape(SHOWN, -1)
    logits = logits.astype(draws.dtype)
    noisy = logits + NOISE * np.asarray(jax.random.normal(noise_key, logits.shape), float)
    black = to_model_units(images.logit, np.zeros((1, logits.shape[1])))[0]
    inpainted = inpaint(inpaint_key, model.log_density, logits, known, steps=LANGEVIN_STEPS)
    denoised = denoise(denoise_key, model.log_density, noisy, NOISE, steps=LANGEVIN_STEPS)
    return Pictures(
        seen(to_user_units(images.scaling, draws)),
        seen(np.where(known, logits, black)),
        seen(inpainted),
        seen(noisy),
        seen(denoised),
    )


def _in_default_precision(bijection: AbstractBijection) -> AbstractBijection:
    """Preprocessing has double precision, in which every Langevin step would then be."""

    def cast(leaf: Any) -> Any:
        return jnp.asarray(leaf, float) if eqx.is_inexact_array_like(leaf) else leaf

    return jax.tree.map(cast, bijection)


def keep_pictures(out: Path, cell: Line, pictures: Pictures) -> None:
    """Beside the cells, for figures of later runs."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **pictures._asdict())
    path = _path(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, stream.getvalue())


def read_pictures(out: Path, cell: Line) -> Pictures | None:
    """Those of a cell, or None where none were kept."""
    path = _path(out, cell)
    if not path.exists():
        return None
    arrays = load_npz(path)
    return Pictures(*(arrays[name] for name in Pictures._fields))


def _path(out: Path, cell: Line) -> Path:
    return out / "pictures" / f"{cell['fingerprint']}.npz"


# Heading, figure and decimals: of 1100 nats three digits would say nothing.
COLUMNS = (
    ("NLL, nats", "nll", 1),
    ("its error", "nll_stderr", 1),
    ("bits/dim", "bits_per_dimension", 3),
    ("step, ms", "milliseconds", 1),
    ("kept at step", "kept_step", 0),
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
            _written([line["figures"][name] for line in group], decimals)
            for _, name, decimals in COLUMNS
        ]
        above = _written([excess(lines, line, "nll") for line in group], 1)
        rows.append([*names, figures[0], above, *figures[1:]])
    first, *others = (heading for heading, _, _ in COLUMNS)
    columns = ["loss", "setting", first, "above likelihood", *others]
    return f"{title}\n{format_table(columns, rows)}"


def _written(values: Sequence[float | int], decimals: int) -> str:
    return f"{values[0]:.{decimals}f}" if len(values) == 1 else mean_and_std(values)


HEADINGS = ("draws", "lower half unknown, and by Langevin steps", "noisy, and by Langevin steps")


def save_figure(settings: Settings, lines: Sequence[Line], out: Path, *, seed: int) -> None:
    """Pictures of the first seed, a row for each loss."""
    rows = []
    for line in lines:
        pictures = read_pictures(out, line) if line["seed"] == seed else None
        if pictures is None:
            continue
        draws, half, inpainted, noisy, denoised = pictures
        pairs = [
            np.stack([one, other], axis=1) for one, other in ((half, inpainted), (noisy, denoised))
        ]
        inpainting, denoising = (pair[:4].reshape(-1, *draws.shape[1:]) for pair in pairs)
        note = f"{line['figures']['bits_per_dimension']:.3f} bits/dim"
        rows.append(ImageRow(line["method"], note, [draws, inpainting, denoising]))
    if rows:
        name = f"{settings.data}_{settings.architecture.replace(' ', '_')}.png"
        save_png(draw_figure_images(HEADINGS, rows), out / name)
        print(f"written to {out}: {name}")
