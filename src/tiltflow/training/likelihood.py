"""The one likelihood step of every method that trains an energy by negatives.

    grad_theta L = mean_{x in batch} grad E(x) - sum_i w_i grad E(x_i)

(Ackley, Hinton, Sejnowski 1985), where the negatives x_i, with weights w_i that add up to one,
stand for the model itself. Methods differ only in where the negatives come from (the other files
of this folder).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from tiltflow.models.energies import Energy


class Negatives(NamedTuple):
    """Points that stand for the model's density, with weights that add up to one."""

    position: Float[Array, "n d"]
    weights: Float[Array, " n"]


def likelihood_gradient(
    energy: Energy, batch: Float[Array, "b d"], negatives: Negatives
) -> tuple[Float[Array, ""], PyTree]:
    """The energy gap (data minus negatives, nats) and the likelihood's gradient.

    The gap is not a loss to watch: at the optimum it is zero, and it is near zero all along. The
    batch and the negatives go through the network in one pass.
    """
    points = jnp.concatenate([batch, negatives.position])
    weights = jnp.concatenate([jnp.full(batch.shape[0], 1 / batch.shape[0]), -negatives.weights])

    def gap(energy: Energy) -> Float[Array, ""]:
        return jnp.dot(weights, jax.vmap(energy)(points))

    return eqx.filter_value_and_grad(gap)(energy)
