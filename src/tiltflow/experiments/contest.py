"""A contest: the same rows, network and base for all methods, at equal cost.

Cost is counted twice. In the row "evaluations" a method takes as many steps as its share of the
reference's evaluations of the energy's gradient in a point allows (the reference is the balanced
method). In the row "seconds" it takes as many as its own speed allows in the reference's seconds;
where both are within a tenth of each other there is one run for both. Seconds are all that a user
waits for, compilation included; those who need the flow that was fitted to the rows pay for it.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Float

import tiltflow
from tiltflow.data.targets import Target
from tiltflow.experiments.cells import Cell, Line, find_line, run_cells
from tiltflow.experiments.contenders import BASE_SHARE, Contender, FlowKind
from tiltflow.experiments.density_images import LastChains, keep_image
from tiltflow.experiments.judged import (
    NoEnergy,
    broken,
    judge_chains,
    judge_model,
    to_user,
)
from tiltflow.experiments.problem import Problem, labels_of, make_problem
from tiltflow.models.defensive import DefensiveMixture
from tiltflow.models.energies import Energy
from tiltflow.models.gaussian_mixture import best_gaussian, best_mixture
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.adaptive_sweeps import WarmUpSettings
from tiltflow.training.bases import proposal_on
from tiltflow.training.guard import TrainingFailed
from tiltflow.training.loop import Schedule, Trained, train_energy
from tiltflow.training.maximum_likelihood import fit_flow
from tiltflow.training.polish import polish

EVALUATIONS, SECONDS = "evaluations", "seconds"
NEARLY = 0.1
LAST_REPORTS = 8
GUESSED_START = 30.0
GUESSED_EVALUATION = 2e-6
"""Seconds of one gradient of the network in a point, on two cores."""


@dataclass(frozen=True)
class Case:
    """A target, how many rows of it, the schedule of the reference, and the steps of flow fits."""

    experiment: str
    name: str
    make_target: Callable[[], Target]
    schedule: Schedule
    rows: int = 20_000
    flow_steps: int = 4000
    judging: WarmUpSettings | None = None


class Prepared(NamedTuple):
    """What all methods share in one seed; `flow` fits what is asked for, once, and tells seconds.

    `base` is one Gaussian.
    """

    problem: Problem
    base: AbstractDistribution
    flow: Callable[[FlowKind], tuple[AbstractDistribution, float]]


Watch = Callable[[Prepared], Callable[[Energy], dict[str, float]]]
"""What else to know of the averaged energy at every report; made once a seed and method."""


class Trial(NamedTuple):
    """One method's model, None if there is none, and all figures of it and of its training.

    `chains` are those at the last reports, none where the method has none.
    """

    model: TiltedEBM | None
    figures: dict[str, Any]
    chains: Sequence[LastChains] = ()


def prepare(case: Case, seed: int) -> Prepared:
    """Draw the rows and fit one Gaussian to them."""
    problem = make_problem(case.make_target(), rows=case.rows, seed=seed)
    gaussian = best_gaussian(problem.x, problem.held_out)

    @lru_cache
    def flow(kind: FlowKind) -> tuple[AbstractDistribution, float]:
        started = time.perf_counter()
        fitted = gaussian
        if kind == "on a mixture":
            fitted = best_mixture(problem.x, problem.held_out, seed=seed)
        flow_key, fit_key = jax.random.split(jax.random.key(seed + 1))
        fit = fit_flow(
            fit_key,
            proposal_on(flow_key, fitted.density),
            jnp.asarray(problem.x),
            jnp.asarray(problem.held_out),
            max_steps=case.flow_steps,
        )
        return fit.flow, time.perf_counter() - started

    rows = np.concatenate([problem.x, problem.held_out])
    return Prepared(problem, gaussian.fit(rows), flow)


def run_trial(
    contender: Contender,
    prepared: Prepared,
    schedule: Schedule,
    *,
    seed: int,
    judging: WarmUpSettings | None = None,
    watch: Watch | None = None,
) -> Trial:
    """Train one contender by `schedule`, as it is, and judge it. A training that fails is told.

    With `watch`, the figures have under "watched" what it saw at every report, and the step.
    """
    problem = prepared.problem
    flow, flow_seconds = prepared.flow(contender.flow) if contender.flow else (None, 0.0)
    started = time.perf_counter()
    chains: list[LastChains] = []
    try:
        model, told, chains = _train(contender, prepared, flow, schedule, seed, watch)
    except TrainingFailed as error:
        model, told = None, {"steps": 0, "evaluations": 0, "stopped": str(error)}
    waited = time.perf_counter() - started + flow_seconds
    if model is None:
        judged = broken(problem, told["stopped"])
    else:
        plane = problem.target.dimension == 2
        proposal = None if plane else prepared.flow("on a mixture")[0]
        judged = judge_model(problem, model, seed=seed, flow=proposal, settings=judging)
    nan = float("nan")
    nothing: dict[str, Any] = {"stopped": None}
    nothing |= {"chains_rhat": nan, "chains_ess": nan, "acceptance_rate": nan}
    if chains:
        shares = [shares_of_chains(problem, each) for each in chains]
        nothing["chain_weights"] = np.mean(shares, axis=0).tolist()
    figures = {**judged._asdict(), **nothing, **told, "seconds": waited}
    return Trial(model, figures, chains)


def train(
    contender: Contender,
    prepared: Prepared,
    flow: AbstractDistribution | None,
    schedule: Schedule,
    *,
    seed: int,
    watch: Callable[[Any, Any], dict[str, Any]] | None = None,
) -> tuple[AbstractDistribution, Trained]:
    """Train one contender that has a method; the base that it tilts, and what came of it.

    `flow` is the fitted one that the contender is given.
    """
    problem, base, _ = prepared
    assert contender.method is not None
    if flow is not None and contender.base == "flow":
        base = flow
    if contender.learning_rate is not None:
        schedule = replace(schedule, learning_rate=contender.learning_rate)
    trained = train_energy(
        jax.random.key(seed + 3),
        contender.energy(problem.target.dimension, jax.random.key(seed + 2)),
        base,
        contender.method,
        flow,
        jnp.asarray(problem.x),
        jnp.asarray(problem.held_out) if contender.held_out else None,
        schedule,
        watch=watch,
    )
    return base, trained


def _train(
    contender: Contender,
    prepared: Prepared,
    flow: AbstractDistribution | None,
    schedule: Schedule,
    seed: int,
    watch: Watch | None,
) -> tuple[TiltedEBM, dict[str, Any], list[LastChains]]:
    problem = prepared.problem
    if contender.method is None:
        assert flow is not None
        return TiltedEBM(flow, NoEnergy()), {"steps": 0, "evaluations": 0}, []
    chains = deque(maxlen=LAST_REPORTS)
    see = watch(prepared) if watch else None

    def look(energy: Energy, state: Any) -> dict[str, Any]:
        if hasattr(state, "position"):
            chains.append(_chains_of(problem, state))
        return {"watched": see(energy)} if see else {}

    base, trained = train(contender, prepared, flow, schedule, seed=seed, watch=look)
    model = TiltedEBM(base, trained.energy)
    proposal = trained.flow or flow
    if contender.polished and proposal is not None:
        rows, held_out = jnp.asarray(problem.x), jnp.asarray(problem.held_out)
        # The last layer is solved on weighted draws, and would find mass where none are.
        proposal = DefensiveMixture(proposal, base, BASE_SHARE)
        energy = polish(jax.random.key(seed + 4), model, proposal, rows, held_out).energy
        model = TiltedEBM(base, energy)
    reports = [each for each in trained.reports if "steps_per_second" in each]
    steps = reports[-1]["step"] if reports else 0
    batch_size = min(schedule.batch_size, len(problem.x))
    told = {
        **judge_chains([each.position for each in chains]),
        "steps": steps,
        "evaluations": steps * contender.method.evaluations(batch_size),
        # The first chunk compiles.
        "steps_per_second": float(np.median([each["steps_per_second"] for each in reports[1:]]))
        if len(reports) > 1
        else float("nan"),
        "acceptance_rate": float(reports[-1].get("global_acceptance_rate", "nan"))
        if reports
        else float("nan"),
        "stopped": str(trained.stopped) if trained.stopped else None,
        **({"watched": [{"step": it["step"], **it["watched"]} for it in reports]} if see else {}),
    }
    return model, told, list(chains)


def _chains_of(problem: Problem, state: Any) -> LastChains:
    """The chains in a source's state."""
    log_weights = getattr(state, "log_weights", jnp.zeros(len(state.position)))
    rows = to_user(problem, np.asarray(state.position, dtype=float))
    return LastChains(rows, np.asarray(jax.nn.softmax(log_weights), dtype=float))


