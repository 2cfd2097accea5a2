"""Do chains in a flow's latent space cross between modes? Neural transport against balanced.

Grenioux, Moulines, Gabrié (2023), Figure 5. Both methods are trained as in the contest; then
everything is frozen, and chains go on from where training left them, for the same number of
gradients of the energy in a point. Counted is how often a chain is in another zone than a sweep
before. Neural transport moves by `training/neural_transport.py` in the latent space of its base.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jaxtyping import Array, Float, Int, PRNGKeyArray

import tiltflow
from tiltflow.experiments.cells import Cell, Line, run_cells
from tiltflow.experiments.chain_images import Recorded, keep_chains, save_figure
from tiltflow.experiments.contenders import Contender
from tiltflow.experiments.contest import equal_steps, evaluations_of
from tiltflow.experiments.judged import to_user
from tiltflow.experiments.problem import Problem, labels_of
from tiltflow.experiments.trial import Case, prepare, train
from tiltflow.models.tilted import TiltedEBM
from tiltflow.report.table import format_table
from tiltflow.sampling.chains import Chains, refresh
from tiltflow.sampling.recording import record_sweeps
from tiltflow.sampling.sweep import FrozenKernel
from tiltflow.training.balanced import Balanced
from tiltflow.training.guard import TrainingFailed
from tiltflow.training.loop import Trained
from tiltflow.training.neural_transport import NeuralTransport, latent_log_density

BUDGET = "frozen chains"
EVALUATIONS = 2000
"""Gradients of the energy for each chain."""
MOST_CHAINS = 128
COLUMNS = [
    "method",
    "setting",
    "sweeps",
    "jumps in 1000 gradients",
    "chains that never left their zone",
    "local acceptance",
    "global acceptance",
]


def compare_chains(
    case: Case, entered: Sequence[Contender], *, seed: int, out: Path, quiet: bool
) -> None:
    """Print the table and save the figure, unless neural transport or balanced is not entered."""
    kinds = NeuralTransport, Balanced
    chosen = [
        next((each for each in entered if isinstance(each.method, kind)), None) for kind in kinds
    ]
    latent, reference = chosen
    if latent is None or reference is None:
        return
    rows = round(0.9 * case.rows)
    evaluations = case.schedule.steps * evaluations_of(reference, case.schedule, rows)
    cells = []
    for contender in (latent, reference):
        steps = equal_steps(contender, case.schedule, evaluations, rows)

        def run(
            cell: Cell, lines: Sequence[Line], contender: Contender = contender, steps: int = steps
        ) -> dict[str, Any]:
            return _run(case, contender, steps, cell, out)

        settings = (tiltflow.__version__, case, contender, steps, EVALUATIONS, MOST_CHAINS)
        names = (case.experiment, case.name, contender.name, contender.setting, seed, BUDGET)
        cells.append(Cell(*names, settings, 60.0, run))
    lines = run_cells(cells, out, quiet=quiet)
    print(format_table(COLUMNS, [_row(line) for line in lines]))
    for line in lines:
        if line["figures"]["stopped"]:
            print(
                f"{line['method']}: the training ran away ({line['figures']['stopped']}); the "
                "chains are of its last good state"
            )
    save_figure(lines, out)


def _row(line: Line) -> list[str]:
    names, figures = [line["method"], line["setting"]], line["figures"]
    if "jumps" not in figures:
        return [*names, *["-"] * (len(COLUMNS) - 2)]
    rates = (figures[f"{kind}_acceptance_rate"] for kind in ("local", "global"))
    return [
        *names,
        str(figures["sweeps"]),
        f"{figures['jumps']:.3g}",
        f"{figures['stayed']:.3f}",
        *("-" if np.isnan(rate) else f"{rate:.2f}" for rate in rates),
    ]


def _run(case: Case, contender: Contender, steps: int, cell: Cell, out: Path) -> dict[str, Any]:
    """Train, freeze, go on; keep what the figure shows, and return what is counted."""
    prepared = prepare(case, cell.seed)
    schedule = replace(case.schedule, steps=steps)
    flow = prepared.flow(contender.flow)[0] if contender.flow else None
    try:
        base, trained = train(contender, prepared, flow, schedule, seed=cell.seed)
    except TrainingFailed as error:
        return {"stopped": str(error)}
    model = TiltedEBM(base, trained.energy)
    recorded = record(jax.random.key(cell.seed + 5), contender.method, model, trained)
    problem = prepared.problem
    zones = zones_over_time(problem, recorded.position)
    keep_chains(out, cell.about, problem, model, recorded, zones)
    jumps, stayed = count_jumps(zones, recorded.evaluations)
    return {
        "stopped": str(trained.stopped) if trained.stopped else None,
        "space": "the plane" if recorded.latent is None else "the latent space of its flow",
        "sweeps": len(zones) - 1,
        "evaluations": recorded.evaluations,
        "jumps": jumps,
        "stayed": stayed,
        "local_acceptance_rate": recorded.local_acceptance_rate,
        "global_acceptance_rate": recorded.global_acceptance_rate,
    }


def count_jumps(zones: Int[np.ndarray, "t n"], evaluations: int) -> tuple[float, float]:
    """Changes of zone per chain and 1000 gradients, and the share of chains that made none."""
    changes = zones[1:] != zones[:-1]
    return (
        float(1000 * changes.sum(axis=0).mean() / evaluations),
        float(np.mean(~changes.any(axis=0))),
    )


def record(key: PRNGKeyArray, method: Any, model: TiltedEBM, trained: Trained) -> Recorded:
    """Let the trained method's chains go on under `model`, for `EVALUATIONS` gradients each."""
    state = trained.source
    if isinstance(method, NeuralTransport):
        cost = method.local_steps * method.leapfrog_steps
        latent, position, rate = _latent_sweeps(
            key,
            model,
            state.latent[:MOST_CHAINS],
            state.log_step_size[:MOST_CHAINS],
            method,
            EVALUATIONS // cost,
        )
        sweeps = len(latent) - 1
        return Recorded(_numpy(position), _numpy(latent), sweeps * cost, float(rate), float("nan"))
    flow = eqx.combine(state.flow, trained.flow_static)
    kernel = FrozenKernel("mala", method.local_steps, jnp.exp(state.log_step_size))
    cost, start = method.local_steps + 1, state.position[:MOST_CHAINS]
    # Chains are recorded before each sweep: one more, for where the last of them leads.
    sweeps = EVALUATIONS // cost
    _, found = record_sweeps(key, model.log_density, flow, start, kernel, sweeps + 1)
    rates = float(found.local_acceptance_rate.mean()), float(found.global_acceptance_rate.mean())
    return Recorded(_numpy(found.position), None, sweeps * cost, *rates)


