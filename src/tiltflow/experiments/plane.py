"""The paper's geometries in the plane: two modes, eight Gaussians on a circle, and four rings.

Grenioux, Moulines, Gabrié (2023), Figure 2: the energies that all methods learn; two modes have
Figure 1 as well (`two_modes.py`). Every method trains on the same rows; everything is judged by
quadrature.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiltflow
from tiltflow.data.mixtures import GaussianMixture, eight_gaussians, two_modes
from tiltflow.data.targets import Rings
from tiltflow.evaluation.quadrature import Grid
from tiltflow.experiments import two_modes as figure_one
from tiltflow.experiments.cells import Cell, Line, run_cells
from tiltflow.experiments.contenders import BASE_SHARE, Shared, choose, mlp_energy
from tiltflow.experiments.contest import EVALUATIONS, contest_cells
from tiltflow.experiments.contest_table import summary
from tiltflow.experiments.density_images import read_image
from tiltflow.experiments.plane_budget import LARGER, LONG, budget, entered_in
from tiltflow.experiments.problem import exact_log_prob
from tiltflow.experiments.trial import Case
from tiltflow.report.figure_two import Panel, draw_figure_two
from tiltflow.report.style import save_png


def far_modes() -> GaussianMixture:
    """Two modes five times as far apart."""
    return two_modes(a=5.0)


TWO_MODES = (
    Case("two-modes", "a = 1", two_modes, LONG),
    Case("two-modes", "a = 5", far_modes, LONG),
)
EIGHT_GAUSSIANS = (Case("eight-gaussians", "d = 2", eight_gaussians, LARGER),)
RINGS = (Case("rings", "d = 2", Rings, LONG),)
GUESSED_PICTURE = 150.0
"""Seconds of Figure 1, for which two methods are trained."""


def reproduce_two_modes(
    *,
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None = None,
    quick: bool = False,
) -> None:
    """Two modes of weights 2 : 1 and variance .05, near to each other and far apart."""
    pictures = [
        picture_cell(budget(case, quick), a, seed=seed, quiet=quiet, out=out)
        for case, a in zip(TWO_MODES, (1.0, 5.0))
        if methods is None
    ]
    _reproduce(TWO_MODES, seeds, seed, quiet, out, methods, quick, first=pictures)


def picture_cell(
    of_case: tuple[Case, Shared], a: float, *, seed: int, quiet: bool, out: Path
) -> Cell:
    """Figure 1, drawn once for its settings."""
    case, shared = of_case
    settings = figure_one.Settings(
        a=a,
        rows=case.rows,
        schedule=case.schedule,
        chains=shared.chains,
        local_steps=shared.local_steps,
        ula_step_size=shared.step_size,
        base_share=BASE_SHARE,
        energy=mlp_energy,
    )
    path = out / f"figure_one_a{a:g}.png"

    def run(cell: Cell, lines: Sequence[Line]) -> dict[str, Any]:
        figure_one.save_figure_one(settings, path, seed=cell.seed, quiet=quiet)
        return {"written": path.name}

    names = (case.experiment, case.name, "figure one", "shared", seed, "steps")
    return Cell(*names, (tiltflow.__version__, settings), GUESSED_PICTURE, run)


def reproduce_eight_gaussians(
    *,
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None = None,
    quick: bool = False,
) -> None:
    """Eight equal Gaussians of variance .7 on a circle of radius 10."""
    _reproduce(EIGHT_GAUSSIANS, seeds, seed, quiet, out, methods, quick)


def reproduce_rings(
    *,
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None = None,
    quick: bool = False,
) -> None:
    """Four rings of equal weight, radii 1 to 4, radial deviation .15."""
    _reproduce(RINGS, seeds, seed, quiet, out, methods, quick)


def _reproduce(
    cases: Sequence[Case],
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None,
    quick: bool,
    first: Sequence[Cell] = (),
) -> None:
    cells, smaller = list(first), []
    for each in cases:
        case, shared = budget(each, quick)
        smaller.append(case)
        known = entered_in(shared, quick)
        cells += contest_cells(
            case,
            choose(known, methods),
            reference=known[0],
            seeds=seeds,
            seed=seed,
            out=out,
            equal_seconds=not quick,
        )
    all_lines = run_cells(cells, out, quiet=quiet)[len(first) :]
    for number, case in enumerate(smaller, start=1):
        lines = [line for line in all_lines if line["case"] == case.name]
        title = f"{case.experiment}, {case.name}: {case.rows} rows, {seeds} seeds"
        print(summary(f"{title}, {case.schedule.steps} steps", lines), flush=True)
        name = "figure_two.png" if len(cases) == 1 else f"figure_two_{number}.png"
        save_figure(case, lines, out, name)


def save_figure(case: Case, lines: Sequence[Line], out: Path, name: str) -> None:
    """The learned log-densities of the first seed, side by side, with the truth's."""
    panels = []
    for line in lines:
        image = read_image(out, line) if line["budget"] == EVALUATIONS else None
        if image is None:
            continue
        if not panels:
            grid = Grid(image.x, image.y)
            truth = grid.image(exact_log_prob(case.make_target(), grid.points))
            panels.append(Panel("truth", "", image.x, image.y, truth))
        figures = line["figures"]
        error = figures["weight_error_data"]
        note = f"{line['setting']}: KL {figures['kl']:.2g}, error {error:.2g}"
        panels.append(Panel(line["method"], note, image.x, image.y, image.log_prob))
    if panels:
        save_png(draw_figure_two(panels), out / name)
        print(f"written to {out}: {name}")
