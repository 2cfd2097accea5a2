"""A pinwheel: five arms, each a Gaussian twisted around the origin, with an exact density.

    x = 2 R(2 π k / 5 + c exp(|f|)) f,    f ~ N((1, 0), diag(.3², .1²)),    k uniform

A rotation by an angle that depends on the radius alone keeps areas and can be undone, so that
p(x) = 1/4 sum_k N(f_k(x)) / 5. (Johnson et al. 2016, FFJORD's toy data, rotate by exp(f_1), which
cannot be undone; the pictures are alike.)
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int, Key

ARMS, TWIST, SIZE = 5, 0.25, 2.0
MEAN, SCALES = (1.0, 0.0), (0.3, 0.1)


class Pinwheel(eqx.Module):
    """Five twisted arms of equal weight; an arm is a mode."""

    @property
    def dimension(self) -> int:
        """Number of coordinates of a point."""
        return 2

    @property
    def weights(self) -> Float[Array, " 5"]:
        """The exact share of mass of every arm."""
        return jnp.full(ARMS, 1 / ARMS)

    def sample(self, key: Key[Array, ""], n: int) -> Float[Array, "n 2"]:
        """Independent points."""
        arm_key, noise_key = jax.random.split(key)
        f = jnp.array(MEAN) + jnp.array(SCALES) * jax.random.normal(noise_key, (n, 2))
        arm = jax.random.randint(arm_key, (n,), 0, ARMS)
        angle = 2 * jnp.pi * arm / ARMS + TWIST * jnp.exp(jnp.linalg.norm(f, axis=1))
        return SIZE * jax.vmap(_rotate)(f, angle)

    def joint_log_prob(self, x: Float[Array, " 2"]) -> Float[Array, " 5"]:
        """Joint log-density of arm k and point: log w_k + log p_k(x)."""
        twisted = x / SIZE
        radius = jnp.sqrt(jnp.maximum(twisted @ twisted, jnp.finfo(x.dtype).tiny))
        angles = 2 * jnp.pi * jnp.arange(ARMS) / ARMS + TWIST * jnp.exp(radius)
        f = jax.vmap(lambda angle: _rotate(twisted, -angle))(angles)
        each = norm.logpdf(f, jnp.array(MEAN), jnp.array(SCALES)).sum(axis=1)
        return each - jnp.log(ARMS * SIZE**2)

    def log_prob(self, x: Float[Array, " 2"]) -> Float[Array, ""]:
        """Normalised log-density of one point, nats."""
        return logsumexp(self.joint_log_prob(x))

    def label(self, x: Float[Array, " 2"]) -> Int[Array, ""]:
        """The arm with the largest posterior responsibility for one point."""
        return jnp.argmax(self.joint_log_prob(x))


def _rotate(f: Float[Array, " 2"], angle: Float[Array, ""]) -> Float[Array, " 2"]:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos * f[0] - sin * f[1], sin * f[0] + cos * f[1]])
