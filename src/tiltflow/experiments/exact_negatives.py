"""Negatives without chains: from a grid in the plane, and by weighted draws of the truth above.

Training with them shows the statistical floor: what the same network makes of the same rows when
its negatives are right.

In the plane they are exact draws of the model. The masses of the grid's cells add up to one, and
points are drawn by them systematically (one uniform number for all). For densities wider than a
cell the sum over one point in each is the integral, to many digits. The grid is shifted anew in
every step: between points that stay, an energy could dig a hole that no negative ever sees.

Above, fresh draws of truth and base, half of each, stand for the model by importance weights

    w(x) ~ base(x) exp(-E(x)) / (truth(x) / 2 + base(x) / 2),

so many that the rows are the noise. The model goes from the base to the truth, and at both ends
half of the draws are its own.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.evaluation.log_normalizer import importance_sampling, normalised_weights
from tiltflow.models.defensive import DefensiveMixture
from tiltflow.models.flows import trainable
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.systematic import systematic_draws
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
        """In a point: an energy for every cell. In the parameters: rows and draws."""
        return self.cells**2 + batch_size + self.draws

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


class TruthState(NamedTuple):
    """The truth's arrays, where the state of other sources has a flow's; none is ever changed."""

    flow: PyTree


@dataclass(frozen=True)
class TruthNegatives:
    """A source of negatives: `draws` points of truth and base; the truth is given as the flow."""

    draws: int = 4096

    def init(
        self, key: PRNGKeyArray, base: AbstractDistribution, flow: AbstractDistribution
    ) -> TruthState:
        """`flow` is the truth in model units."""
        return TruthState(trainable(flow)[0])

    def evaluations(self, batch_size: int) -> int:
        """In a point: an energy for each draw. In the parameters: rows and draws."""
        return batch_size + 2 * self.draws

    def draw(
        self,
        key: PRNGKeyArray,
        model: TiltedEBM,
        flow_static: PyTree,
        state: TruthState,
        batch: Float[Array, "b d"],
        rate: Float[Array, ""],
    ) -> tuple[Negatives, TruthState, dict[str, Float[Array, ""]]]:
        """Draw anew and weigh by `model`; `importance_ess` is the effective share."""
        both = DefensiveMixture(eqx.combine(state.flow, flow_static), model.base, 0.5)
        points, drawn_by = systematic_draws(key, both, self.draws)
        log_weights = jax.vmap(model.log_density)(points) - drawn_by
        estimate = importance_sampling(log_weights)
        weights = normalised_weights(log_weights)
        return Negatives(points, weights), state, {"importance_ess": estimate.ess}
