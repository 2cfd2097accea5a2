"""Batch normalisation as a bijection, with running statistics in its state (Dinh et al. 2017).

    z = exp(a) (x - m) / sqrt(v + eps) + b,      log|det dz/dx| = sum a - log(v + eps) / 2

from the data to the base. In training m and v are averages of the running statistics and those of
the batch, and gradients go through the batch's share alone; they then are the new running ones.
Everywhere else the running statistics are fixed, so that one point's density is its own.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import paramax
from flowjax.bijections import AbstractBijection
from jaxtyping import Array, Float

DECAY = 0.9
EPSILON = 1e-4


class RunningStatistics(NamedTuple):
    """Mean and variance of every coordinate."""

    mean: Float[Array, " d"]
    variance: Float[Array, " d"]


class BatchNorm(AbstractBijection):
    """The bijection above; `transform` is its inverse, from the base to the data."""

    shape: tuple[int, ...]
    cond_shape: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    log_scale: Float[Array, " d"]
    shift: Float[Array, " d"]
    statistics: RunningStatistics

    def __init__(self, dimension: int):
        """Of `dimension` coordinates; near the identity until it has seen a batch."""
        self.shape = (dimension,)
        self.log_scale, self.shift = jnp.zeros(dimension), jnp.zeros(dimension)
        start = RunningStatistics(jnp.zeros(dimension), jnp.ones(dimension))
        self.statistics = paramax.non_trainable(start)

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Array, Array]:
        """From the base to the data."""
        deviation = jnp.sqrt(self.statistics.variance + EPSILON)
        data = (jnp.asarray(x) - self.shift) * jnp.exp(
            -self.log_scale
        ) * deviation + self.statistics.mean
        return data, -self._log_det(self.statistics)

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Array, Array]:
        """From the data to the base."""
        return self._normalise(jnp.asarray(y), self.statistics), self._log_det(self.statistics)

    def normalise_batch(
        self, x: Float[Array, "n d"]
    ) -> tuple[Float[Array, "n d"], Float[Array, ""], RunningStatistics]:
        """A training batch normalised, the log-determinant of any of its points, the statistics."""
        old = paramax.unwrap(self.statistics)
        batch = RunningStatistics(x.mean(axis=0), x.var(axis=0))
        new = jax.tree.map(
            lambda old, batch: DECAY * jax.lax.stop_gradient(old) + (1 - DECAY) * batch, old, batch
        )
        return self._normalise(x, new), self._log_det(new), jax.lax.stop_gradient(new)

    def _normalise(self, x: Array, statistics: RunningStatistics) -> Array:
        deviation = jnp.sqrt(statistics.variance + EPSILON)
        return jnp.exp(self.log_scale) * (x - statistics.mean) / deviation + self.shift

    def _log_det(self, statistics: RunningStatistics) -> Float[Array, ""]:
        return (self.log_scale - 0.5 * jnp.log(statistics.variance + EPSILON)).sum()


def running_statistics(tree: Any) -> list[RunningStatistics]:
    """The statistics of every `BatchNorm` of a tree, as wrapped against training."""
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, BatchNorm))
    return [node.statistics for node in nodes if isinstance(node, BatchNorm)]


def with_statistics(tree: Any, statistics: list[RunningStatistics]):
    """The tree with the statistics of its `BatchNorm`s replaced, in the order of `tree`."""
    if not statistics:
        return tree
    wrapped = [paramax.non_trainable(each) for each in statistics]
    return eqx.tree_at(running_statistics, tree, wrapped)
