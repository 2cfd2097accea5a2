"""A contest: the same rows, network and base for all methods, at equal cost.

Cost is counted twice. In the row "evaluations" a method takes as many steps as the reference's
gradients of the energy allow (the reference is the balanced method). In the row "seconds" it takes
as many as its own speed allows in the reference's seconds; where both are within a tenth of each
other there is one run for both.

Cost is what the training steps take: gradients of the energy in points, for chains and scores, and
in its parameters, for rows and negatives. What compares energies on held-out rows, and solves for
the last layer, is in the seconds alone.

A method's first setting is run for three seeds; further settings, and the rows of equal seconds,
for the first. Methods so near to the reference that more are needed have every seed in all rows.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import tiltflow
from tiltflow.experiments.cells import Cell, Line, find_line, run_cells
from tiltflow.experiments.contenders import NEAR, Contender, first_settings
from tiltflow.experiments.density_images import keep_image
from tiltflow.experiments.judged import SAMPLES
from tiltflow.experiments.trial import Case, Watch, prepare, run_trial
from tiltflow.training.loop import Schedule

EVALUATIONS, SECONDS = "evaluations", "seconds"
NEARLY = 0.1
SEEDS_OF_ALL = 3
"""Most rivals' errors are ten to a thousand times the reference's: few seeds tell them apart."""
GUESSED_START = 30.0
GUESSED_EVALUATION = 2e-6
"""Seconds of one gradient of the network in a point, on two cores."""


def run_contest(
    case: Case,
    entered: Sequence[Contender],
    *,
    reference: Contender,
    seeds: int,
    seed: int,
    out: Path,
    quiet: bool,
    equal_seconds: bool = True,
    watch: Watch | None = None,
) -> list[Line]:
    """Run the cells of one case, kept one by one in `out`; methods in the order entered."""
    cells = contest_cells(
        case,
        entered,
        reference=reference,
        seeds=seeds,
        seed=seed,
        out=out,
        equal_seconds=equal_seconds,
        watch=watch,
    )
    return run_cells(cells, out, quiet=quiet)


def contest_cells(
    case: Case,
    entered: Sequence[Contender],
    *,
    reference: Contender,
    seeds: int,
    seed: int,
    out: Path,
    equal_seconds: bool = True,
    watch: Watch | None = None,
) -> list[Cell]:
    """All cells of a case, seed by seed.

    In the plane the first seed's learned densities are kept in `out` as images, with the chains
    (`read_image`). Without the reference among those entered there are no rows of equal seconds;
    and none of other settings than the shared one.
    """
    first = first_settings(tuple(entered))
    prepared = lru_cache(maxsize=1)(lambda run_seed: prepare(case, run_seed))
    rows = round(0.9 * case.rows)
    evaluations = case.schedule.steps * evaluations_of(reference, case.schedule, rows)
    cells = []
    for run_seed in range(seed, seed + seeds):
        whole = run_seed == seed
        some = first if run_seed < seed + SEEDS_OF_ALL else ()
        for contender in entered:
            every_seed = contender.name in NEAR
            if not (whole or every_seed or contender in some):
                continue
            steps = equal_steps(contender, case.schedule, evaluations, rows)
            schedule = replace(case.schedule, steps=steps)
            settings = (tiltflow.__version__, case, contender, schedule, SAMPLES)
            cost = steps * evaluations_of(contender, schedule, rows)
            names = (case.experiment, case.name, contender.name, contender.setting, run_seed)

            def by_evaluations(
                cell: Cell,
                lines: Sequence[Line],
                contender: Contender = contender,
                schedule: Schedule = schedule,
            ) -> dict[str, Any]:
                ready = prepared(cell.seed)
                trial = run_trial(
                    contender, ready, schedule, seed=cell.seed, judging=case.judging, watch=watch
                )
                if cell.seed == seed and trial.model is not None:
                    log_z, last = trial.figures["log_z"], next(reversed(trial.chains), None)
                    keep_image(out, cell.about, ready.problem, trial.model, log_z, last)
                return trial.figures

            def by_seconds(
                cell: Cell,
                lines: Sequence[Line],
                contender: Contender = contender,
                schedule: Schedule = schedule,
            ) -> dict[str, Any]:
                alone, most = (
                    find_line(
                        lines,
                        {
                            "case": cell.case,
                            "method": it.name,
                            "setting": it.setting,
                            "seed": cell.seed,
                            "budget": EVALUATIONS,
                        },
                    )
                    for it in (contender, reference)
                )
                assert alone is not None and most is not None
                steps = steps_in(most["figures"]["seconds"], alone["figures"], schedule.chunk)
                if steps is None:
                    return alone["figures"] | {"reused": True}
                return run_trial(
                    contender,
                    prepared(cell.seed),
                    replace(schedule, steps=steps),
                    seed=cell.seed,
                    judging=case.judging,
                ).figures

            guess = GUESSED_START + GUESSED_EVALUATION * cost
            cells.append(Cell(*names, EVALUATIONS, settings, guess, by_evaluations))
            rival = contender.setting == "shared" and not contender.same_steps
            if (
                (whole or every_seed)
                and equal_seconds
                and rival
                and reference in entered
                and contender != reference
            ):
                guess = GUESSED_START + GUESSED_EVALUATION * evaluations
                settings = (*settings, reference)
                cells.append(Cell(*names, SECONDS, settings, guess, by_seconds))
    return cells


def evaluations_of(contender: Contender, schedule: Schedule, rows: int) -> int:
    """What one step of it costs."""
    if contender.method is None:
        return 0
    return contender.method.evaluations(min(schedule.batch_size, rows))


def equal_steps(contender: Contender, schedule: Schedule, evaluations: int, rows: int) -> int:
    """How many steps it has for `evaluations`: whole chunks, one at least."""
    if contender.method is None or contender.same_steps:
        return schedule.steps
    steps = evaluations / evaluations_of(contender, schedule, rows)
    return max(1, round(steps / schedule.chunk)) * schedule.chunk


def steps_in(seconds: float, figures: dict[str, Any], chunk: int) -> int | None:
    """How many steps a method has time for; None where the run that is known already will do.

    `figures` are those of that run: what it needed beside its steps it will need again.
    """
    speed = figures.get("steps_per_second", float("nan"))
    if not speed > 0 or abs(figures["seconds"] / seconds - 1) < NEARLY:
        return None
    beside = figures["seconds"] - figures["steps"] / speed
    return max(1, round((seconds - beside) * speed / chunk)) * chunk
