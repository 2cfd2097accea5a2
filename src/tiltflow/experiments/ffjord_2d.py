"""FFJORD in the plane: seven densities, learned by continuous flows and by a coupling flow.

Grathwohl et al. (2019), Figure 2, with densities that are known exactly, so that KL(truth || model)
is had by quadrature. The same concat-squash field is trained by maximum likelihood (FFJORD), with
the regularisers of Finlay et al. (2020; RNODE) in equal steps, and by flow matching (Lipman et al.
2023). Coupling flows of splines and of affine maps (of which Glow is made, with which the paper
compares) and the energy flow (Chao et al. 2023, by likelihood) have as many parameters. Whatever a
field was trained by, it is judged by the exact trace at one tolerance. As proposals for chains of
the true density all are judged on the same grid: acceptance, and the effective share of importance
weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tiltflow
from tiltflow.data.errors import InputError
from tiltflow.data.mixtures import eight_gaussians
from tiltflow.data.noisy_curves import moons, swirl, two_spirals
from tiltflow.data.pinwheel import Pinwheel
from tiltflow.data.targets import Checkerboard, Rings, Target
from tiltflow.experiments.cells import Cell, Line, run_cells
from tiltflow.experiments.density_images import read_image, write_image
from tiltflow.experiments.ffjord_fit import (
    SIZES,
    TOLERANCE,
    AffineMethod,
    Budget,
    EnergyFlowMethod,
    Method,
    fit_and_judge,
    grid_of,
)
from tiltflow.experiments.ffjord_table import (
    AFFINE,
    COUPLING,
    ENERGY_FLOW,
    EXPERIMENT,
    FFJORD,
    MATCHING,
    RNODE,
    bars_met,
    summary,
)
from tiltflow.experiments.problem import exact_log_prob
from tiltflow.models.integration import Integration
from tiltflow.report.figure_densities import Picture, draw_figure_densities
from tiltflow.report.style import save_png
from tiltflow.training.continuous_fit import ContinuousLikelihood
from tiltflow.training.flow_matching import FlowMatching
from tiltflow.training.flow_objective import LIKELIHOOD

QUICK_SHARE, QUICK_TOYS = 0.05, ("pinwheel", "moons")


@dataclass(frozen=True)
class Toy:
    """A density, and half the side of a square around the origin that holds all of its mass.

    Quadrature is on cells of that square: those of a checkerboard end where its fields do.
    """

    name: str
    make: Callable[[], Target]
    half_side: float


TOYS = (
    Toy("8 Gaussians", eight_gaussians, 15.0),
    Toy("rings", Rings, 6.0),
    Toy("checkerboard", Checkerboard, 6.0),
    Toy("swirl", swirl, 4.5),
    Toy("pinwheel", Pinwheel, 6.0),
    Toy("moons", moons, 5.0),
    Toy("2 spirals", two_spirals, 4.5),
)

METHODS = (
    Method(
        FFJORD,
        ContinuousLikelihood(trace="exact"),
        Integration(tolerance=TOLERANCE),
        Budget(steps=4000, batch_size=50, learning_rate=1e-2, averaging=0.995),
        guess=160.0,
    ),
    Method(
        RNODE,
        ContinuousLikelihood(trace="exact", kinetic_energy=0.002, jacobian_norm=0.002),
        Integration(steps=4),
        Budget(steps=5000, batch_size=50, learning_rate=1e-2, averaging=0.995),
        guess=80.0,
    ),
    Method(
        MATCHING,
        FlowMatching(),
        Integration(tolerance=TOLERANCE),
        Budget(steps=16_000, batch_size=512, learning_rate=1e-2),
        guess=60.0,
    ),
    Method(
        COUPLING,
        LIKELIHOOD,
        None,
        Budget(steps=6000, batch_size=512, learning_rate=5e-3),
        guess=60.0,
    ),
    AffineMethod(
        AFFINE,
        LIKELIHOOD,
        None,
        Budget(steps=6000, batch_size=512, learning_rate=3e-3),
        guess=60.0,
    ),
    EnergyFlowMethod(
        ENERGY_FLOW,
        LIKELIHOOD,
        None,
        Budget(steps=6000, batch_size=512, learning_rate=5e-3),
        guess=60.0,
    ),
)


def reproduce_ffjord_2d(
    *,
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None = None,
    quick: bool = False,
) -> None:
    """The table of all densities and methods, which bars are met, and the figure.

    Raises:
        InputError: a method is not known.
    """
    chosen = choose(methods)
    toys = TOYS
    if quick:
        chosen = tuple(shorter(each) for each in chosen)
        toys = tuple(toy for toy in TOYS if toy.name in QUICK_TOYS)
    run_seeds = range(seed, seed + seeds)
    cells = [
        make_cell(toy, method, run_seed, out)
        for run_seed in run_seeds
        for toy in toys
        for method in chosen
    ]
    lines = run_cells(cells, out, quiet=quiet)
    print(summary(lines), *([] if quick else bars_met(lines)), sep="\n", flush=True)
    save_figure(lines, toys, chosen, out)


def choose(names: tuple[str, ...] | None) -> tuple[Method, ...]:
    """The methods called, all if None.

    Raises:
        InputError: a name is not known.
    """
    known = [each.name for each in METHODS]
    for name in names or ():
        if name not in known:
            raise InputError(f"--methods: '{name}' is not known; use some of {', '.join(known)}")
    return tuple(each for each in METHODS if names is None or each.name in names)


def shorter(method: Method) -> Method:
    """The method with a twentieth of its steps."""
    steps = round(QUICK_SHARE * method.budget.steps)
    return replace(method, budget=replace(method.budget, steps=steps), guess=25.0)


def make_cell(toy: Toy, method: Method, seed: int, out: Path) -> Cell:
    """One training and its judgement."""

    def run(cell: Cell, _: Sequence[Line]) -> dict[str, Any]:
        figures, image = fit_and_judge(toy.make(), toy.half_side, method, cell.seed)
        write_image(out, cell.about, image)
        return figures

    return Cell(
        experiment=EXPERIMENT,
        case=toy.name,
        method=method.name,
        setting="shared",
        seed=seed,
        budget=f"{method.budget.steps} steps",
        settings=[tiltflow.__version__, toy, replace(method, guess=0.0), SIZES],
        guess=method.guess,
        run=run,
    )


def save_figure(lines: Sequence[Line], toys: Sequence[Toy], methods: Sequence[Method], out: Path):
    """The densities of the first seed, method by method, beside the truth."""
    first = min(line["seed"] for line in lines)
    rows: list[list[Picture | None]] = []
    for toy in toys:
        row: list[Picture | None] = []
        for method in methods:
            picture = None
            for line in lines:
                names = line["case"], line["method"], line["seed"]
                image = read_image(out, line) if names == (toy.name, method.name, first) else None
                if image is not None:
                    picture = Picture(f"KL {line['figures']['kl']:.2g}", image.log_prob)
            row.append(picture)
        grid = grid_of(toy.half_side)
        truth = grid.image(exact_log_prob(toy.make(), grid.points))
        rows.append([Picture(toy.name, truth), *row])
    save_png(
        draw_figure_densities(["truth", *(each.name for each in methods)], rows),
        out / "densities.png",
    )
    print(f"written to {out}: densities.png")
