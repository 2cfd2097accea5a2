"""The motivating example's figure: two modes with weights 2 : 1, persistent and balanced negatives.

Grenioux, Moulines, Gabrié (2023), Figure 1; the contest of all methods on these modes is in
`plane.py`. Both methods train the same energy network on the
same 20 000 points with the same number of energy-gradient evaluations of the chains; densities
are judged by quadrature.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from tqdm import tqdm

from tiltflow.data.mixtures import two_modes
from tiltflow.evaluation.quadrature import Grid, grid_around, kl_divergence, mode_weights, normalise
from tiltflow.experiments.problem import (
    Problem,
    exact_log_prob,
    label_shares,
    labels_of,
    make_problem,
    model_log_density,
)
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.tilted import TiltedEBM
from tiltflow.report.figure_one import MethodView, Truth, draw_figure_one
from tiltflow.report.files import write_atomically
from tiltflow.report.html import Section, write_report
from tiltflow.report.style import png_bytes, save_png
from tiltflow.report.table import format_table, mean_and_std
from tiltflow.sampling.chains import Chains, refresh
from tiltflow.sampling.local import ula
from tiltflow.sampling.recording import record_sweeps
from tiltflow.sampling.sweep import FrozenKernel
from tiltflow.training.balanced import Balanced
from tiltflow.training.bases import choose_base
from tiltflow.training.loop import Schedule, Trained, train_energy
from tiltflow.training.persistent import Persistent
from tiltflow.training.polish import polish

TOP_RIGHT = 1
CHAIN_SWEEPS = 400


def usual_energy(dimension: int, key: PRNGKeyArray) -> MLPEnergy:
    """The library's own."""
    return MLPEnergy(dimension, key=key)


@dataclass(frozen=True)
class Settings:
    """The shared budget; `a` as in `two_modes`, `local_steps` are those of the balanced method."""

    a: float = 1.0
    rows: int = 20_000
    schedule: Schedule = field(
        default_factory=lambda: Schedule(steps=600, chunk=50, learning_rate=2e-3, patience=1000)
    )
    chains: int = 1024
    local_steps: int = 10
    ula_step_size: float = 0.005
    base_share: float = 0.0
    energy: Callable[[int, PRNGKeyArray], MLPEnergy] = usual_energy


class Run(NamedTuple):
    """One method's result on one data set."""

    name: str
    model: TiltedEBM
    reports: list[dict[str, Any]]
    weight: float
    weight_by_chains: float
    kl: float
    seconds: float
    gradient_evaluations: int
    chain: Float[np.ndarray, "t 2"]


class Comparison(NamedTuple):
    """Both methods on one data set, of modes at `a`."""

    a: float
    problem: Problem
    grid: Grid
    runs: list[Run]