def _numpy(positions: Float[Array, "t n 2"]) -> Float[np.ndarray, "t n 2"]:
    return np.asarray(positions, dtype=float)


@eqx.filter_jit
def _latent_sweeps(
    key: PRNGKeyArray,
    model: TiltedEBM,
    start: Float[Array, "n 2"],
    log_step_size: Float[Array, " n"],
    method: NeuralTransport,
    sweeps: int,
) -> tuple[Float[Array, "t n 2"], Float[Array, "t n 2"], Float[Array, ""]]:
    """The latent chains before the first and after every sweep, their images, their acceptance."""
    log_density = latent_log_density(model)

    def sweep(chains: Chains, sweep_key: PRNGKeyArray) -> tuple[Chains, tuple[Array, Array]]:
        chains, rates = method.moves(sweep_key, chains, log_density, log_step_size)
        return chains, (chains.position, rates.mean())

    _, (after, rates) = jax.lax.scan(
        sweep, refresh(start, log_density), jax.random.split(key, sweeps)
    )
    latent = jnp.concatenate([start[None], after])
    to_data = paramax.unwrap(model.base).bijection.transform
    position = jax.lax.map(jax.vmap(to_data), latent)
    return latent, position, rates.mean()


def zones_over_time(
    problem: Problem, position: Float[np.ndarray, "t n 2"]
) -> Int[np.ndarray, "t n"]:
    """The zone of every chain at every time, positions being in model units."""
    rows = to_user(problem, position.reshape(-1, 2))
    return labels_of(problem.target, rows).reshape(position.shape[:2])
