"""The smooth leaky ReLU: an element-wise bijection with all derivatives, for flows by score.

    f(x) = alpha x + (1 - alpha) log(1 + exp(x)),      f'(x) = alpha + (1 - alpha) sigmoid(x)

(Gresele et al. 2020; alpha = 0.3 in Chao et al. 2023.) A kink would be no density to score
matching, which takes the derivative of the log-determinant. The inverse has no closed form: f is
convex and increasing, so that Newton's method from the right of the root falls to it monotonically.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.bijections import AbstractBijection
from jaxtyping import Array, Float

from tiltflow.data.errors import InputError

NEWTON_STEPS = 8
"""Enough for float64 from the start that `_invert` takes, wherever the root lies."""


class SmoothLeakyReLU(AbstractBijection):
    """f on each of d coordinates; nothing is learnt."""

    shape: tuple[int, ...]
    cond_shape: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    alpha: float = eqx.field(static=True)

    def __init__(self, dimension: int, alpha: float = 0.3):
        """In `dimension` coordinates, with slope `alpha` far left and one far right.

        Raises:
            InputError: `alpha` is not above 0 and at most 1.
        """
        if not 0 < alpha <= 1:
            raise InputError(f"alpha: found {alpha}; give a slope above 0 and at most 1, say 0.3")
        self.shape = (dimension,)
        self.alpha = alpha

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Array, Array]:
        """f(x), (d,), and the sum of log f', ()."""
        return self._f(x), jnp.log(self._slope(x)).sum()

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Array, Array]:
        """The root, (d,), and minus the sum of log f' there, ()."""
        x = self._invert(y)
        return x, -jnp.log(self._slope(x)).sum()

    def _f(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        return self.alpha * x + (1 - self.alpha) * jax.nn.softplus(x)

    def _slope(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        return self.alpha + (1 - self.alpha) * jax.nn.sigmoid(x)

    def _invert(self, y: Float[Array, " d"]) -> Float[Array, " d"]:
        # f lies above both of its asymptotes, so that these start to the right of the root.
        x = jnp.where(y > 0, y, y / self.alpha)
        for _ in range(NEWTON_STEPS):
            x = x - (self._f(x) - y) / self._slope(x)
        return x
