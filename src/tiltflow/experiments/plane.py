"""The paper's geometries in the plane: eight Gaussians on a circle, and four rings.

Grenioux, Moulines, Gabrié (2023), Figure 2: the energies that all methods learn. Every method
trains on the same rows; everything is judged by quadrature.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tiltflow.data.mixtures import eight_gaussians
from tiltflow.data.targets import Rings
from tiltflow.evaluation.quadrature import Grid
from tiltflow.experiments.cells import Line
from tiltflow.experiments.contenders import Shared, choose, contenders
from tiltflow.experiments.contest import EVALUATIONS, Case, run_contest
from tiltflow.experiments.contest_table import summary
from tiltflow.experiments.density_images import read_image
from tiltflow.experiments.problem import exact_log_prob
from tiltflow.report.figure_two import Panel, draw_figure_two
from tiltflow.report.style import save_png
from tiltflow.training.loop import Schedule

SCHEDULE = Schedule(steps=1000, chunk=50, learning_rate=2e-3, patience=1000)
CASES = {
    "eight-gaussians": Case("eight-gaussians", "d = 2", eight_gaussians, SCHEDULE),
    "rings": Case("rings", "d = 2", Rings, SCHEDULE),
}
QUICK_ROWS = 4000
QUICK_SCHEDULE = replace(SCHEDULE, steps=400, learning_rate=5e-3, averaging=0.98)
QUICK = Shared(chains=128, local_steps=5)


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
    _reproduce(CASES["eight-gaussians"], seeds, seed, quiet, out, methods, quick)


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
    _reproduce(CASES["rings"], seeds, seed, quiet, out, methods, quick)


def _reproduce(
    case: Case,
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None,
    quick: bool,
) -> None:
    shared = Shared()
    if quick:
        shared = QUICK
        case = replace(case, rows=QUICK_ROWS, schedule=QUICK_SCHEDULE)
    known = contenders(2, shared)
    lines = run_contest(
        case,
        choose(known, methods),
        reference=known[0],
        seeds=seeds,
        seed=seed,
        out=out,
        quiet=quiet,
        equal_seconds=not quick,
    )
    title = f"{case.experiment}: {case.rows} rows, {seeds} seeds, {case.schedule.steps} steps"
    print(summary(title, lines), flush=True)
    save_figure(case, lines, out)


def save_figure(case: Case, lines: Sequence[Line], out: Path) -> None:
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
        note = f"KL {figures['kl']:.2g}, weight error {figures['weight_error_data']:.2g}"
        name = f"{line['method']} ({line['setting']})"
        panels.append(Panel(name, note, image.x, image.y, image.log_prob))
    if panels:
        save_png(draw_figure_two(panels), out / "figure.png")
        print(f"written to {out}: figure.png")
