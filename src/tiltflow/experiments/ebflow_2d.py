"""EBFlow in the plane: every loss on the same flow, judged by quadrature (Chao et al. 2023).

    KL = E_p [log p - log q],      Fisher divergence = E_p |grad log p - grad log q|^2 / 2

p is the exact density of the toy with its noise, q the flow, and both integrals run over one grid.
(The published code reports mean(-log q) + mean(p log p) over draws of p, which weighs the second
term by p twice, and its likelihood stands on another base density than its energy.)

A score says nothing of places without rows. Trained by scores on the rows with their noise, from
the start, a flow left up to half of its mass there: the Fisher divergence fell while the KL rose.
So losses of scores see the rows with wide noise first, which reaches everywhere, and then with
less, level by level (Song, Ermon 2019, who keep all levels in one model). The noise is fresh in
every step for every loss; denoising adds it by itself. What a model has of its mass where the truth
has none is told.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import Affine
from flowjax.distributions import AbstractDistribution, Transformed
from jaxtyping import Array, Float

import tiltflow
from tiltflow.data.noised_toys import NOISE, NoisedToy, checkerboard, sine, swirl
from tiltflow.evaluation.quadrature import Grid, grid_around, kl_divergence
from tiltflow.experiments.cells import Cell, Line, run_cells
from tiltflow.experiments.contenders import choose
from tiltflow.experiments.density_images import CELLS, Image, read_image, write_image
from tiltflow.experiments.failures import failures
from tiltflow.experiments.flow_entrants import LIKELIHOOD, Entrant, excess, first_of_each
from tiltflow.models.energy_flow import EnergyFlow, check_invertible, normalise_activations
from tiltflow.models.energy_flow_architectures import coupled_energy_flow
from tiltflow.report.figure_two import Panel, draw_figure_two
from tiltflow.report.style import save_png
from tiltflow.report.table import format_table, mean_and_std
from tiltflow.training.denoising_score_matching import DenoisingScoreMatching
from tiltflow.training.finite_difference_score_matching import FiniteDifferenceScoreMatching
from tiltflow.training.flow_losses import (
    FlowLoss,
    MaximumLikelihood,
    SampledMaximumLikelihood,
    ScoreMatching,
)
from tiltflow.training.flow_objective import Minimise
from tiltflow.training.maximum_likelihood import fit_flow
from tiltflow.training.sliced_score_matching import SlicedScoreMatching

EXPERIMENT = "ebflow-2d"
TOYS = {"sine": sine, "swirl": swirl, "checkerboard": checkerboard}
UNIT = 4.0
"""Model units are a quarter: the toys are about four wide."""
WIDTH = NOISE / UNIT
"""Of the noise in model units: as sharp as anything in the toys."""


def _by_scores(objective: SlicedScoreMatching | FiniteDifferenceScoreMatching) -> ScoreMatching:
    return ScoreMatching(objective, scale=WIDTH**2)


WIDE = ((6.0, 0.1), (3.0, 0.1), (1.7, 0.1), (1.0, 0.7))
NARROW = ((2.5, 0.15), (1.0, 0.85))
ENTRANTS = (
    Entrant(LIKELIHOOD, "", MaximumLikelihood(), 1.0),
    Entrant(
        "denoising", "noise from 2.5", ScoreMatching(DenoisingScoreMatching(WIDTH)), 2.0, NARROW
    ),
    Entrant(
        "finite_differences",
        "2 slices, noise from 6",
        _by_scores(FiniteDifferenceScoreMatching(0.03, 2)),
        4.0,
        WIDE,
    ),
    Entrant("sliced", "2 slices, noise from 6", _by_scores(SlicedScoreMatching(2)), 5.0, WIDE),
    Entrant("sampled_likelihood", "", SampledMaximumLikelihood(), 1.5),
    Entrant("finite_differences", "1 slice", _by_scores(FiniteDifferenceScoreMatching(0.03)), 2.4),
    Entrant("sliced", "1 slice", _by_scores(SlicedScoreMatching()), 3.0),
)
"""Losses of scores with what makes up for their blindness; the last two as they are published."""
MOST_EXCESS = 0.05
"""Nats of KL above the likelihood's that a loss of scores may have."""


