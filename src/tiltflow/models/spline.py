"""A monotone rational-quadratic spline of one coordinate, made for compiled batches.

Durkan, Bekasov, Murray, Papamakarios (2019), "Neural Spline Flows", equations 4 to 8. Outside
[-interval, interval] it is the identity, and the slope is 1 at both ends, so the density of a
flow made of it is continuous. The bin is picked by comparisons, not by a search and
gathers, which cost seconds of compilation (docs/decisions.md).
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.bijections import AbstractBijection
from jaxtyping import Array, Float

MIN_WIDTH = 1e-3
"""Smallest width and height of a bin, as a share of the interval."""
MIN_SLOPE = 1e-3


class _Bin(eqx.Module):
    """The bin a point falls in: lower corner, size, slopes at both ends, mean slope."""

    left: Float[Array, ""]
    bottom: Float[Array, ""]
    width: Float[Array, ""]
    height: Float[Array, ""]
    slope_left: Float[Array, ""]
    slope_right: Float[Array, ""]
    slope: Float[Array, ""]


class RationalQuadraticSpline(AbstractBijection):
    """`bins` rational-quadratic pieces on [-interval, interval]; all parameters zero: identity.

    `widths` and `heights` are logits of the bins' shares; `slopes` are pre-softplus values at the
    inner knots.
    """

    widths: Float[Array, " bins"]
    heights: Float[Array, " bins"]
    slopes: Float[Array, " inner"]
    interval: float = eqx.field(static=True)
    shape = ()
    cond_shape = None

    def __init__(self, *, bins: int, interval: float):
        self.widths = jnp.zeros(bins)
        self.heights = jnp.zeros(bins)
        self.slopes = jnp.zeros(bins - 1)
        self.interval = interval

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Array, Array]:
        """The image y, and log dy/dx; scalars."""
        inside = jnp.abs(x) < self.interval
        x_inside = jnp.where(inside, x, 0.0)
        piece = self._bin(x_inside, by_height=False)
        share = (x_inside - piece.left) / piece.width
        y = piece.bottom + piece.height * _rise(piece, share)
        return jnp.where(inside, y, x), jnp.where(inside, _log_slope(piece, share), 0.0)

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Array, Array]:
        """The preimage x, and log dx/dy; scalars."""
        inside = jnp.abs(y) < self.interval
        y_inside = jnp.where(inside, y, 0.0)
        piece = self._bin(y_inside, by_height=True)
        rise = (y_inside - piece.bottom) / piece.height
        bend = piece.slope_left + piece.slope_right - 2 * piece.slope
        # a share² + b share + c = 0, in the form that does not cancel.
        a = piece.slope - piece.slope_left + rise * bend
        b = piece.slope_left - rise * bend
        c = -piece.slope * rise
        discriminant = jnp.maximum(b**2 - 4 * a * c, jnp.finfo(rise.dtype).tiny)
        share = 2 * c / (-b - jnp.sqrt(discriminant))
        x = piece.left + piece.width * share
        return jnp.where(inside, x, y), jnp.where(inside, -_log_slope(piece, share), 0.0)

    def _bin(self, point: Float[Array, ""], *, by_height: bool) -> _Bin:
        widths = 2 * self.interval * _shares(self.widths)
        heights = 2 * self.interval * _shares(self.heights)
        # softplus(0 + offset) + MIN_SLOPE is 1: parameters zero give the identity.
        inner = jax.nn.softplus(self.slopes + math.log(math.expm1(1 - MIN_SLOPE))) + MIN_SLOPE
        one = jnp.ones(1, inner.dtype)
        bins = len(widths)
        before = jnp.asarray(jnp.tri(bins, k=-1, dtype=widths.dtype))
        lefts, bottoms = before @ widths - self.interval, before @ heights - self.interval
        edges = bottoms if by_height else lefts
        above = (point >= edges).at[0].set(True)
        chosen = above & ~jnp.concatenate([above[1:], jnp.zeros(1, bool)])

        def pick(values: Float[Array, " bins"]) -> Float[Array, ""]:
            return jnp.sum(jnp.where(chosen, values, 0.0))

        width, height = pick(widths), pick(heights)
        return _Bin(
            left=pick(lefts),
            bottom=pick(bottoms),
            width=width,
            height=height,
            slope_left=pick(jnp.concatenate([one, inner])),
            slope_right=pick(jnp.concatenate([inner, one])),
            slope=height / width,
        )


def _shares(logits: Float[Array, " bins"]) -> Float[Array, " bins"]:
    return MIN_WIDTH + (1 - MIN_WIDTH * len(logits)) * jax.nn.softmax(logits)


def _rise(piece: _Bin, share: Float[Array, ""]) -> Float[Array, ""]:
    """The share of the bin's height that is reached after `share` of its width (eq. 4)."""
    cross = share * (1 - share)
    return (piece.slope * share**2 + piece.slope_left * cross) / _denominator(piece, cross)


def _log_slope(piece: _Bin, share: Float[Array, ""]) -> Float[Array, ""]:
    """Logarithm of dy/dx (eq. 5)."""
    cross = share * (1 - share)
    numerator = (
        piece.slope_right * share**2 + 2 * piece.slope * cross + piece.slope_left * (1 - share) ** 2
    )
    return 2 * jnp.log(piece.slope) + jnp.log(numerator) - 2 * jnp.log(_denominator(piece, cross))


def _denominator(piece: _Bin, cross: Float[Array, ""]) -> Float[Array, ""]:
    return piece.slope + (piece.slope_left + piece.slope_right - 2 * piece.slope) * cross
