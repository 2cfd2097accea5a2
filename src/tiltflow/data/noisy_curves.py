"""Curves in the plane with round Gaussian noise: moons, spirals and a swirl, exactly.

    p(x) = 1 / m sum_j N(x; c_j, s² I),    c_j the points of the curves

The points are at most 1.2 s apart, where the sum is the integral along the curve to a millionth;
and it is the density by definition, as draws are of the same points. The curves are those of
FFJORD's toy data (Grathwohl et al. 2019; github rtqichen/ffjord, `lib/toy_data.py`). Its two
spirals have uniform noise beside the Gaussian, which is left out here.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int, Key

POINTS = 256
"""Of each curve."""


class NoisyCurves(eqx.Module):
    """Curves of equal weight as points, and the deviation of the noise; a curve is a mode."""

    points: Float[Array, "m n 2"]
    scale: Float[Array, ""]

    def __init__(self, points: Sequence[Float[np.ndarray, "n 2"]], scale: float):
        self.points = jnp.asarray(np.stack(points), float)
        self.scale = jnp.asarray(scale, float)

    @property
    def dimension(self) -> int:
        """Number of coordinates of a point."""
        return 2

    @property
    def weights(self) -> Float[Array, " m"]:
        """The exact share of mass of every curve."""
        curves = len(self.points)
        return jnp.full(curves, 1 / curves)

    def sample(self, key: Key[Array, ""], n: int) -> Float[Array, "n 2"]:
        """Independent points."""
        point_key, noise_key = jax.random.split(key)
        points = self.points.reshape(-1, 2)
        chosen = points[jax.random.randint(point_key, (n,), 0, len(points))]
        return chosen + self.scale * jax.random.normal(noise_key, (n, 2))

    def joint_log_prob(self, x: Float[Array, " 2"]) -> Float[Array, " m"]:
        """Joint log-density of curve k and point: log w_k + log p_k(x)."""
        each = norm.logpdf(x, self.points, self.scale).sum(axis=-1)
        curves, count = each.shape
        return logsumexp(each, axis=1) - jnp.log(curves * count)

    def log_prob(self, x: Float[Array, " 2"]) -> Float[Array, ""]:
        """Normalised log-density of one point, nats."""
        return logsumexp(self.joint_log_prob(x))

    def label(self, x: Float[Array, " 2"]) -> Int[Array, ""]:
        """The curve with the largest posterior responsibility for one point."""
        return jnp.argmax(self.joint_log_prob(x))


def moons() -> NoisyCurves:
    """Two half circles of radius 2 that interlock (scikit-learn's, twice as large), noise .2."""
    angle = np.pi * _shares()
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    return NoisyCurves([2 * arc - np.array([1.0, 0.2]) for arc in (upper, lower)], 0.2)


def two_spirals() -> NoisyCurves:
    """Two arms of one and a half turns, ever less dense outwards, noise .1."""
    angle = 3 * np.pi * np.sqrt(_shares())
    arm = np.stack([-np.cos(angle), np.sin(angle)], axis=1) * angle[:, None] / 3
    return NoisyCurves([arm, -arm], 0.1)


def swirl() -> NoisyCurves:
    """One arm of a turn and a half (scikit-learn's Swiss roll from above, a fifth), noise .2."""
    angle = 1.5 * np.pi * (1 + 2 * _shares())
    arm = np.stack([np.cos(angle), np.sin(angle)], axis=1) * angle[:, None] / 5
    return NoisyCurves([arm], 0.2)


def _shares() -> Float[np.ndarray, " n"]:
    return (np.arange(POINTS) + 0.5) / POINTS