@dataclass(frozen=True)
class Settings:
    """What all losses share."""

    rows: int = 50_000
    held_out: int = 10_000
    steps: int = 6000
    chunk: int = 125
    batch_size: int = 512
    learning_rate: float = 2e-3
    averaging: float = 0.99
    blocks: int = 10
    width: int = 64

    def stages(self, entrant: Entrant) -> list[tuple[float, int]]:
        """Level and steps of each stage: whole chunks."""
        chunks = self.steps / self.chunk
        return [
            (level, max(1, round(share * chunks)) * self.chunk) for level, share in entrant.levels
        ]


WHOLE = Settings()
QUICK = replace(WHOLE, steps=750, chunk=75)


def reproduce_ebflow_2d(
    *,
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None = None,
    quick: bool = False,
) -> None:
    """A line for every toy and loss, what the bars say, and the learned densities."""
    entered = choose(first_of_each(ENTRANTS) if quick else ENTRANTS, methods)
    settings = QUICK if quick else WHOLE
    cells = make_cells(settings, entered, seeds=seeds, seed=seed, out=out)
    lines = run_cells(cells, out, quiet=quiet)
    print(summary(settings, lines, seeds=seeds), *([] if quick else bars_met(lines)), sep="\n")
    for name in TOYS:
        save_figure(name, [line for line in lines if line["case"] == name], out)


def make_cells(
    settings: Settings, entered: Sequence[Entrant], *, seeds: int, seed: int, out: Path
) -> list[Cell]:
    """Toy by toy and seed by seed; the first seed's learned densities are kept as images."""

    def running(entrant: Entrant) -> Callable[[Cell, Sequence[Line]], dict[str, Any]]:
        def run(cell: Cell, lines: Sequence[Line]) -> dict[str, Any]:
            toy = TOYS[cell.case]()
            model, told = train(settings, toy, entrant, seed=cell.seed)
            rows = np.asarray(toy.sample(jax.random.key(cell.seed), settings.held_out), float)
            if cell.seed == seed:
                grid = grid_around(rows, cells=CELLS, margin=0.1)
                log_prob = np.asarray(_look(model, jnp.asarray(grid.points))[0], float)
                write_image(out, cell.about, Image(grid.x, grid.y, grid.image(log_prob)))
            return {**judge(toy, model, rows), **told}

        return run

    return [
        Cell(
            EXPERIMENT,
            name,
            entrant.name,
            entrant.setting,
            run_seed,
            f"{settings.steps} steps",
            (tiltflow.__version__, settings, entrant),
            20.0 + 0.04 * entrant.cost * settings.steps,
            running(entrant),
        )
        for name in TOYS
        for run_seed in range(seed, seed + seeds)
        for entrant in entered
    ]


