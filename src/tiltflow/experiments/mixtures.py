"""Mixtures from the plane to d = 256: how every method's errors grow with the dimension.

    four     weights .4, .3, .2, .1, unit covariance (`data/mixtures.py`)
    warped   the same weights, every mode bent and rotated at random: no base is the truth
    forty    equal weights, far apart (`data/published_mixtures.py`)

20 000 rows. All methods tilt one Gaussian, and are compared on four and on warped modes at d = 16
and 64 and on all of the forty, with half the chains and half the local steps of the other lines,
which are of the balanced method as `BalancedEBM` trains it, on each kind of base. On four and on
forty modes the base "mixture" is handed the answer: its line is no competitor. Everywhere there are
the flow alone and the floor (`exact_negatives.py`). Forty modes in the plane are narrow, and take
the schedule of the other experiments there.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax

import tiltflow
from tiltflow.data.mixtures import four_modes, warped_modes
from tiltflow.data.published_mixtures import forty_modes
from tiltflow.experiments.cells import Cell, Line, run_cells
from tiltflow.experiments.clock import clock
from tiltflow.experiments.contenders import Shared, choose, contenders
from tiltflow.experiments.contest import EVALUATIONS, contest_cells
from tiltflow.experiments.contest_table import summary
from tiltflow.experiments.judged import SAMPLES, NoEnergy, judge_model
from tiltflow.experiments.narrowest import narrowest_variance
from tiltflow.experiments.plane_budget import LONG
from tiltflow.experiments.problem import Problem, make_problem
from tiltflow.experiments.trial import Case
from tiltflow.models.gaussian_mixture import best_mixture
from tiltflow.models.tilted import TiltedEBM
from tiltflow.report.figure_dimensions import Curve, Role, draw_figure_dimensions
from tiltflow.report.style import save_png
from tiltflow.training.adaptive_sweeps import WarmUpSettings
from tiltflow.training.balanced import Balanced
from tiltflow.training.bases import choose_base
from tiltflow.training.density import default_local_steps, default_schedule, fit_density

SCHEDULE = default_schedule("gaussian")
NORMS = {2: 3.5, 8: 3.5, 16: 3.5, 32: 3.75, 64: 4.0, 128: 4.5, 256: 5.0}
"""Of the modes' means, by dimension."""

JUDGING = WarmUpSettings(exploration_chunks=1, mixture_chunks=2, flow_chunks=24)
"""Of the sampler that judges; it starts at rows of the data, with the flow fitted to them."""

CHAINS, LOCAL_STEPS = 512, 5
WITH_RIVALS = (16, 64)
"""Dimensions of four and of warped modes."""
ALWAYS = ("flow", "floor")
ROLES: dict[str, Role] = {
    "balanced": "main",
    "flow": "reference",
    "Gaussian mixture": "reference",
    "floor": "reference",
}
"""In the figure; all others are rivals."""
NO_CHAINS = {"chains_rhat": float("nan"), "chains_ess": float("nan")}


def _case(kind: str, make: Callable[[int], Any], dimension: int) -> Case:
    name = f"{kind}, d = {dimension}"
    schedule = LONG if (kind, dimension) == ("forty", 2) else SCHEDULE
    return Case("mixtures", name, partial(make, dimension), schedule, judging=JUDGING)


def four(dimension: int) -> Any:
    """Four Gaussian modes."""
    return four_modes(dimension, NORMS[dimension])


def warped(dimension: int) -> Any:
    """Four bent modes."""
    return warped_modes(dimension, NORMS[dimension])


CASES = {
    **{("four", d): _case("four", four, d) for d in NORMS},
    **{("warped", d): _case("warped", warped, d) for d in (16, 64, 128)},
    **{("forty", d): _case("forty", forty_modes, d) for d in (2, 8)},
}


def reproduce_mixtures(
    *,
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None = None,
    quick: bool = False,
) -> None:
    """All cases, a table for each, and the figure of errors against the dimension."""
    cases = {("four", 2): CASES["four", 2]} if quick else CASES
    cells = []
    for (kind, dimension), case in cases.items():
        shared = Shared(CHAINS, LOCAL_STEPS, narrowest_variance(case.make_target()))
        if quick:
            schedule = replace(SCHEDULE, steps=200)
            case = replace(case, rows=4000, schedule=schedule, flow_steps=500)
            shared = replace(shared, chains=128, local_steps=5)
        known = contenders(dimension, shared)
        entered = choose(known, methods)
        if kind != "forty" and dimension not in WITH_RIVALS and not quick:
            entered = tuple(each for each in entered if each.name in ALWAYS)
        cells += contest_cells(
            case,
            entered,
            reference=known[0],
            seeds=seeds,
            seed=seed,
            out=out,
            equal_seconds=not quick,
        )
        if not quick and (methods is None or "balanced" in methods):
            for base in bases(kind, dimension):
                cells += base_cells(case, base, seeds=seeds, seed=seed)
            if kind == "warped":
                cells += mixture_cells(case, seeds=seeds, seed=seed)
    lines = run_cells(cells, out, quiet=quiet)
    for case in cases.values():
        of_case = [line for line in lines if line["case"] == case.name]
        if of_case:
            print(summary(f"{case.name}: {seeds} seeds", of_case), flush=True)
    draw(lines, out)


