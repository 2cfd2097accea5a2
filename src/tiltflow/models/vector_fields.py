"""Vector fields f(t, x) of continuous flows, for one point: concat-squash layers and a plain MLP.

    layer(t, x) = (W x + b) * sigmoid(a t + c) + e t      (concat-squash: Grathwohl et al. 2019)

with vectors a, c and e, and an activation between layers, none after the last. A field is two
parts, f(t, x) = leave(t, enter(t, x)); between them are the `width` numbers after the first
linear layer, on which the trace may be estimated if they are fewer than the coordinates: the
trace of df/dx = (d leave)(d enter) is that of (d enter)(d leave) (the bottleneck of the same
paper). The last layer of a new field is zero, so that a new flow is the identity.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError

Activation = Callable[[Float[Array, " w"]], Float[Array, " w"]]
Layer = TypeVar("Layer")

WIDTHS = (64, 64, 64)
"""Those of the paper's examples in the plane."""


@runtime_checkable
class VectorField(Protocol):
    """A pytree that gives the velocity of one point; `width` is the size of what `enter` returns.

    `dimension` and `width` are Python integers.
    """

    dimension: int
    width: int

    def enter(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " w"]:
        """The first linear layer, before its activation."""
        ...

    def leave(self, t: Float[Array, ""], hidden: Float[Array, " w"]) -> Float[Array, " d"]:
        """All that comes after it: the velocity."""
        ...

    def __call__(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The velocity, `leave(t, enter(t, x))`."""
        ...


class ConcatSquash(eqx.Module):
    """One layer of the formula above."""

    linear: eqx.nn.Linear
    gate_slope: Float[Array, " w"]
    gate_bias: Float[Array, " w"]
    drift: Float[Array, " w"]

    def __init__(self, inputs: int, outputs: int, *, key: PRNGKeyArray):
        """Weights as usual, the time's own uniform in [-1, 1], as for one input."""
        linear_key, *vector_keys = jax.random.split(key, 4)
        self.linear = eqx.nn.Linear(inputs, outputs, key=linear_key)
        self.gate_slope, self.gate_bias, self.drift = (
            jax.random.uniform(each, (outputs,), minval=-1.0) for each in vector_keys
        )

    def __call__(self, t: Float[Array, ""], x: Float[Array, " i"]) -> Float[Array, " w"]:
        """The layer at one point."""
        return self.squash(t, self.linear(x))

    def squash(self, t: Float[Array, ""], values: Float[Array, " w"]) -> Float[Array, " w"]:
        """What the time makes of the values W x + b."""
        gate = jax.nn.sigmoid(self.gate_slope * t + self.gate_bias)
        return values * gate + self.drift * t


class ConcatSquashField(eqx.Module):
    """FFJORD's field: the time squashes and shifts every layer."""

    layers: tuple[ConcatSquash, ...]
    dimension: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        dimension: int,
        widths: tuple[int, ...] = WIDTHS,
        *,
        key: PRNGKeyArray,
        activation: Activation = jnp.tanh,
    ):
        """Of `dimension` coordinates, with hidden layers of `widths`; zero at first.

        Raises:
            InputError: no hidden layer.
        """
        self.layers = _new_layers(ConcatSquash, dimension, widths, dimension, key)
        self.dimension, self.width, self.activation = dimension, widths[0], activation

    def enter(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " w"]:
        """The first layer, before its activation."""
        return self.layers[0](t, x)

    def leave(self, t: Float[Array, ""], hidden: Float[Array, " w"]) -> Float[Array, " d"]:
        """The other layers: the velocity."""
        for layer in self.layers[1:]:
            hidden = layer(t, self.activation(hidden))
        return hidden

    def __call__(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The velocity of a point."""
        return self.leave(t, self.enter(t, x))


class MLPField(eqx.Module):
    """A plain MLP of the point and the time side by side."""

    layers: tuple[eqx.nn.Linear, ...]
    dimension: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        dimension: int,
        widths: tuple[int, ...] = WIDTHS,
        *,
        key: PRNGKeyArray,
        activation: Activation = jnp.tanh,
    ):
        """Of `dimension` coordinates, with hidden layers of `widths`; zero at first.

        Raises:
            InputError: no hidden layer.
        """
        self.layers = _new_layers(eqx.nn.Linear, dimension + 1, widths, dimension, key)
        self.dimension, self.width, self.activation = dimension, widths[0], activation

    def enter(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " w"]:
        """The first layer, before its activation."""
        return self.layers[0](jnp.append(x, t))

    def leave(self, t: Float[Array, ""], hidden: Float[Array, " w"]) -> Float[Array, " d"]:
        """The other layers: the velocity."""
        for layer in self.layers[1:]:
            hidden = layer(self.activation(hidden))
        return hidden

    def __call__(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The velocity of a point."""
        return self.leave(t, self.enter(t, x))


def _new_layers(
    make: Callable[..., Layer],
    inputs: int,
    widths: tuple[int, ...],
    outputs: int,
    key: PRNGKeyArray,
) -> tuple[Layer, ...]:
    """Layers by `make`, the last one zero."""
    if not widths or min(widths) < 1:
        raise InputError(f"widths: found {widths}; give at least one hidden layer, as (64, 64)")
    sizes = (inputs, *widths, outputs)
    keys = jax.random.split(key, len(sizes) - 1)
    layers = [make(i, o, key=each) for i, o, each in zip(sizes, sizes[1:], keys)]
    return (*layers[:-1], jax.tree.map(jnp.zeros_like, layers[-1]))
