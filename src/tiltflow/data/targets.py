"""Targets with exact log-densities: their protocol, and two in the plane that are no mixtures.

The Gaussian mixtures are in `tiltflow.data.mixtures`.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int, Key


@runtime_checkable
class Target(Protocol):
    """A known density: draws, log-density and the true weights of its modes."""

    @property
    def dimension(self) -> int:
        """Number of coordinates of a point."""
        ...

    @property
    def weights(self) -> Float[Array, " m"]:
        """The exact share of mass of every mode."""
        ...

    def sample(self, key: Key[Array, ""], n: int) -> Float[Array, "n d"]:
        """Independent points."""
        ...

    def log_prob(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Normalised log-density of one point, nats."""
        ...

    def label(self, x: Float[Array, " d"]) -> Int[Array, ""]:
        """The mode, 0 to m − 1, that one point belongs to."""
        ...


class Rings(eqx.Module):
    """Concentric rings of equal weight; the radius is Gaussian, the angle uniform.

    p(x) = sum_k w_k N(r; r_k, s²) / (Φ(r_k / s) 2π r), r = |x| > 0: the Gaussians are cut off at
    r = 0 and normalised there. (Four rings: Grenioux's code, github h2o64/slips, `rings.py`.)
    """

    radii: Float[Array, " m"]
    scale: Float[Array, ""]

    def __init__(self, radii: Sequence[float] = (1.0, 2.0, 3.0, 4.0), scale: float = 0.15):
        self.radii = jnp.asarray(radii, float)
        self.scale = jnp.asarray(scale, float)

    @property
    def dimension(self) -> int:
        """Number of coordinates of a point."""
        return 2

    @property
    def weights(self) -> Float[Array, " m"]:
        """The exact share of mass of every ring."""
        return jnp.full_like(self.radii, 1 / self.radii.size)

    def sample(self, key: Key[Array, ""], n: int) -> Float[Array, "n 2"]:
        """Independent points."""
        key_ring, key_radius, key_angle = jax.random.split(key, 3)
        centre = self.radii[jax.random.randint(key_ring, (n,), 0, self.radii.size)]
        step = jax.random.truncated_normal(key_radius, -centre / self.scale, jnp.inf, (n,))
        radius = centre + self.scale * step
        angle = jax.random.uniform(key_angle, (n,), maxval=2 * jnp.pi)
        return radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)

    def joint_log_prob(self, x: Float[Array, " 2"]) -> Float[Array, " m"]:
        """Joint log-density of ring k and point: log w_k + log p_k(x)."""
        # The density grows as 1 / r at the origin: cut r there, so that value and gradient exist.
        radius = jnp.sqrt(jnp.maximum(x @ x, jnp.finfo(x.dtype).tiny))
        radial = norm.logpdf(radius, self.radii, self.scale)
        truncation = norm.logcdf(self.radii / self.scale)
        return jnp.log(self.weights) + radial - truncation - jnp.log(2 * jnp.pi * radius)

    def log_prob(self, x: Float[Array, " 2"]) -> Float[Array, ""]:
        """Normalised log-density of one point, nats."""
        return logsumexp(self.joint_log_prob(x))

    def label(self, x: Float[Array, " 2"]) -> Int[Array, ""]:
        """The ring with the largest posterior responsibility for one point."""
        return jnp.argmax(self.joint_log_prob(x))


class Checkerboard(eqx.Module):
    """Uniform on the eight dark squares of a 4 × 4 board on [−4, 4)²; log-density −∞ elsewhere."""

    @property
    def dimension(self) -> int:
        """Number of coordinates of a point."""
        return 2

    @property
    def weights(self) -> Float[Array, " 8"]:
        """The exact share of mass of every dark square."""
        return jnp.full(8, 1 / 8)

    @property
    def centers(self) -> Float[Array, "8 2"]:
        """Centres of the dark squares, row after row; the lower left square is dark."""
        row, column = np.divmod(np.arange(16), 4)
        dark = (row + column) % 2 == 0
        return jnp.asarray(2.0 * np.stack([row, column], axis=1)[dark] - 3.0)

    def sample(self, key: Key[Array, ""], n: int) -> Float[Array, "n 2"]:
        """Independent points."""
        key_square, key_place = jax.random.split(key)
        square = jax.random.randint(key_square, (n,), 0, 8)
        return self.centers[square] + jax.random.uniform(key_place, (n, 2), minval=-1.0, maxval=1.0)

    def log_prob(self, x: Float[Array, " 2"]) -> Float[Array, ""]:
        """Normalised log-density of one point, nats."""
        offset = x - self.centers
        inside = ((offset >= -1) & (offset < 1)).all(axis=1).any()
        return jnp.where(inside, -jnp.log(32.0), -jnp.inf)

    def label(self, x: Float[Array, " 2"]) -> Int[Array, ""]:
        """The dark square that holds one point; off the dark squares the nearest centre."""
        return jnp.argmin(((x - self.centers) ** 2).sum(axis=1))