def compare(settings: Settings, *, seed: int, quiet: bool) -> Comparison:
    """Train both methods on one draw of the data."""
    problem = make_problem(two_modes(a=settings.a), rows=settings.rows, seed=seed)
    grid = grid_around(problem.data)
    started = time.perf_counter()
    start = choose_base(
        jax.random.key(seed + 1), "gaussian", problem.x, problem.held_out, seed=seed
    )
    start_seconds = time.perf_counter() - started
    # One refresh and one proposal a step come on top of the local steps of the balanced method.
    evaluations_per_step = settings.local_steps + 2
    sources = {
        "PCD with ULA": Persistent(
            chains=settings.chains,
            local_steps=evaluations_per_step - 1,
            step_size=settings.ula_step_size,
        ),
        "balanced": Balanced(settings.chains, settings.local_steps, base_share=settings.base_share),
    }
    energy = settings.energy(2, jax.random.key(seed + 2))
    labels = labels_of(problem.target, grid.points)
    truth = exact_log_prob(problem.target, grid.points)
    runs = []
    for name, source in sources.items():
        balanced = isinstance(source, Balanced)
        started = time.perf_counter()
        with tqdm(total=settings.schedule.steps, desc=name, disable=quiet) as bar:

            def watch(candidate: Any, state: Any) -> dict[str, float]:
                model = TiltedEBM(start.base, candidate)
                log_prob, _ = normalise(grid, model_log_density(problem, model, grid.points))
                positions = np.asarray(state.position) * problem.scale + problem.mean
                return {
                    "weight": mode_weights(grid, log_prob, labels, 2)[TOP_RIGHT],
                    "weight_by_chains": label_shares(problem.target, positions)[TOP_RIGHT],
                }

            def show(report: dict[str, Any]) -> None:
                if "step" in report and "weight" in report:
                    bar.update(report["step"] - bar.n)
                    bar.set_postfix(weight=f"{report['weight']:.3f}")

            trained = train_energy(
                jax.random.key(seed + 3),
                energy,
                start.base,
                source,
                start.flow if balanced else None,
                jnp.asarray(problem.x),
                jnp.asarray(problem.held_out) if balanced else None,
                settings.schedule,
                on_report=show,
                watch=watch,
            )
        model = TiltedEBM(start.base, trained.energy)
        if balanced:
            polished = polish(
                jax.random.key(seed + 4),
                model,
                eqx.combine(trained.source.flow, trained.flow_static),
                jnp.asarray(problem.x),
                jnp.asarray(problem.held_out),
            )
            model = TiltedEBM(start.base, polished.energy)
        seconds = time.perf_counter() - started + (start_seconds if balanced else 0.0)
        log_prob, _ = normalise(grid, model_log_density(problem, model, grid.points))
        rows = [report for report in trained.reports if "weight" in report]
        runs.append(
            Run(
                name=name,
                model=model,
                reports=rows,
                weight=float(mode_weights(grid, log_prob, labels, 2)[TOP_RIGHT]),
                weight_by_chains=float(np.mean([r["weight_by_chains"] for r in rows[-5:]])),
                kl=kl_divergence(grid, truth, log_prob),
                seconds=seconds,
                gradient_evaluations=rows[-1]["step"] * settings.chains * evaluations_per_step,
                chain=_one_chain(source, model, trained, seed) * problem.scale + problem.mean,
            )
        )
    return Comparison(settings.a, problem, grid, runs)


def _one_chain(
    source: Balanced | Persistent, model: TiltedEBM, trained: Trained, seed: int
) -> Float[np.ndarray, "t 2"]:
    """The method's own sampler on its own density, one chain: one entry a sweep."""
    key = jax.random.key(seed + 5)
    position = trained.source.position[:1]
    if isinstance(source, Balanced):
        flow = eqx.combine(trained.source.flow, trained.flow_static)
        step_size = jnp.exp(trained.source.log_step_size)
        kernel = FrozenKernel("mala", source.local_steps, step_size)
        _, recording = record_sweeps(key, model.log_density, flow, position, kernel, CHAIN_SWEEPS)
        trace = recording.position
    else:
        trace = _trace_ula(key, model, position, source.step_size, CHAIN_SWEEPS, source.local_steps)
    return np.asarray(trace, dtype=float)[:, 0]


@eqx.filter_jit
def _trace_ula(
    key: PRNGKeyArray,
    model: TiltedEBM,
    position: Float[Array, "n 2"],
    step_size: float,
    sweeps: int,
    local_steps: int,
) -> Float[Array, "sweeps n 2"]:
    def step(state: Chains, sweep_key: PRNGKeyArray) -> tuple[Chains, Float[Array, "n 2"]]:
        state = ula(sweep_key, state, model.log_density, jnp.asarray(step_size), local_steps)
        return state, state.position

    return jax.lax.scan(step, refresh(position, model.log_density), jax.random.split(key, sweeps))[
        1
    ]


COLUMNS = [
    "method",
    "weight, quadrature",
    "weight, chains",
    "weight, data",
    "KL(truth || model)",
    "gradient evaluations",
    "seconds",
]


