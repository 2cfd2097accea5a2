"""Targets made of separate modes: Gaussian mixtures and a warped one, with exact log-densities.

The members of the protocol are described in `tiltflow.data.targets`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from jaxtyping import Array, ArrayLike, Float, Int, Key


class GaussianMixture(eqx.Module):
    """p(x) = sum_k w_k N(x; mean_k, L_k L_kᵀ), L_k lower triangular.

    Args:
        means: (m, d).
        scale_trils: (m, d, d) Cholesky factors of the covariances.
        weights: (m,) positive, divided by their sum.
    """

    means: Float[Array, "m d"]
    scale_trils: Float[Array, "m d d"]
    weights: Float[Array, " m"]

    def __init__(self, means: ArrayLike, scale_trils: ArrayLike, weights: ArrayLike):
        self.means = jnp.asarray(means, float)
        self.scale_trils = jnp.asarray(scale_trils, float)
        self.weights = _normalised(weights)

    @property
    def dimension(self) -> int:
        """Number of coordinates of a point."""
        return self.means.shape[1]

    def sample(self, key: Key[Array, ""], n: int) -> Float[Array, "n d"]:
        """Independent points."""
        key_mode, key_noise = jax.random.split(key)
        noise = jax.random.normal(key_noise, (n, self.dimension))
        return _place(key_mode, noise, self.means, self.scale_trils, self.weights)

    def joint_log_prob(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """Joint log-density of mode k and point: log w_k + log N(x; mean_k, L_k L_kᵀ)."""

        def one(mean: Array, scale_tril: Array, weight: Array):
            whitened = solve_triangular(scale_tril, x - mean, lower=True)
            log_det = jnp.log(jnp.diag(scale_tril)).sum()
            return jnp.log(weight) + norm.logpdf(whitened).sum() - log_det

        return jax.vmap(one)(self.means, self.scale_trils, self.weights)

    def log_prob(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Normalised log-density of one point, nats."""
        return logsumexp(self.joint_log_prob(x))

    def label(self, x: Float[Array, " d"]) -> Int[Array, ""]:
        """The mode with the largest posterior responsibility for one point."""
        return jnp.argmax(self.joint_log_prob(x))


