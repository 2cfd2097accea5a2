"""Energies of many noise levels: one network, told the level; the first level is the model's.

    E(x, level) = network(x, cos(pi k level / (levels - 1)) for k = 1 ... 8) + offset[level]

As `energy(x)` it is E(x, 0), so that it tilts a base like any other energy. The offsets let the
normalisers of the levels move apart without the network (OuYang, Grenioux, Hernandez-Lobato 2026
learn one free constant a level); the embedding of the level is ours.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tiltflow.data.errors import InputError

FREQUENCIES = 8


@runtime_checkable
class NoiseEnergy(Protocol):
    """An energy of a point at any of several noise levels; called, at level 0."""

    @property
    def levels(self) -> int:
        """How many levels there are, from 0, the least noise, on."""
        ...

    def at(self, x: Float[Array, " d"], level: Int[Array, ""]) -> Float[Array, ""]:
        """E(x, level), in nats."""
        ...

    def __call__(self, x: Float[Array, " d"], /) -> Float[Array, ""]:
        """E(x, 0), in nats."""
        ...


class NoiseMLPEnergy(eqx.Module):
    """A multilayer perceptron of the point and the level; it starts at zero everywhere."""

    network: eqx.nn.MLP
    offsets: Float[Array, " levels"]

    def __init__(
        self,
        dimension: int,
        *,
        levels: int = 16,
        width: int = 128,
        depth: int = 3,
        activation: Callable[..., Any] = jax.nn.silu,
        key: PRNGKeyArray,
    ):
        """Build a network with `depth` hidden layers of `width` units, for two levels or more.

        Raises:
            InputError: fewer than two levels.
        """
        if levels < 2:
            raise InputError(f"levels: found {levels}; noise levels are told apart, take 2 or more")
        network = eqx.nn.MLP(
            dimension + FREQUENCIES, "scalar", width, depth, activation=activation, key=key
        )
        self.network = eqx.tree_at(
            lambda net: (net.layers[-1].weight, net.layers[-1].bias),
            network,
            replace_fn=jnp.zeros_like,
        )
        self.offsets = jnp.zeros(levels)

    @property
    def levels(self) -> int:
        """How many levels there are."""
        return len(self.offsets)

    def at(self, x: Float[Array, " d"], level: Int[Array, ""]) -> Float[Array, ""]:
        """E(x, level), in nats."""
        angle = jnp.pi * level / (self.levels - 1)
        embedding = jnp.cos(angle * jnp.arange(1, FREQUENCIES + 1)).astype(x.dtype)
        return self.network(jnp.concatenate([x, embedding])) + self.offsets[level]

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """E(x, 0), in nats: the energy of the model that is judged."""
        return self.at(x, jnp.asarray(0))