def table_rows(comparisons: list[Comparison]) -> list[list[str]]:
    """One row for each method: mean and standard deviation over the comparisons."""
    rows = []
    for index, first in enumerate(comparisons[0].runs):
        runs = [comparison.runs[index] for comparison in comparisons]
        rows.append(
            [
                first.name,
                mean_and_std([run.weight for run in runs]),
                mean_and_std([run.weight_by_chains for run in runs]),
                mean_and_std([comparison.problem.share[TOP_RIGHT] for comparison in comparisons]),
                mean_and_std([run.kl for run in runs]),
                f"{first.gradient_evaluations:,}".replace(",", " "),
                mean_and_std([run.seconds for run in runs]),
            ]
        )
    return rows


def figure_views(comparison: Comparison) -> tuple[Truth, list[MethodView]]:
    """What the figure shows, along the axis through the two centres."""
    a, problem, grid, runs = comparison
    centres = np.asarray(two_modes(a=a).means, dtype=float)
    direction = centres[1] - centres[0]
    length = np.linalg.norm(direction)
    positions = np.linspace(-0.5 * length, 1.5 * length, 400)
    line = centres[0] + positions[:, None] * direction / length
    truth = Truth(
        data=problem.data,
        axis_positions=positions,
        axis_log_prob=exact_log_prob(problem.target, line),
        weight=float(problem.target.weights[TOP_RIGHT]),
        data_share=float(problem.share[TOP_RIGHT]),
    )
    views = []
    for run in runs:
        log_prob, log_z = normalise(grid, model_log_density(problem, run.model, grid.points))
        views.append(
            MethodView(
                name=run.name,
                grid_x=grid.x,
                grid_y=grid.y,
                density=grid.image(np.exp(log_prob)),
                axis_log_prob=model_log_density(problem, run.model, line) - log_z,
                chain=(run.chain - centres[0]) @ direction / length,
                weight_steps=np.array([report["step"] for report in run.reports]),
                weight_by_quadrature=np.array([report["weight"] for report in run.reports]),
                weight_by_chains=np.array([report["weight_by_chains"] for report in run.reports]),
            )
        )
    return truth, views


def run_demo(out: Path, *, seed: int, quiet: bool, quick: bool) -> None:
    """Train both methods, print the table, write `figure.png`, `metrics.jsonl`, `report.html`."""
    settings = Settings()
    if quick:
        schedule = replace(settings.schedule, steps=100)
        settings = replace(settings, rows=4000, chains=128, schedule=schedule)
    comparison = compare(settings, seed=seed, quiet=quiet)
    rows = table_rows([comparison])
    print(format_table(COLUMNS, rows))
    figure = png_bytes(draw_figure_one(*figure_views(comparison)))
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "figure.png", figure)
    lines = [
        json.dumps({"method": run.name, **{k: v for k, v in report.items() if _is_plain(v)}})
        for run in comparison.runs
        for report in run.reports
    ]
    write_atomically(out / "metrics.jsonl", "\n".join([*lines, ""]).encode())
    pcd, balanced = comparison.runs
    share = comparison.problem.share[TOP_RIGHT]
    lead = (
        f"The data has {share:.3f} of its points in the top-right mode; the balanced model gives "
        f"it {balanced.weight:.3f}, the same network trained with persistent chains "
        f"{pcd.weight:.3g}."
    )
    write_report(
        out / "report.html",
        "tiltflow demo: two modes, 2 : 1",
        lead,
        [
            Section(
                "What was learned",
                text="The same energy network, data and number of gradient evaluations; weights "
                "of the top-right mode and Kullback-Leibler divergences (nats) by quadrature.",
                table=(COLUMNS, rows),
                figure_png=figure,
                figure_alt="For each method: data and learned density, log-density along the axis "
                "through the centres, one chain over time, and the weight of the top-right mode "
                "against training step",
            )
        ],
    )
    print(f"written to {out}: figure.png, metrics.jsonl, report.html")


def save_figure_one(settings: Settings, path: Path, *, seed: int, quiet: bool) -> None:
    """Train both methods on one draw of the data, print the table and write the figure."""
    comparison = compare(settings, seed=seed, quiet=quiet)
    print(f"Figure 1, a = {settings.a:g}, seed {seed}")
    print(format_table(COLUMNS, table_rows([comparison])), flush=True)
    save_png(draw_figure_one(*figure_views(comparison)), path)


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, float, str)) and value == value