def shares_of_chains(problem: Problem, chains: LastChains) -> Float[np.ndarray, " modes"]:
    """The share of the chains' weight in every mode; chains that are not finite are in none."""
    finite = np.isfinite(chains.position).all(axis=1)
    labels = labels_of(problem.target, chains.position[finite])
    return np.bincount(labels, weights=chains.weights[finite], minlength=len(problem.share))


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
    """All cells of a case.

    In the plane the first seed's learned densities are kept in `out` as images, with the chains
    (`read_image`). Without the reference among those entered there are no rows of equal seconds;
    and none of other settings than the shared one.
    """
    prepared = lru_cache(maxsize=1)(lambda run_seed: prepare(case, run_seed))
    rows = round(0.9 * case.rows)
    evaluations = case.schedule.steps * evaluations_of(reference, case.schedule, rows)
    cells = []
    for run_seed in range(seed, seed + seeds):
        for contender in entered:
            steps = equal_steps(contender, case.schedule, evaluations, rows)
            schedule = replace(case.schedule, steps=steps)
            settings = (tiltflow.__version__, case, contender, schedule)
            cost = steps * evaluations_of(contender, schedule, rows)
            names = (case.experiment, case.name, contender.name, contender.setting, run_seed)

            def by_evaluations(
                cell: Cell, lines: Sequence[Line], contender=contender, schedule=schedule
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
                cell: Cell, lines: Sequence[Line], contender=contender, schedule=schedule
            ) -> dict[str, Any]:
                first, most = (
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
                assert first is not None and most is not None
                steps = steps_in(most["figures"]["seconds"], first["figures"], schedule.chunk)
                if steps is None:
                    return first["figures"] | {"reused": True}
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
            if equal_seconds and rival and reference in entered and contender != reference:
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
