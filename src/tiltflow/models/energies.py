"""Energies: functions from one point to one number, low where the density is high."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


@runtime_checkable
class Energy(Protocol):
    """Anything that maps one point of the model's space to its energy in nats."""

    def __call__(self, x: Float[Array, " d"], /) -> Float[Array, ""]:
        """E(x), in nats."""
        ...


class MLPEnergy(eqx.Module):
    """A multilayer perceptron as energy; it starts at zero everywhere.

    Starting at zero means that training starts at the base density itself, so that whatever
    is kept afterwards is an improvement on it (docs/decisions.md).
    """

    network: eqx.nn.MLP

    def __init__(
        self,
        dimension: int,
        *,
        width: int = 128,
        depth: int = 3,
        activation: Callable[..., Any] = jax.nn.silu,
        key: PRNGKeyArray,
    ):
        """Build a network of points (dimension,) with `depth` hidden layers of `width` units."""
        network = eqx.nn.MLP(dimension, "scalar", width, depth, activation=activation, key=key)
        self.network = eqx.tree_at(
            lambda net: (net.layers[-1].weight, net.layers[-1].bias),
            network,
            replace_fn=jnp.zeros_like,
        )

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """E(x), in nats."""
        return self.network(x)