def train(
    settings: Settings, toy: NoisedToy, entrant: Entrant, *, seed: int
) -> tuple[AbstractDistribution, dict[str, Any]]:
    """One training through all levels of noise; the model is in the toy's units."""
    key, loss = jax.random.key(seed), entrant.loss
    clean, clean_held_out = (
        np.asarray(toy.sample(jax.random.fold_in(key, i), count, 0.0), float)
        for i, count in enumerate((settings.rows, settings.held_out))
    )
    generator = np.random.default_rng(seed)
    flow = eqx.filter_jit(coupled_energy_flow)(
        jax.random.fold_in(key, 2), 2, blocks=settings.blocks, width=settings.width
    )
    skipped, stopped = 0, None
    for stage, (level, steps) in enumerate(settings.stages(entrant)):
        # A row returns with other noise; each step has rows of its own.
        copies = -(-steps * settings.batch_size // settings.rows)
        rows = np.tile(clean, (copies, 1))
        x, held_out = (
            jnp.asarray((each + level * NOISE * generator.normal(size=each.shape)) / UNIT)
            for each in (rows, clean_held_out)
        )
        if stage == 0:
            flow = normalise_activations(flow, x[:4096])
            check_invertible(flow)
        fit = fit_flow(
            jax.random.fold_in(key, 3 + stage),
            flow,
            jnp.asarray(rows / UNIT) if _adds_noise(loss) else x,
            held_out,
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            max_steps=steps,
            chunk=settings.chunk,
            patience=steps // settings.chunk,
            objective=Minimise(_at(level, loss)),
            averaging=settings.averaging,
        )
        assert isinstance(fit.flow, EnergyFlow)
        flow, skipped, stopped = fit.flow, skipped + fit.skipped, stopped or fit.stopped
    check_invertible(flow)
    to_user = Affine(jnp.zeros(2), jnp.full(2, UNIT))
    return Transformed(flow, to_user), {"skipped": skipped, "stopped": stopped}


def _adds_noise(loss: FlowLoss) -> bool:
    return isinstance(loss, ScoreMatching) and isinstance(loss.objective, DenoisingScoreMatching)


def _at(level: float, loss: FlowLoss) -> FlowLoss:
    """Denoising's own noise, times the level."""
    if isinstance(loss, ScoreMatching) and isinstance(loss.objective, DenoisingScoreMatching):
        scale = level * loss.objective.noise_scale
        return replace(loss, objective=DenoisingScoreMatching(scale))
    return loss


def judge(
    toy: NoisedToy, model: AbstractDistribution, rows: Float[np.ndarray, "n 2"]
) -> dict[str, float]:
    """KL(toy || model) in nats, the Fisher divergence, and the model's mass where the toy has none.

    By quadrature about `rows`; none is a density below e^-10 of the highest.
    """
    grid = grid_around(rows, margin=0.1)
    points = jnp.asarray(grid.points)
    true, true_score = (np.asarray(it, float) for it in _look(toy, points))
    log_prob, score = (np.asarray(it, float) for it in _look(model, points))
    mass = np.exp(true + grid.log_cell)
    seen = mass > 1e-12
    gap = (true_score - score)[seen]
    there = true > true.max() - 10
    return {
        "kl": kl_divergence(grid, true, log_prob),
        "fisher": 0.5 * float(mass[seen] @ (gap**2).sum(axis=1)),
        "mass_elsewhere": 1 - float(np.exp(log_prob[there] + grid.log_cell).sum()),
    }


@eqx.filter_jit
def _look(
    density: NoisedToy | AbstractDistribution, points: Float[Array, "p 2"]
) -> tuple[Float[Array, " p"], Float[Array, "p 2"]]:
    """Log-density and score at every point."""
    return jax.lax.map(jax.value_and_grad(density.log_prob), points, batch_size=4096)


COLUMNS = {
    "KL": "kl",
    "Fisher divergence": "fisher",
    "mass elsewhere": "mass_elsewhere",
}


def summary(settings: Settings, lines: Sequence[Line], *, seeds: int) -> str:
    """The table: means over the seeds."""
    title = (
        f"EBFlow in the plane: {settings.rows} rows, {seeds} seeds, {settings.steps} steps of "
        f"{settings.batch_size}; KL in nats, Fisher divergence in 1 / unit^2"
    )
    rows = []
    for names, group in _groups(lines).items():
        figures = [mean_and_std([line["figures"][it] for line in group]) for it in COLUMNS.values()]
        above = mean_and_std([excess(lines, line, "kl") for line in group])
        seconds = f"{np.mean([line['cell_seconds'] for line in group]):.0f}"
        rows.append([*names, figures[0], above, *figures[1:], seconds])
    first, *others = COLUMNS
    columns = ["data", "loss", "setting", first, "above likelihood", *others, "seconds"]
    return f"{title}\n{format_table(columns, rows)}\n{failures(lines)}"


def bars_met(lines: Sequence[Line]) -> list[str]:
    """What every loss of scores reached on average, beside what it should."""
    told = []
    for (name, loss, setting), group in _groups(lines).items():
        mean = float(np.mean([excess(lines, line, "kl") for line in group]))
        if loss in (LIKELIHOOD, "sampled_likelihood") or np.isnan(mean):
            continue
        met = "met" if mean <= MOST_EXCESS else "missed"
        words = f"{loss} ({setting})" if setting else loss
        told.append(f"{name}, {words}: KL {mean:.4f} above likelihood, bar {MOST_EXCESS}: {met}")
    return told


def _groups(lines: Sequence[Line]) -> dict[tuple[str, str, str], list[Line]]:
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line["case"], line["method"], line["setting"]), []).append(line)
    return groups


def save_figure(name: str, lines: Sequence[Line], out: Path) -> None:
    """The learned log-densities of one toy, side by side, with the truth's."""
    panels = []
    for line in lines:
        image = read_image(out, line)
        if image is None:
            continue
        if not panels:
            grid = Grid(image.x, image.y)
            truth = grid.image(np.asarray(_look(TOYS[name](), jnp.asarray(grid.points))[0], float))
            panels.append(Panel(name, "truth", image.x, image.y, truth))
        note = ", ".join(filter(None, (line["setting"], f"KL {line['figures']['kl']:.2g}")))
        panels.append(Panel(line["method"], note, image.x, image.y, image.log_prob))
    if panels:
        save_png(draw_figure_two(panels), out / f"{name}.png")
        print(f"written to {out}: {name}.png")
