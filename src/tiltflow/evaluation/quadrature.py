"""Quadrature in two dimensions: the normaliser, mode weights and divergences with no sampling.

Densities are read at the centres of the cells of a regular grid that covers all of the mass, or of
two grids of which the coarser one covers what lies outside of the finer one: a model may have put
mass far from any data, and must not be normalised as if it had not.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
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


class NestedGrid(NamedTuple):
    """A fine grid, and the cells of a coarse one around it whose centres it does not cover."""

    inner: Grid
    outer: Grid

    @property
    def outside(self) -> Bool[np.ndarray, " p"]:
        """Which cells of the outer grid count."""
        low, high = (np.array([axis[end] for axis in self.inner]) for end in (0, -1))
        half = np.array([axis[1] - axis[0] for axis in self.inner]) / 2
        points = self.outer.points
        return np.any((points < low - half) | (points > high + half), axis=1)

    @property
    def points(self) -> Float[np.ndarray, "p 2"]:
        """Cell centres, those of the inner grid first."""
        return np.concatenate([self.inner.points, self.outer.points[self.outside]])

    @property
    def log_cell(self) -> Float[np.ndarray, " p"]:
        """Logarithm of each cell's area."""
        cells = len(self.inner.x) * len(self.inner.y), int(self.outside.sum())
        return np.repeat([self.inner.log_cell, self.outer.log_cell], cells)


def nested_grid_around(data: Float[np.ndarray, "n 2"], *, cells: int = 350) -> NestedGrid:
    """A fine grid around the data within a coarse one of five times its width.

    The inner grid is an odd number of the outer one's cells wide: it covers them exactly.
    """
    outer_cells = 5 * (2 * (cells // 20) + 1)
    inner = grid_around(data, cells=cells)
    spans = np.array([cells * (axis[1] - axis[0]) for axis in inner])
    middle = np.array([axis.mean() for axis in inner])
    centres = 5 * ((np.arange(outer_cells) + 0.5) / outer_cells - 0.5)
    return NestedGrid(inner, Grid(*(middle[:, None] + spans[:, None] * centres)))


def draw(
    grid: Grid | NestedGrid, log_prob: Float[np.ndarray, " p"], n: int, *, seed: int
) -> Float[np.ndarray, "n 2"]:
    """Points of a density on the grid, uniform within their cells; `log_prob` is normalised."""
    generator = np.random.default_rng(seed)
    mass = np.exp(log_prob + grid.log_cell)
    cells = generator.choice(len(mass), n, p=mass / mass.sum())
    return grid.points[cells] + _steps(grid, cells) * generator.uniform(-0.5, 0.5, (n, 2))


def _steps(grid: Grid | NestedGrid, cells: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
    """The width and height of each of the cells."""

    def steps(grid: Grid) -> Float[np.ndarray, " 2"]:
        return np.array([axis[1] - axis[0] for axis in grid])

    if isinstance(grid, Grid):
        return np.tile(steps(grid), (len(cells), 1))
    inner = cells < len(grid.inner.x) * len(grid.inner.y)
    return np.where(inner[:, None], steps(grid.inner), steps(grid.outer))


def grid_around(data: Float[np.ndarray, "n 2"], *, cells: int = 300, margin: float = 0.5) -> Grid:
    """A grid over the range of the data, widened by `margin` of the range on each side."""
    low, high = data.min(axis=0), data.max(axis=0)
    low, high = low - margin * (high - low), high + margin * (high - low)
    centres = (np.arange(cells) + 0.5) / cells
    return Grid(*(low[:, None] + (high - low)[:, None] * centres))


def normalise(
    grid: Grid | NestedGrid, log_density: Float[np.ndarray, " p"]
) -> tuple[np.ndarray, float]:
    """The log-density on the grid's points made normalised, and log Z; -inf and nan count as 0."""
    log_density = np.where(np.isnan(log_density), -np.inf, np.asarray(log_density, float))
    log_z = float(np.asarray(logsumexp(log_density + grid.log_cell)))
    return log_density - log_z, log_z


def mode_weights(
    grid: Grid | NestedGrid,
    log_prob: Float[np.ndarray, " p"],
    labels: Int[np.ndarray, " p"],
    modes: int,
) -> Float[np.ndarray, " modes"]:
    """Mass of every label."""
    mass = np.exp(log_prob + grid.log_cell)
    return np.bincount(labels, weights=mass, minlength=modes)


def kl_divergence(
    grid: Grid | NestedGrid,
    truth_log_prob: Float[np.ndarray, " p"],
    log_prob: Float[np.ndarray, " p"],
) -> float:
    """KL(truth || model) in nats; infinite where the model has no mass and the truth has."""
    mass = np.exp(truth_log_prob + grid.log_cell)
    seen = mass > 0
    return float(np.sum(mass[seen] * (truth_log_prob[seen] - log_prob[seen])))


class ProposalQuality(NamedTuple):
    """Of a density as proposal of independent Metropolis-Hastings, and of importance sampling."""

    acceptance: float
    effective_share: float


def proposal_quality(
    grid: Grid | NestedGrid,
    truth_log_prob: Float[np.ndarray, " p"],
    log_prob: Float[np.ndarray, " p"],
    *,
    draws: int = 65_536,
    seed: int = 0,
) -> ProposalQuality:
    """How draws of the model q serve chains of the truth p, with w = p / q:

        acceptance        E min(1, w(y) / w(x)),  x ~ p, y ~ q,  by quadrature
        effective share   (mean w)^2 / mean w^2,  of so many draws of q

    (E w^2 itself is infinite for whatever falls off faster than the truth, be it where no draw
    ever comes.) Not a number where the model is none.
    """
    if np.isnan(log_prob).any():
        return ProposalQuality(np.nan, np.nan)
    seen = np.maximum(truth_log_prob, log_prob) > -np.inf
    log_cell = np.broadcast_to(grid.log_cell, seen.shape)[seen]
    log_p, log_q = (each[seen] + log_cell for each in (truth_log_prob, log_prob))
    order = np.argsort(log_p - log_q)
    p, q = np.exp(log_p[order]), np.exp(log_q[order])
    # Of two points the one with the smaller w is always left; the order among equal w is the same.
    beyond = q[::-1].cumsum()[::-1]
    cells = np.random.default_rng(seed).choice(len(q), draws, p=q / q.sum())
    weights = p[cells] / q[cells]
    share = weights.mean() ** 2 / (weights**2).mean()
    return ProposalQuality(float(p @ (2 * beyond - q)), float(share))
