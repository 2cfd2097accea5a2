"""One trial of a contest: a contender is trained on the rows of a case, and judged.

Seconds (`clock.py`) are of all that a user waits for, without the first compilation of the training
steps, which serves all seeds; those who need the flow that was fitted to the rows pay for it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Float

from tiltflow.data.targets import Target
from tiltflow.experiments.clock import clock
from tiltflow.experiments.contenders import Contender, FlowKind
from tiltflow.experiments.density_images import LastChains
from tiltflow.experiments.judged import NoEnergy, broken, judge_chains, judge_model, to_user
from tiltflow.experiments.problem import (
    Problem,
    all_rows,
    labels_of,
    make_problem,
    truth_in_model_units,
)
from tiltflow.models.energies import Energy
from tiltflow.models.gaussian_mixture import best_gaussian, best_mixture
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.adaptive_sweeps import WarmUpSettings
from tiltflow.training.bases import proposal_on
from tiltflow.training.guard import TrainingFailed
from tiltflow.training.loop import Schedule, Trained, train_energy
from tiltflow.training.maximum_likelihood import fit_flow
from tiltflow.training.polish import polish

LAST_REPORTS = 8
POLISHING_DRAWS = 262_144
"""So many that they leave an error of a thousandth in the weight of a mode."""


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
        if kind == "the truth":
            return truth_in_model_units(problem), 0.0
        started = clock()
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
        return fit.flow, clock() - started

    return Prepared(problem, gaussian.fit(all_rows(problem)), flow)


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
    started = clock()
    chains: list[LastChains] = []
    told: dict[str, Any]
    try:
        model, told, chains = _train(contender, prepared, flow, schedule, seed, watch)
    except TrainingFailed as error:
        model, told = None, {"steps": 0, "evaluations": 0, "stopped": str(error)}
    waited = clock() - started - told.get("compile_seconds", 0.0) + flow_seconds
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
        # Whoever holds no rows out may train on all of them.
        jnp.asarray(problem.x if contender.held_out else all_rows(problem)),
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
    marks = [clock()]

    def look(energy: Energy, state: Any) -> dict[str, Any]:
        marks.append(clock())
        if hasattr(state, "position"):
            chains.append(_chains_of(problem, state))
        return {"watched": see(energy)} if see else {}

    base, trained = train(contender, prepared, flow, schedule, seed=seed, watch=look)
    model = TiltedEBM(base, trained.energy)
    proposal = trained.flow or flow
    if contender.polished and proposal is not None:
        rows, held_out = jnp.asarray(problem.x), jnp.asarray(problem.held_out)
        polish_key = jax.random.key(seed + 4)
        energy = polish(polish_key, model, proposal, rows, held_out, draws=POLISHING_DRAWS).energy
        model = TiltedEBM(base, energy)
    reports = [each for each in trained.reports if "steps_per_second" in each]
    steps = reports[-1]["step"] if reports else 0
    batch_size = min(schedule.batch_size, len(problem.x))
    # Of the chunks and of what each report asks for; the first chunk compiles.
    chunks = np.diff(marks)
    nan = float("nan")
    told = {
        **judge_chains([each.position for each in chains]),
        "steps": steps,
        "evaluations": steps * contender.method.evaluations(batch_size),
        "steps_per_second": schedule.chunk / np.median(chunks[1:]) if len(chunks) > 1 else nan,
        "compile_seconds": max(0.0, chunks[0] - np.median(chunks[1:])) if len(chunks) > 1 else 0.0,
        "acceptance_rate": reports[-1].get("global_acceptance_rate", nan) if reports else nan,
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
