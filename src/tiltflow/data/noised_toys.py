"""Sine, swirl and checkerboard with Gaussian noise: exact densities in the plane, with no modes.

    sine          x ~ U(-2, 2), y = sin(3 x) + N(0, 1/16), both times 4
    swirl         one arm, n = 3 pi sqrt(U), (-cos n, sin n) n times 5 / 6
    checkerboard  every other one of the 16 squares of [-2, 2]^2, times 3

(Chao et al. 2023.) Without noise they have no score at edges, and the swirl no density; with
N(0, NOISE^2 I) added, all do. The curves are mixtures of `NODES` Gaussians along them, closer than
a tenth of their width, and draws are of that same mixture; the squares are products of normal
distribution functions.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp, ndtr
from jaxtyping import Array, Float, Key

NOISE = 0.375
NODES = 800


class NoisedCurve(eqx.Module):
    """Equal Gaussians at `nodes`, with the noise added to a `spread` of their own along y."""

    nodes: Float[Array, "k 2"]
    spread: Float[Array, " 2"]

    def sample(self, key: Key[Array, ""], n: int, noise: float = NOISE) -> Float[Array, "n 2"]:
        """Independent points; without noise where it is 0."""
        node_key, key = jax.random.split(key)
        nodes = self.nodes[jax.random.randint(node_key, (n,), 0, len(self.nodes))]
        return nodes + jnp.sqrt(self.spread**2 + noise**2) * jax.random.normal(key, (n, 2))

    def log_prob(self, x: Float[Array, " 2"]) -> Float[Array, ""]:
        """With the noise, of one point, nats."""
        scale = jnp.sqrt(self.spread**2 + NOISE**2)
        squares = (((x - self.nodes) / scale) ** 2).sum(axis=1)
        norm = jnp.log(2 * jnp.pi * scale.prod() * len(self.nodes))
        return logsumexp(-0.5 * squares) - norm


class NoisedCheckerboard(eqx.Module):
    """Equal squares of side `side` about `centres`, with the noise."""

    centres: Float[Array, "k 2"]
    side: Float[Array, ""]

    def sample(self, key: Key[Array, ""], n: int, noise: float = NOISE) -> Float[Array, "n 2"]:
        """Independent points; without noise where it is 0."""
        centre_key, place_key, key = jax.random.split(key, 3)
        centres = self.centres[jax.random.randint(centre_key, (n,), 0, len(self.centres))]
        place = self.side * (jax.random.uniform(place_key, (n, 2)) - 0.5)
        return centres + place + noise * jax.random.normal(key, (n, 2))

    def log_prob(self, x: Float[Array, " 2"]) -> Float[Array, ""]:
        """With the noise, of one point, nats; a floor where float32 has no digits left."""
        # By distance: both arguments are negative far out, where a tail has digits.
        away = jnp.abs(x - self.centres)
        share = ndtr((self.side / 2 - away) / NOISE) - ndtr((-self.side / 2 - away) / NOISE)
        density = share.prod(axis=1).mean() / self.side**2
        return jnp.log(jnp.maximum(density, 1e-30))


NoisedToy = NoisedCurve | NoisedCheckerboard


def sine() -> NoisedCurve:
    """The sine wave, of standard deviation 1 across, and the noise."""
    x = 4 * ((np.arange(NODES) + 0.5) / NODES - 0.5)
    nodes = 4 * np.stack([x, np.sin(3 * x)], axis=1)
    return NoisedCurve(jnp.asarray(nodes), jnp.array([0.0, 1.0]))


def swirl() -> NoisedCurve:
    """One arm, that starts at the origin."""
    n = 3 * np.pi * np.sqrt((np.arange(NODES) + 0.5) / NODES)
    nodes = 5 / 6 * n[:, None] * np.stack([-np.cos(n), np.sin(n)], axis=1)
    return NoisedCurve(jnp.asarray(nodes), jnp.zeros(2))


def checkerboard() -> NoisedCheckerboard:
    """Eight squares of side 3."""
    cells = [(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0]
    return NoisedCheckerboard(jnp.asarray(3 * (np.array(cells) - 1.5)), jnp.asarray(3.0))
