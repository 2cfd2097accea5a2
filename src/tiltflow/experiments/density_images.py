"""Learned densities of the plane kept as images beside their cells, for figures of later runs."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tiltflow.evaluation.quadrature import grid_around
from tiltflow.experiments.cells import Line
from tiltflow.experiments.problem import Problem, model_log_density
from tiltflow.models.tilted import TiltedEBM
from tiltflow.report.files import write_atomically

CELLS = 160
MARGIN = 0.1


class Image(NamedTuple):
    """A learned log-density on a regular grid, in the target's own units, normalised, nats."""

    x: Float[np.ndarray, " gx"]
    y: Float[np.ndarray, " gy"]
    log_prob: Float[np.ndarray, "gy gx"]


def keep_image(out: Path, cell: Line, problem: Problem, model: TiltedEBM, log_z: float) -> None:
    """Keep the model's density around the data; nothing is done above two dimensions."""
    if problem.target.dimension != 2:
        return
    grid = grid_around(problem.data, cells=CELLS, margin=MARGIN)
    log_prob = model_log_density(problem, model, grid.points) - log_z
    stream = io.BytesIO()
    np.savez(stream, x=grid.x, y=grid.y, log_prob=grid.image(log_prob))
    path = _path(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, stream.getvalue())


def read_image(out: Path, cell: Line) -> Image | None:
    """The image of a cell, or None where none was kept."""
    path = _path(out, cell)
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return Image(*(arrays[name] for name in Image._fields))


def _path(out: Path, cell: Line) -> Path:
    return out / "densities" / f"{cell['fingerprint']}.npz"
