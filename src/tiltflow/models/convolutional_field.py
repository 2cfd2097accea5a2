"""A vector field of images: convolutions that are told the time (Grathwohl et al. 2019).

    layer(t, x) = K * [x, t] + b,      an activation between layers, none after the last

[x, t] is the image with one more channel, which is t everywhere ("concat-conv"); convolutions keep
height and width, with zeros around the image. It takes and gives flat images, as all fields here,
so that it goes with `ContinuousFlow`; the last layer of a new field is zero.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.models.vector_fields import Activation


class ConvolutionalField(eqx.Module):
    """The field above of images (h, w, c), flat."""

    layers: tuple[eqx.nn.Conv2d, ...]
    image: tuple[int, int, int] = eqx.field(static=True)
    dimension: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        image: tuple[int, int, int],
        channels: tuple[int, ...] = (32, 32),
        *,
        key: PRNGKeyArray,
        size: int = 3,
        activation: Activation = jax.nn.softplus,
    ):
        """Of images (h, w, c), with hidden layers of so many `channels`; zero at first.

        Raises:
            InputError: no hidden layer, or a kernel `size` that is even.
        """
        if not channels or min(channels) < 1:
            raise InputError(f"channels: found {channels}; give at least one layer, as (32, 32)")
        if size < 1 or size % 2 == 0:
            raise InputError(f"size: found {size}; give an odd number, as 3")
        height, width, depth = image
        inputs, outputs = (depth, *channels), (*channels, depth)
        keys = jax.random.split(key, len(inputs))
        layers = [
            eqx.nn.Conv2d(i + 1, o, size, padding=size // 2, key=each)
            for i, o, each in zip(inputs, outputs, keys)
        ]
        self.layers = (*layers[:-1], jax.tree.map(jnp.zeros_like, layers[-1]))
        self.image = image
        self.dimension, self.width = height * width * depth, height * width * channels[0]
        self.activation = activation

    def enter(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " w"]:
        """The first layer, before its activation."""
        return self._layer(0, t, x.reshape(self.image).transpose(2, 0, 1)).ravel()

    def leave(self, t: Float[Array, ""], hidden: Float[Array, " w"]) -> Float[Array, " d"]:
        """The other layers: the velocity."""
        values = hidden.reshape(-1, *self.image[:2])
        for i in range(1, len(self.layers)):
            values = self._layer(i, t, self.activation(values))
        return values.transpose(1, 2, 0).ravel()

    def __call__(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The velocity of a flat image."""
        return self.leave(t, self.enter(t, x))

    def _layer(self, i: int, t: Float[Array, ""], x: Float[Array, "c h w"]) -> Array:
        time = jnp.full((1, *x.shape[1:]), t, x.dtype)
        return self.layers[i](jnp.concatenate([x, time]))