class WarpedMixture(eqx.Module):
    """Bent and rotated normal modes: x = mean_k + R_k bend(z), z ~ N(0, I), with probability w_k.

    Args:
        means: (m, d).
        rotations: (m, d, d) orthogonal matrices.
        weights: (m,) positive, divided by their sum.
    """

    means: Float[Array, "m d"]
    rotations: Float[Array, "m d d"]
    weights: Float[Array, " m"]

    def __init__(self, means: ArrayLike, rotations: ArrayLike, weights: ArrayLike):
        self.means = jnp.asarray(means, float)
        self.rotations = jnp.asarray(rotations, float)
        self.weights = _normalised(weights)

    @property
    def dimension(self) -> int:
        """Number of coordinates of a point."""
        return self.means.shape[1]

    def sample(self, key: Key[Array, ""], n: int) -> Float[Array, "n d"]:
        """Independent points."""
        key_mode, key_noise = jax.random.split(key)
        noise = jax.random.normal(key_noise, (n, self.dimension))
        return _place(key_mode, jax.vmap(bend)(noise), self.means, self.rotations, self.weights)

    def joint_log_prob(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """Joint log-density log w_k + log p_k(x); bend and rotation preserve volume."""

        def one(mean: Array, rotation: Array, weight: Array):
            z = unbend(rotation.T @ (x - mean))
            return jnp.log(weight) + norm.logpdf(z).sum()

        return jax.vmap(one)(self.means, self.rotations, self.weights)

    def log_prob(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Normalised log-density of one point, nats."""
        return logsumexp(self.joint_log_prob(x))

    def label(self, x: Float[Array, " d"]) -> Int[Array, ""]:
        """The mode with the largest posterior responsibility for one point."""
        return jnp.argmax(self.joint_log_prob(x))


def bend(z: Float[Array, " d"]) -> Float[Array, " d"]:
    """Add (z_i² − 1) / 2 to the partner z_(i + d//2) of every i < d//2; its Jacobian is 1."""
    half = z.shape[0] // 2
    return z.at[half : 2 * half].add(0.5 * (z[:half] ** 2 - 1))


def unbend(w: Float[Array, " d"]) -> Float[Array, " d"]:
    """The inverse of `bend`."""
    half = w.shape[0] // 2
    return w.at[half : 2 * half].add(-0.5 * (w[:half] ** 2 - 1))


def gaussian_mixture(
    means: ArrayLike, covariances: ArrayLike, weights: ArrayLike
) -> GaussianMixture:
    """A `GaussianMixture` from covariances (m, d, d) instead of their Cholesky factors."""
    return GaussianMixture(means, jnp.linalg.cholesky(jnp.asarray(covariances, float)), weights)


def two_modes(dimension: int = 2, a: float = 1.0, variance: float = 0.05) -> GaussianMixture:
    """Two modes of weights 2/3 and 1/3 at −2a/3·1 and +4a/3·1, so that the mean is 0.

    The covariance of both is variance · I; the "top-right mode" is label 1.
    (Grenioux's code for "SLIPS", github h2o64/slips, `two_modes_utils.py`.)
    """
    means = a * np.array([[-2 / 3], [4 / 3]]) * np.ones(dimension)
    return _isotropic(means, variance**0.5, (2.0, 1.0))


def eight_gaussians(radius: float = 10.0, variance: float = 0.7) -> GaussianMixture:
    """Eight equal Gaussians of covariance variance · I on a circle in the plane."""
    angle = 2 * np.pi * np.arange(8) / 8
    means = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _isotropic(means, variance**0.5, (1.0,) * 8)


def four_modes(
    dimension: int,
    norm: float,
    weights: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1),
    key: Key[Array, ""] | None = None,
) -> GaussianMixture:
    """Four Gaussians of unit covariance whose means have the given norm.

    The means are orthogonal in random directions for d >= 4, drawn from `key` (seed 0 if None),
    and the corners of a square in the first two coordinates for d = 2 and 3.

    Raises:
        ValueError: `dimension` is below 2.
    """
    key = jax.random.key(0) if key is None else key
    return _isotropic(_four_means(dimension, norm, key), 1.0, weights)


def warped_modes(
    dimension: int,
    norm: float,
    weights: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1),
    key: Key[Array, ""] | None = None,
) -> WarpedMixture:
    """Four bent modes, each rotated at random (Haar), with means as in `four_modes`.

    Raises:
        ValueError: `dimension` is below 2.
    """
    key_means, key_rotations = jax.random.split(jax.random.key(0) if key is None else key)
    rotations = jax.random.orthogonal(key_rotations, dimension, (4,))
    return WarpedMixture(_four_means(dimension, norm, key_means), rotations, np.array(weights))


def _four_means(dimension: int, norm: float, key: Key[Array, ""]) -> Float[np.ndarray, "4 d"]:
    if dimension < 2:
        raise ValueError(f"four separate directions need dimension >= 2, not {dimension}")
    if dimension >= 4:
        return norm * np.asarray(jax.random.orthogonal(key, dimension))[:4]
    corners = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    return np.pad(corners * norm / 2**0.5, ((0, 0), (0, dimension - 2)))


def _place(
    key: Key[Array, ""],
    noise: Float[Array, "n d"],
    means: Float[Array, "m d"],
    matrices: Float[Array, "m d d"],
    weights: Float[Array, " m"],
) -> Float[Array, "n d"]:
    """The points mean_k + matrix_k noise, k with probability w_k."""
    n = noise.shape[0]
    mode = jax.random.choice(key, len(weights), (n,), p=weights)
    # Every mode's move of every point: (n, m, d) is smaller than (n, d, d) matrices gathered.
    moved = jnp.einsum("mij,nj->nmi", matrices, noise) + means
    return moved[jnp.arange(n), mode]


def _isotropic(
    means: Float[np.ndarray, "m d"], scale: float, weights: tuple[float, ...]
) -> GaussianMixture:
    count, dimension = means.shape
    scale_trils = np.tile(scale * np.eye(dimension), (count, 1, 1))
    return GaussianMixture(means, scale_trils, np.array(weights))


def _normalised(weights: ArrayLike) -> Float[Array, " m"]:
    weights = jnp.asarray(weights, float)
    return weights / weights.sum()
