"""Negatives without chains, in the plane: exact draws of the model on a grid.

Training with them shows the statistical floor: what the same network makes of the same rows when
its negatives are right. The masses of the grid's cells add up to one, and points are drawn by them
systematically (one uniform number for all). For densities wider than a cell the sum over one point
in each is the integral, to many digits. The grid is shifted anew in every step: between points that
stay, an energy could dig a hole that no negative ever sees.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.likelihood import Negatives


class GridState(NamedTuple):
    """A corner of every cell; nothing changes."""

    points: Float[Array, "p 2"]


@dataclass(frozen=True)
class GridNegatives:
    """A source of negatives: `draws` points of a square of model units, by the model's masses."""

    draws: int = 1024
    cells: int = 128
    half_width: float = 4.5

    def init(self, key: PRNGKeyArray, base: AbstractDistribution, flow: Any = None) -> GridState:
        """The grid: the corners of the cells."""
        axis = self.half_width * (2 * np.arange(self.cells) / self.cells - 1)
        points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        return GridState(jnp.asarray(points, float))

    def evaluations(self, batch_size: int) -> int:
        """Energies a step, one for every cell; no gradients in points are asked for."""
        return self.cells**2

    def draw(
        self,
        key: PRNGKeyArray,
        model: TiltedEBM,
        flow_static: PyTree,
        state: GridState,
        batch: Float[Array, "b 2"],
        rate: Float[Array, ""],
    ) -> tuple[Negatives, GridState, dict[str, Float[Array, ""]]]:
        """Draw under `model`."""
        shift_key, draw_key = jax.random.split(key)
        shift = jax.random.uniform(shift_key, (2,)) * (2 * self.half_width / self.cells)
        points = state.points + shift
        log_density = jax.vmap(model.log_density)(points)
        mass = jnp.cumsum(jax.nn.softmax(jnp.nan_to_num(log_density, nan=-jnp.inf)))
        levels = (jnp.arange(self.draws) + jax.random.uniform(draw_key)) / self.draws
        rows = jnp.searchsorted(mass, levels * mass[-1])
        weights = jnp.full(self.draws, 1 / self.draws)
        return Negatives(points[rows], weights), state, {}
