"""Four modes in many dimensions: Gaussian ones under one Gaussian as base, and warped ones.

Weights .4, .3, .2, .1; 20 000 rows; everything is judged on fresh points of the target, with
log Z by importance sampling from the flow.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from tiltflow.data.mixtures import four_modes, warped_modes
from tiltflow.data.targets import Target
from tiltflow.experiments.problem import exact_log_prob, judge, make_problem
from tiltflow.models.gaussian_mixture import best_mixture
from tiltflow.report.files import append_json_lines
from tiltflow.report.table import format_table, mean_and_std
from tiltflow.training.balanced import Balanced
from tiltflow.training.bases import choose_base
from tiltflow.training.density import default_local_steps, default_schedule, fit_density

ROWS = 20_000


@dataclass(frozen=True)
class Case:
    """A target by dimension and norm of its means, and the base of the model."""

    dimension: int
    norm: float
    base: str
    warped: bool = False

    @property
    def target(self) -> Target:
        """The density to learn."""
        make = warped_modes if self.warped else four_modes
        return make(self.dimension, self.norm)


def reproduce_four_modes_16(*, seeds: int, seed: int, quiet: bool, out: Path) -> None:
    """D = 16, means of norm 3.5, one Gaussian as base."""
    _reproduce(Case(16, 3.5, "gaussian"), seeds, seed, quiet, out)


def reproduce_four_modes_64(*, seeds: int, seed: int, quiet: bool, out: Path) -> None:
    """D = 64, means of norm 4, one Gaussian as base."""
    _reproduce(Case(64, 4.0, "gaussian"), seeds, seed, quiet, out)


def reproduce_four_modes_128(*, seeds: int, seed: int, quiet: bool, out: Path) -> None:
    """D = 128, means of norm 4.5, one Gaussian as base."""
    _reproduce(Case(128, 4.5, "gaussian"), seeds, seed, quiet, out)


def reproduce_warped_modes_64(*, seeds: int, seed: int, quiet: bool, out: Path) -> None:
    """D = 64, warped modes with means of norm 4, the base chosen on held-out rows."""
    _reproduce(Case(64, 4.0, "auto", warped=True), seeds, seed, quiet, out)


def run_case(case: Case, *, seed: int, quiet: bool) -> dict[str, Any]:
    """Fit one data set of the case; the figures of its judgement and the seconds."""
    problem = make_problem(case.target, rows=ROWS, seed=seed)
    started = time.perf_counter()
    key = jax.random.key(seed + 10)
    start = choose_base(key, case.base, problem.x, problem.held_out, seed=seed)
    schedule = default_schedule(start.kind)
    with tqdm(total=schedule.steps, desc=f"seed {seed}", disable=quiet) as bar:

        def show(report: dict[str, Any]) -> None:
            if report["stage"] == "energy" and "held_out_log_likelihood" in report:
                bar.update(report["step"] - bar.n)
                bar.set_postfix(held_out=f"{report['held_out_log_likelihood']:.3f}")

        density = fit_density(
            jax.random.key(seed + 20),
            start,
            problem.x,
            problem.held_out,
            source=Balanced(local_steps=default_local_steps(start.kind)),
            schedule=schedule,
            on_report=show,
        )
    seconds = time.perf_counter() - started
    judgement = judge(problem, density, start.flow, seed=seed)
    figures = {
        "seed": seed,
        "base": f"{start.kind}: {start.description}",
        "seconds": seconds,
        "best_step": density.best_step,
        **{name: np.asarray(value).tolist() for name, value in judgement._asdict().items()},
    }
    if case.warped:
        mixture, description, *_ = best_mixture(problem.x, problem.held_out, seed=seed)
        fresh = problem.target.sample(jax.random.key(seed + 77_777), ROWS)
        truth = exact_log_prob(problem.target, np.asarray(fresh, dtype=float))
        z = (np.asarray(fresh, dtype=float) - problem.mean) / problem.scale
        log_prob = np.asarray(mixture.log_prob(jnp.asarray(z))) - np.log(problem.scale).sum()
        figures |= {"mixture_kl": float((truth - log_prob).mean()), "mixture": description}
    return figures


def _reproduce(case: Case, seeds: int, seed: int, quiet: bool, out: Path) -> None:
    results = []
    for i in range(seeds):
        results.append(run_case(case, seed=seed + i, quiet=quiet))
        # Each finished seed is kept at once: a long run may be stopped.
        append_json_lines(out / "results.jsonl", results[-1:])
    names = {
        "KL(truth || model)": "kl",
        "base alone": "base_kl",
        "flow alone": "flow_kl",
        **({"best mixture": "mixture_kl"} if case.warped else {}),
        "weight error, data": "weight_error_data",
        "weight error, truth": "weight_error_truth",
        "acceptance": "acceptance_rate",
        "ESS": "importance_ess",
        "seconds": "seconds",
    }
    kind = "warped" if case.warped else "four"
    print(f"{kind} modes, d = {case.dimension}, {ROWS} rows, base {case.base}, {seeds} seeds")
    row = [mean_and_std([result[name] for result in results]) for name in names.values()]
    worst = max(result["weight_error_data"] for result in results)
    print(format_table(list(names), [row]))
    print(f"largest weight error of any seed, against the data's share: {worst:.4f}")
    print("bases: " + "; ".join(sorted({result["base"] for result in results})))