def bases(kind: str, dimension: int) -> tuple[str, ...]:
    """The bases on which the balanced method has a line of its own."""
    if dimension in WITH_RIVALS:
        return ("gaussian", "mixture", "flow", "auto")
    return ("auto",) if kind == "warped" else ("gaussian",)


def base_cells(case: Case, base: str, *, seeds: int, seed: int) -> list[Cell]:
    """The balanced method as `BalancedEBM` trains it, on a base of that kind."""

    def run(cell: Cell, lines: Sequence[Line]) -> dict[str, Any]:
        return fit_on(make_problem(case.make_target(), rows=case.rows, seed=cell.seed), base, cell)

    return _cells(case, "balanced", f"product, base {base}", run, seeds, seed)


def fit_on(problem: Problem, base: str, cell: Cell) -> dict[str, Any]:
    """Fit and judge one density: its figures and those of its training.

    `acceptance_rate` is of the energy that is kept; `training_acceptance_rate` is the last chunk's
    of training, where the flow runs after an energy that still moves.
    """
    seed = cell.seed
    started = clock()
    start = choose_base(jax.random.key(seed + 1), base, problem.x, problem.held_out, seed=seed)
    source = Balanced(local_steps=default_local_steps(start.kind))
    density = fit_density(
        jax.random.key(seed + 3),
        start,
        problem.x,
        problem.held_out,
        source=source,
        schedule=default_schedule(start.kind),
    )
    seconds = clock() - started
    steps = [each for each in density.reports if "global_acceptance_rate" in each]
    batch_size = min(default_schedule(start.kind).batch_size, len(problem.x))
    judged = judge_model(problem, density.model, seed=seed, flow=density.flow, settings=JUDGING)
    return {
        **judged._asdict(),
        **NO_CHAINS,
        "base": f"{start.kind}: {start.description}",
        "acceptance_rate": density.acceptance_rate,
        "training_acceptance_rate": steps[-1]["global_acceptance_rate"],
        "steps": steps[-1]["step"],
        "evaluations": steps[-1]["step"] * source.evaluations(batch_size),
        "stopped": str(density.stopped) if density.stopped else None,
        "seconds": seconds,
    }


def mixture_cells(case: Case, *, seeds: int, seed: int) -> list[Cell]:
    """The best Gaussian mixture by held-out likelihood."""

    def run(cell: Cell, lines: Sequence[Line]) -> dict[str, Any]:
        problem = make_problem(case.make_target(), rows=case.rows, seed=cell.seed)
        started = clock()
        mixture = best_mixture(problem.x, problem.held_out, seed=cell.seed)
        seconds = clock() - started
        judged = judge_model(problem, TiltedEBM(mixture.density, NoEnergy()), seed=cell.seed)
        return {
            **judged._asdict(),
            **NO_CHAINS,
            "base": mixture.description,
            "acceptance_rate": float("nan"),
            "steps": 0,
            "evaluations": 0,
            "stopped": None,
            "seconds": seconds,
        }

    return _cells(case, "Gaussian mixture", "EM", run, seeds, seed)


def draw(lines: Sequence[Line], out: Path) -> None:
    """Errors and acceptance against the dimension: the balanced method on each base, the rest.

    Rivals are drawn in the shared setting; the tables have their others.
    """
    curves: dict[tuple[str, ...], Curve] = {}
    for line in lines:
        role = ROLES.get(line["method"], "rival")
        if line["budget"] != EVALUATIONS or (role == "rival" and line["setting"] != "shared"):
            continue
        kind, dimension = line["case"].split(", d = ")
        name = f"{line['method']} ({line['setting']})"
        curve = curves.setdefault((kind, name), Curve(kind, name, {}, role))
        curve.figures.setdefault(int(dimension), []).append(line["figures"])
    if curves:
        save_png(draw_figure_dimensions(list(curves.values())), out / "figure.png")
        print(f"written to {out}: figure.png")


def _cells(
    case: Case,
    method: str,
    setting: str,
    run: Callable[[Cell, Sequence[Line]], dict[str, Any]],
    seeds: int,
    seed: int,
) -> list[Cell]:
    settings = (tiltflow.__version__, case, method, setting, SAMPLES)
    return [
        Cell(case.experiment, case.name, method, setting, each, EVALUATIONS, settings, 240.0, run)
        for each in range(seed, seed + seeds)
    ]
