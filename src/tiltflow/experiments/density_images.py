"""Learned densities of the plane kept as images beside their cells, for figures of later runs.

With them are the chains where training left them, if the method has any.
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tiltflow.data.arrays import load_npz
from tiltflow.evaluation.quadrature import grid_around
from tiltflow.experiments.cells import Line
from tiltflow.experiments.problem import Problem, model_log_density
from tiltflow.models.tilted import TiltedEBM
from tiltflow.report.files import write_atomically

CELLS = 160
MARGIN = 0.1


class LastChains(NamedTuple):
    """Negatives where training left them, in the target's own units; weights add up to one."""

    position: Float[np.ndarray, "n d"]
    weights: Float[np.ndarray, " n"]


class Image(NamedTuple):
    """A learned log-density on a regular grid, in the target's own units, normalised, nats.

    `position` and `weights` are those of the chains, None where there are none.
    """

    x: Float[np.ndarray, " gx"]
    y: Float[np.ndarray, " gy"]
    log_prob: Float[np.ndarray, "gy gx"]
    position: Float[np.ndarray, "n 2"] | None = None
    weights: Float[np.ndarray, " n"] | None = None


def keep_image(
    out: Path,
    cell: Line,
    problem: Problem,
    model: TiltedEBM,
    log_z: float,
    chains: LastChains | None = None,
) -> None:
    """Keep the model's density around the data; nothing is done above two dimensions."""
    if problem.target.dimension != 2:
        return
    grid = grid_around(problem.data, cells=CELLS, margin=MARGIN)
    log_prob = model_log_density(problem, model, grid.points) - log_z
    write_image(out, cell, Image(grid.x, grid.y, grid.image(log_prob), *(chains or ())))


def write_image(out: Path, cell: Line, image: Image) -> None:
    """Keep an image beside its cell."""
    stream = io.BytesIO()
    arrays = {name: each for name, each in image._asdict().items() if each is not None}
    np.savez(stream, **arrays)
    path = _path(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, stream.getvalue())


def read_image(out: Path, cell: Line) -> Image | None:
    """The image of a cell, or None where none was kept."""
    path = _path(out, cell)
    if not path.exists():
        return None
    arrays = load_npz(path)
    x, y, log_prob = (arrays[name] for name in ("x", "y", "log_prob"))
    return Image(x, y, log_prob, arrays.get("position"), arrays.get("weights"))


def _path(out: Path, cell: Line) -> Path:
    return out / "densities" / f"{cell['fingerprint']}.npz"
