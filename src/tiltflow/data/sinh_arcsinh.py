"""The sinh-arcsinh bijection of Jones and Pewsey (2009, Biometrika 96, 761): skew and tails.

    z = sinh(tail · a − skew),   a = arcsinh((x − loc) / scale)

Elementwise and increasing. With z standard normal, x is skewed to the right for skew > 0 and has
heavier tails than a Gaussian for tail < 1; tail = 1, skew = 0 is the affine map.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flowjax.bijections import AbstractBijection
from jaxtyping import Array, Float


class SinhArcsinh(AbstractBijection):
    """z = sinh(tail · arcsinh((x − loc) / scale) − skew), each column with its own parameters.

    All four are (d,), scale and tail positive. NumPy arrays keep float64.
    """

    shape: tuple[int, ...]
    cond_shape: tuple[int, ...] | None
    loc: Float[Array | np.ndarray, " d"]
    scale: Float[Array | np.ndarray, " d"]
    tail: Float[Array | np.ndarray, " d"]
    skew: Float[Array | np.ndarray, " d"]

    def __init__(
        self,
        loc: Float[Array | np.ndarray, " d"],
        scale: Float[Array | np.ndarray, " d"],
        tail: Float[Array | np.ndarray, " d"],
        skew: Float[Array | np.ndarray, " d"],
    ):
        self.shape, self.cond_shape = loc.shape, None
        self.loc, self.scale, self.tail, self.skew = loc, scale, tail, skew

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Array, Array]:
        """From x to z, (d,), and log|dz/dx|, ()."""
        a = jnp.arcsinh((x - self.loc) / self.scale)
        w = self.tail * a - self.skew
        return jnp.sinh(w), self._log_derivative(a, w).sum()

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Array, Array]:
        """From z to x, (d,), and log|dx/dz|, ()."""
        w = jnp.arcsinh(y)
        a = (w + self.skew) / self.tail
        return jnp.sinh(a) * self.scale + self.loc, -self._log_derivative(a, w).sum()

    def _log_derivative(self, a: Any, w: Any) -> Array:
        # dz/dx = tail / scale · cosh(w) / cosh(a), without the overflow of cosh.
        return jnp.log(self.tail) - jnp.log(self.scale) + _log_cosh(w) - _log_cosh(a)


def _log_cosh(x: Any) -> Array:
    return jnp.logaddexp(x, -x) - jnp.log(2.0)
