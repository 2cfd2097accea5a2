"""Four modes of four shapes in the plane, one in each quadrant: the extended motivating example.

    zone  quadrant      weight  shape, about a centre at (+-3, +-3)
    0     upper right   .4      round:  N(0, 0.5^2 I)
    1     upper left    .3      long:   normal, deviations 0.8 and 0.2, turned by 45 degrees
    2     lower left    .2      bent:   x = 0.6 u,  y = 0.25 v - 0.3 (u^2 - 1),  u, v ~ N(0, 1)
    3     lower right   .1      ring:   radius 1.2, radial deviation 0.15

The paper (Grenioux, Moulines, Gabrié 2023, Figures 3 to 5) cuts the plane into four zones and
counts in each; its densities are not published, so that these are this project's own. All modes lie
five standard deviations or more from the axes, so that a zone's mass is the weight of its mode to
1e-6.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int, Key

from tiltflow.data.targets import Rings

CENTRES = np.array([[3.0, 3.0], [-3.0, 3.0], [-3.0, -3.0], [3.0, -3.0]])
ROUND = 0.5
LONG = np.array([0.8, 0.2])
BENT = np.array([0.6, 0.25])
BEND = 0.3


class FourZones(eqx.Module):
    """The target; labels are the zones."""

    weights: Float[Array, " 4"]
    ring: Rings

    def __init__(self):
        self.weights = jnp.asarray([0.4, 0.3, 0.2, 0.1], float)
        self.ring = Rings((1.2,), 0.15)

    @property
    def dimension(self) -> int:
        """Number of coordinates of a point."""
        return 2

    def sample(self, key: Key[Array, ""], n: int) -> Float[Array, "n 2"]:
        """Independent points."""
        key_zone, key_noise, key_ring = jax.random.split(key, 3)
        zone = jax.random.choice(key_zone, 4, (n,), p=self.weights)
        noise = jax.random.normal(key_noise, (n, 2))
        offsets = jnp.stack(
            [ROUND * noise, _turn(noise * LONG), _bend(noise), self.ring.sample(key_ring, n)]
        )
        return jnp.asarray(CENTRES)[zone] + offsets[zone, jnp.arange(n)]

    def joint_log_prob(self, x: Float[Array, " 2"]) -> Float[Array, " 4"]:
        """Joint log-density of mode k and point: log w_k + log p_k(x)."""
        offset = x - jnp.asarray(CENTRES)
        return jnp.log(self.weights) + jnp.stack(
            [
                norm.logpdf(offset[0], scale=ROUND).sum(),
                norm.logpdf(_turn_back(offset[1]), scale=LONG).sum(),
                norm.logpdf(_unbend(offset[2])).sum() - np.log(BENT).sum(),
                self.ring.log_prob(offset[3]),
            ]
        )

    def log_prob(self, x: Float[Array, " 2"]) -> Float[Array, ""]:
        """Normalised log-density of one point, nats."""
        return logsumexp(self.joint_log_prob(x))

    def label(self, x: Float[Array, " 2"]) -> Int[Array, ""]:
        """The zone that holds one point, counted against the clock from the upper right."""
        right, up = x[0] >= 0, x[1] >= 0
        return jnp.where(up, jnp.where(right, 0, 1), jnp.where(right, 3, 2))


def _turn(z: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
    """By 45 degrees against the clock."""
    return jnp.stack([z[:, 0] - z[:, 1], z[:, 0] + z[:, 1]], axis=1) / np.sqrt(2)


def _turn_back(x: Float[Array, " 2"]) -> Float[Array, " 2"]:
    return jnp.stack([x[0] + x[1], x[1] - x[0]]) / np.sqrt(2)


def _bend(z: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
    """Away from the axes: the arms hang down."""
    u, v = z[:, 0], z[:, 1]
    return jnp.stack([BENT[0] * u, BENT[1] * v - BEND * (u**2 - 1)], axis=1)


def _unbend(x: Float[Array, " 2"]) -> Float[Array, " 2"]:
    """Its inverse, whose Jacobian is 1 over the product of `BENT`."""
    u = x[0] / BENT[0]
    return jnp.stack([u, (x[1] + BEND * (u**2 - 1)) / BENT[1]])
