"""Frozen chains kept beside their cells, with the plane in which they move, for the figure.

The truth, pulled back to the latent space of a flow x = g(z), has the density

    p*(g(z)) |det dg/dz|.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, Int

from tiltflow.data.arrays import load_npz
from tiltflow.evaluation.quadrature import grid_around
from tiltflow.experiments.cells import Line
from tiltflow.experiments.judged import to_model, to_user
from tiltflow.experiments.problem import Problem, exact_log_prob, labels_of
from tiltflow.models.tilted import TiltedEBM
from tiltflow.report.figure_latent import ChainsView, Plane, draw_figure_latent
from tiltflow.report.files import write_atomically
from tiltflow.report.style import save_png
from tiltflow.training.neural_transport import latent_log_density

SHOWN = 4
CELLS = 120


class Recorded(NamedTuple):
    """Chains over their sweeps in model units, and in the latent space if they live there."""

    position: Float[np.ndarray, "t n 2"]
    latent: Float[np.ndarray, "t n 2"] | None
    evaluations: int
    local_acceptance_rate: float
    global_acceptance_rate: float


def keep_chains(
    out: Path,
    cell: Line,
    problem: Problem,
    model: TiltedEBM,
    recorded: Recorded,
    zones: Int[np.ndarray, "t n"],
) -> None:
    """Keep what the figure shows: the first chains, and the plane that they live in."""
    shown = recorded.position[:, :SHOWN]
    if recorded.latent is None:
        grid = grid_around(problem.data, cells=CELLS, margin=0.1)
        points = grid.points
        rows, points, log_det = points, to_model(problem, points), 0.0
        log_density, walked = jax.vmap(model.log_density), to_user(problem, shown.reshape(-1, 2))
    else:
        ends = recorded.latent.reshape(-1, 2)
        grid = grid_around(ends[np.isfinite(ends).all(axis=1)], cells=CELLS, margin=0.05)
        points = grid.points
        images, log_det = _push(model.base, jnp.asarray(points))
        rows, log_det = to_user(problem, np.asarray(images, dtype=float)), np.asarray(log_det)
        log_det = log_det + np.log(problem.scale).sum()
        log_density, walked = jax.vmap(latent_log_density(model)), recorded.latent[:, :SHOWN]
    arrays: dict[str, Any] = {
        "x": grid.x,
        "y": grid.y,
        "learned": grid.image(np.asarray(log_density(jnp.asarray(points)), dtype=float)),
        "truth": grid.image(exact_log_prob(problem.target, rows) + log_det),
        "zone": grid.image(labels_of(problem.target, rows)),
        "position": np.reshape(walked, shown.shape),
        "zones": zones[:, :SHOWN],
        "evaluations": np.asarray(recorded.evaluations),
    }
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    path = _path(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, stream.getvalue())


@eqx.filter_jit
def _push(
    base: AbstractDistribution, points: Float[Array, "p 2"]
) -> tuple[Float[Array, "p 2"], Float[Array, " p"]]:
    """Where the points z are carried to, and log |det dg/dz|."""
    return jax.vmap(paramax.unwrap(base).bijection.transform_and_log_det)(points)


def _path(out: Path, cell: Line) -> Path:
    return out / "chains" / f"{cell['fingerprint']}.npz"


def save_figure(lines: Sequence[Line], out: Path) -> None:
    """The chains of both methods, those that were kept."""
    views = []
    for line in lines:
        if not _path(out, line).exists():
            continue
        figures = line["figures"]
        kept = load_npz(_path(out, line))
        plane = Plane(*(kept[name] for name in Plane._fields))
        views.append(
            ChainsView(
                name=line["method"],
                note=f"in {figures['space']}; {figures['jumps']:.3g} jumps in 1000 gradients",
                plane=plane,
                position=kept["position"],
                zones=kept["zones"],
                evaluations=int(kept["evaluations"]),
            )
        )
    if views:
        save_png(draw_figure_latent(views), out / "figure_latent.png")
        print(f"written to {out}: figure_latent.png")
