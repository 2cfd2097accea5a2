"""Pixels to the whole line and back: the preprocessing of images for flows.

    p = s + (1 - 2 s) (x + 1/2) / levels,      z = logit(p)

x are whole numbers from 0 to levels - 1, spread by `dequantise` to [-1/2, levels - 1/2]; the margin
s keeps black and white finite (Dinh, Sohl-Dickstein, Bengio 2017). One pixel level is the unit of
x, so that a density in the user's units is in bits per dimension after division by -d log 2.
"""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.bijections import AbstractBijection
from jaxtyping import Array

from tiltflow.data.errors import InputError


class PixelLogit(AbstractBijection):
    """The map above on d pixels; `preprocessing.to_model_units` applies it to rows."""

    shape: tuple[int, ...]
    cond_shape: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    levels: int = eqx.field(static=True)
    margin: float = eqx.field(static=True)

    def __init__(self, dimension: int, *, levels: int = 256, margin: float = 1e-6):
        """Of `dimension` pixels of `levels` values.

        Raises:
            InputError: fewer than two levels; a margin that is not between 0 and 1/2.
        """
        if levels < 2:
            raise InputError(f"levels: found {levels}; give the number of values, 256 for bytes")
        if not 0 < margin < 0.5:
            raise InputError(f"margin: found {margin}; give a share between 0 and 1/2, say 1e-6")
        self.shape = (dimension,)
        self.levels = levels
        self.margin = margin

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Array, Array]:
        """Z, (d,), and log|dz/dx|, (); not a number outside of the range."""
        p = self.margin + (1 - 2 * self.margin) * (x + 0.5) / self.levels
        z = jnp.log(p) - jnp.log1p(-p)
        return z, self._log_det(z)

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Array, Array]:
        """X, (d,), and log|dx/dz|, (); draws far out may lie `margin` of the range beyond it."""
        p = jax.nn.sigmoid(y)
        x = (p - self.margin) / (1 - 2 * self.margin) * self.levels - 0.5
        return x, -self._log_det(y)

    def _log_det(self, z: Any) -> Array:
        # dz/dp = 1 / (p (1 - p)), and -log p = softplus(-z), -log(1 - p) = softplus(z).
        slope = math.log((1 - 2 * self.margin) / self.levels)
        return (jax.nn.softplus(z) + jax.nn.softplus(-z) + slope).sum()


def bits_per_dimension(log_prob: float, dimension: int) -> float:
    """-log2 p a pixel, from a mean log-density in nats of pixel units."""
    return -log_prob / (dimension * math.log(2))
