"""Does the flow keep up with the energy? Acceptance and mixing against training step.

Balanced training of four modes under one Gaussian as base, and in the form of Grenioux, Moulines,
Gabrié (2023), whose base is the flow as it was fitted to the rows. What every report of training
holds is of its last chunk of steps: local and global acceptance, and, for the averaged energy and
the present flow, the effective share of the importance weights and log Z. At every fifth report
both are frozen as they are and the present chains make sweeps of them (`sampling/sweep.py`), which
are then diagnosed as any sampler's would be:

    rhat            the worst coordinate's; near 1 where the chains agree
    ess_per_sweep   effective draws a sweep of one chain, the worst coordinate's, at most 1
    jump_rate       the share of sweeps at which a chain changes its mode
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Float, PRNGKeyArray

import tiltflow
from tiltflow.data.mixtures import four_modes
from tiltflow.evaluation.diagnostics import diagnose_chains, jump_rate
from tiltflow.experiments.cells import Cell, Line, run_cells
from tiltflow.experiments.judged import to_user
from tiltflow.experiments.problem import Problem, labels_of, make_problem
from tiltflow.models.energies import Energy, MLPEnergy
from tiltflow.models.flows import trainable
from tiltflow.models.tilted import TiltedEBM
from tiltflow.report.figure_acceptance import Column, draw_figure_acceptance
from tiltflow.report.style import save_png
from tiltflow.report.table import format_table, mean_and_std
from tiltflow.sampling.recording import record_sweeps
from tiltflow.sampling.sweep import FrozenKernel
from tiltflow.training.balanced import Balanced, BalancedState
from tiltflow.training.bases import choose_base
from tiltflow.training.density import default_local_steps, default_schedule
from tiltflow.training.loop import Schedule, train_energy

EXPERIMENT = "acceptance"
CHAINS = 256
"""Of the chains in training, those that are diagnosed."""
GUESSED_START, GUESSED_EVALUATION = 60.0, 6e-6
SCHEDULE = replace(default_schedule("gaussian"), chunk=25, patience=1000)
BALANCED = Balanced()


@dataclass(frozen=True)
class Case:
    """Four modes with means of `norm`, the training, and how often the chains are diagnosed.

    Training goes to its end, whatever the held-out rows say. `every` counts reports.
    """

    dimension: int
    norm: float
    schedule: Schedule = SCHEDULE
    method: Balanced = BALANCED
    rows: int = 20_000
    every: int = 5
    sweeps: int = 64
    base: str = "gaussian"

    @property
    def name(self) -> str:
        """For tables and figures."""
        of_base = "" if self.base == "gaussian" else f", base {self.base}"
        return f"d = {self.dimension}{of_base}"


OF_FLOW = replace(default_schedule("flow"), chunk=25, patience=1000)
CASES = (
    Case(16, 3.5),
    Case(64, 4.0),
    Case(16, 3.5, OF_FLOW, Balanced(local_steps=default_local_steps("flow")), base="flow"),
)
QUICK = {
    "rows": 4000,
    "method": Balanced(chains=256, local_steps=5),
    "schedule": replace(SCHEDULE, steps=200, learning_rate=3e-3, averaging=0.98),
    "every": 2,
    "sweeps": 32,
}
FIGURES = {
    "global acceptance": "global_acceptance_rate",
    "local acceptance": "local_acceptance_rate",
    "effective share": "importance_ess",
    "log Z": "log_z",
    "R-hat": "rhat",
    "ESS a sweep": "ess_per_sweep",
    "jump rate": "jump_rate",
}
Report = dict[str, float | int]
""""step" and those of `FIGURES` that are known of it."""

TIMES = {"start": 0.0, "a quarter": 0.25, "half": 0.5, "end": 1.0}


def reproduce_acceptance(
    *, seeds: int, seed: int, quiet: bool, out: Path, quick: bool = False
) -> None:
    """Four modes: the table, the figure, and the lowest acceptance."""
    cases = [replace(case, **QUICK) for case in CASES] if quick else list(CASES)
    cells = []
    for case in cases:
        for run_seed in range(seed, seed + seeds):
            method = case.method
            cost = case.schedule.steps * method.evaluations(case.schedule.batch_size)
            guess = GUESSED_START + GUESSED_EVALUATION * cost
            names = (EXPERIMENT, case.name, "balanced", "shared", run_seed, "steps")
            settings = (tiltflow.__version__, case, CHAINS)
            cells.append(Cell(*names, settings, guess, _running(case)))
    lines = run_cells(cells, out, quiet=quiet)
    print(summary(lines), flush=True)
    columns = [
        Column(name, [line["figures"]["reports"] for line in lines if line["case"] == name])
        for name in dict.fromkeys(line["case"] for line in lines)
    ]
    save_png(draw_figure_acceptance(columns), out / "figure.png")
    print(f"written to {out}: figure.png")


def _running(case: Case) -> Callable[[Cell, Sequence[Line]], dict[str, Any]]:
    return lambda cell, lines: {"reports": follow(case, seed=cell.seed)}


def follow(case: Case, *, seed: int) -> list[Report]:
    """Train once; of every report the step and those of `FIGURES` that it has."""
    problem = make_problem(four_modes(case.dimension, case.norm), rows=case.rows, seed=seed)
    key = jax.random.key(seed + 1)
    start = choose_base(key, case.base, problem.x, problem.held_out, seed=seed)
    flow_static = trainable(start.flow)[1]
    last = case.schedule.steps // case.schedule.chunk
    count = 0

    def watch(energy: Energy, state: BalancedState) -> dict[str, float]:
        nonlocal count
        count += 1
        if count not in (1, last) and count % case.every:
            return {}
        return diagnose(
            jax.random.fold_in(jax.random.key(seed + 4), count),
            problem,
            TiltedEBM(start.base, energy),
            eqx.combine(state.flow, flow_static),
            state.position[:CHAINS],
            FrozenKernel("mala", case.method.local_steps, jnp.exp(state.log_step_size)),
            case.sweeps,
        )

    trained = train_energy(
        jax.random.key(seed + 3),
        MLPEnergy(case.dimension, key=jax.random.key(seed + 2)),
        start.base,
        case.method,
        start.flow,
        jnp.asarray(problem.x),
        jnp.asarray(problem.held_out),
        case.schedule,
        watch=watch,
    )
    names = ("step", *FIGURES.values())
    reports = [each for each in trained.reports if "global_acceptance_rate" in each]
    return [{name: each[name] for name in names if name in each} for each in reports]


def diagnose(
    key: PRNGKeyArray,
    problem: Problem,
    model: TiltedEBM,
    flow: AbstractDistribution,
    position: Float[jax.Array, "n d"],
    kernel: FrozenKernel,
    sweeps: int,
) -> dict[str, float]:
    """What `sweeps` of the frozen model and flow are worth, from `position` on."""
    _, recording = record_sweeps(key, model.log_density, flow, position, kernel, sweeps)
    draws = recording.position
    found = diagnose_chains(draws)
    rows = to_user(problem, np.asarray(draws, float).reshape(-1, draws.shape[-1]))
    labels = labels_of(problem.target, rows).reshape(draws.shape[:2])
    return {
        "rhat": float(found.rhat.max()),
        "ess_per_sweep": float(found.ess_bulk.min()) / labels.size,
        "jump_rate": jump_rate(labels),
    }


def summary(lines: Sequence[Line]) -> str:
    """The table over seeds at four times, and the answer in words."""
    rows, words = [], []
    for case in dict.fromkeys(line["case"] for line in lines):
        runs = [line["figures"]["reports"] for line in lines if line["case"] == case]
        for time, share in TIMES.items():
            at = [_nearest(reports, share) for reports in runs]
            columns = [mean_and_std([each[name] for each in at]) for name in FIGURES.values()]
            rows.append([case, time, str(at[0]["step"]), *columns])
        words.append(_lowest(case, runs))
    table = format_table(["case", "time", "step", *FIGURES], rows)
    return "\n".join([f"balanced, {len(lines)} runs", table, "", " ".join(words)])


def _nearest(reports: Sequence[Report], share: float) -> Report:
    """Of the reports with a diagnosis the one nearest to that share of the training."""
    full = [each for each in reports if "rhat" in each]
    return min(full, key=lambda each: abs(each["step"] - share * reports[-1]["step"]))


def _lowest(case: str, runs: Sequence[Sequence[Report]]) -> str:
    def global_rate(report: Report) -> float:
        return report["global_acceptance_rate"]

    lowest = min((report for reports in runs for report in reports), key=global_rate)
    ends = mean_and_std([global_rate(reports[-1]) for reports in runs])
    return (
        f"{case}: the global acceptance of any seed is lowest at step {lowest['step']}, "
        f"{global_rate(lowest):.2f}, and {ends} at the end."
    )
