"""Quadrature in two dimensions: the normaliser, mode weights and divergences with no sampling.

Densities are read at the centres of the cells of a regular grid that covers all of the mass.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp


class Grid(NamedTuple):
    """A regular grid of cells; `points` runs along x first."""

    x: Float[np.ndarray, " gx"]
    y: Float[np.ndarray, " gy"]

    @property
    def points(self) -> Float[np.ndarray, "p 2"]:
        """Cell centres."""
        return np.stack(np.meshgrid(self.x, self.y), axis=-1).reshape(-1, 2)

    @property
    def log_cell(self) -> float:
        """Logarithm of a cell's area."""
        return float(np.log((self.x[1] - self.x[0]) * (self.y[1] - self.y[0])))

    def image(self, values: Float[np.ndarray, " p"]) -> Float[np.ndarray, "gy gx"]:
        """Values at `points` as rows of y and columns of x."""
        return values.reshape(len(self.y), len(self.x))


def grid_around(data: Float[np.ndarray, "n 2"], *, cells: int = 300, margin: float = 0.5) -> Grid:
    """A grid over the range of the data, widened by `margin` of the range on each side."""
    low, high = data.min(axis=0), data.max(axis=0)
    low, high = low - margin * (high - low), high + margin * (high - low)
    centres = (np.arange(cells) + 0.5) / cells
    return Grid(*(low[:, None] + (high - low)[:, None] * centres))


def normalise(grid: Grid, log_density: Float[np.ndarray, " p"]) -> tuple[np.ndarray, float]:
    """The log-density on the grid's points made normalised, and log Z; -inf and nan count as 0."""
    log_density = np.where(np.isnan(log_density), -np.inf, np.asarray(log_density, float))
    log_z = float(np.asarray(logsumexp(log_density))) + grid.log_cell
    return log_density - log_z, log_z


def mode_weights(
    grid: Grid, log_prob: Float[np.ndarray, " p"], labels: Int[np.ndarray, " p"], modes: int
) -> Float[np.ndarray, " modes"]:
    """Mass of every label."""
    mass = np.exp(log_prob + grid.log_cell)
    return np.bincount(labels, weights=mass, minlength=modes)


def kl_divergence(
    grid: Grid, truth_log_prob: Float[np.ndarray, " p"], log_prob: Float[np.ndarray, " p"]
) -> float:
    """KL(truth || model) in nats; infinite where the model has no mass and the truth has."""
    mass = np.exp(truth_log_prob + grid.log_cell)
    seen = mass > 0
    return float(np.sum(mass[seen] * (truth_log_prob[seen] - log_prob[seen])))
