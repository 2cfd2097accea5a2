"""Gaussian mixtures as densities: the base of a model, and what a proposal flow stands on.

    log p(x) = logsumexp_k [ log w_k + log N(x; m_k, L_k L_k^T) ]

The inverse Cholesky factors are stored and stacked, so that the density of a batch is one matrix
product; `flowjax.distributions.VmapMixture` of `MultivariateNormal` solves a triangular system
for every component instead (docs/decisions.md has the times).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from flowjax.distributions import AbstractDistribution, Normal, VmapMixture
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float
from scipy.linalg import solve_triangular
from sklearn.decomposition import FactorAnalysis
from sklearn.mixture import GaussianMixture as SklearnMixture

SCALE_FLOOR = 1e-3
"""The smallest standard deviation of a trainable component, in model units."""


class GaussianMixture(AbstractDistribution):
    """A mixture of k Gaussians with full covariances in d dimensions; k = 1 is one Gaussian."""

    shape: tuple[int, ...]
    cond_shape: None = eqx.field(default=None, init=False)
    log_weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    scale_trils: Float[Array, "k d d"]
    whitening: Float[Array, "k*d d"]
    whitened_means: Float[Array, "k d"]
    log_norms: Float[Array, " k"]

    def __init__(
        self,
        weights: Float[np.ndarray, " k"],
        means: Float[np.ndarray, "k d"],
        covariances: Float[np.ndarray, "k d d"],
    ):
        """Factor the covariances, in float64, and store them in JAX's default precision."""
        k, d = means.shape
        scale_trils = np.linalg.cholesky(covariances)
        whitening = np.linalg.inv(scale_trils)
        diagonals = np.diagonal(scale_trils, axis1=1, axis2=2)
        self.shape = (d,)
        self.log_weights = jnp.asarray(np.log(weights))
        self.means = jnp.asarray(means)
        self.scale_trils = jnp.asarray(scale_trils)
        self.whitening = jnp.asarray(whitening.reshape(k * d, d))
        self.whitened_means = jnp.asarray(np.einsum("kij,kj->ki", whitening, means))
        self.log_norms = jnp.asarray(
            -np.log(diagonals).sum(axis=1) - 0.5 * d * np.log(2 * np.pi) + np.log(weights)
        )

    def _log_prob(self, x, condition=None):
        z = (self.whitening @ x).reshape(self.means.shape) - self.whitened_means
        return logsumexp(self.log_norms - 0.5 * jnp.sum(z * z, axis=-1))

    def _sample(self, key, condition=None):
        component_key, noise_key = jax.random.split(key)
        component = jax.random.categorical(component_key, self.log_weights)
        noise = jax.random.normal(noise_key, self.shape)
        return self.means[component] + self.scale_trils[component] @ noise


def best_gaussian(
    x: Float[np.ndarray, "n d"], held_out: Float[np.ndarray, "m d"]
) -> tuple[GaussianMixture, str]:
    """The one Gaussian with the highest held-out likelihood, and its description.

    Candidates are the full covariance and factor analysis, L L^T + diag(s), with 0, 1, 2, 4, ...
    factors: a full covariance costs d (d + 1) / 4n nats of Kullback-Leibler divergence by its
    estimation alone, which at d = 64 is more than everything else (docs/decisions.md).
    """
    mean = x.mean(axis=0)
    full = np.cov(x, rowvar=False, bias=True).reshape(len(mean), -1) + 1e-6 * np.eye(len(mean))
    best, best_score, description = full, _gaussian_score(mean, full, held_out), "full covariance"
    factors, previous = 0, -np.inf
    while 2 * factors < len(mean):
        covariance = (
            FactorAnalysis(factors, random_state=0).fit(x).get_covariance()
            if factors
            else np.diag(x.var(axis=0) + 1e-6)
        )
        score = _gaussian_score(mean, covariance, held_out)
        if score > best_score:
            best, best_score, description = covariance, score, f"{factors} factors"
        if score < previous:
            break
        previous, factors = score, max(1, 2 * factors)
    return GaussianMixture(np.ones(1), mean[None], best[None]), description


def _gaussian_score(mean: np.ndarray, covariance: np.ndarray, x: np.ndarray) -> float:
    """Mean log-likelihood of the rows of `x`, in nats."""
    root = np.linalg.cholesky(covariance)
    z = solve_triangular(root, (x - mean).T, lower=True)
    log_det = np.log(np.diag(root)).sum()
    return float(-0.5 * (z * z).sum(axis=0).mean() - log_det - 0.5 * len(mean) * np.log(2 * np.pi))


def best_mixture(
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    *,
    seed: int,
    max_components: int = 32,
) -> tuple[GaussianMixture, str]:
    """The mixture, fitted by EM, with the highest held-out likelihood, and its description.

    Covariances are full, tied or diagonal; components are doubled as long as a doubling pays.
    """
    best, best_score, description = None, -np.inf, ""
    for covariance_type in ("full", "tied", "diag"):
        previous = -np.inf
        components = 1
        while components <= min(max_components, len(x) // 4):
            mixture = SklearnMixture(
                components,
                covariance_type=covariance_type,
                reg_covar=1e-5,
                max_iter=200,
                random_state=seed,
            ).fit(x)
            score = float(mixture.score(held_out))
            if score > best_score:
                best, best_score = mixture, score
                description = f"{components} {covariance_type} components"
            if score < previous:
                break
            previous = score
            components *= 2
    assert best is not None
    return _from_sklearn(best), description


def diagonal_mixture(x: Float[np.ndarray, "n d"], *, components: int, seed: int) -> VmapMixture:
    """A trainable mixture of diagonal Gaussians fitted by EM: the base of a proposal flow.

    Scales never fall below `SCALE_FLOOR` and weights below 0.01 / components, so that training
    cannot lose a component that a mode may need later.
    """
    mixture = SklearnMixture(
        components, covariance_type="diag", reg_covar=1e-4, random_state=seed
    ).fit(x)
    return _trainable_mixture(mixture.weights_, mixture.means_, np.sqrt(mixture.covariances_))


def _trainable_mixture(weights: np.ndarray, means: np.ndarray, scales: np.ndarray) -> VmapMixture:
    normals = eqx.filter_vmap(Normal)(jnp.asarray(means), jnp.asarray(scales))
    normals = eqx.tree_at(
        lambda dist: dist.bijection.scale,
        normals,
        paramax.Parameterize(_floored_scale, jnp.log(jnp.asarray(scales))),
    )
    mixture = VmapMixture(normals, jnp.asarray(weights))
    return eqx.tree_at(
        lambda dist: dist.log_normalized_weights,
        mixture,
        paramax.Parameterize(_floored_log_weights, jnp.log(jnp.asarray(weights))),
    )


def _floored_scale(log_scale: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.exp(log_scale) + SCALE_FLOOR


def _floored_log_weights(logits: Float[Array, " k"]) -> Float[Array, " k"]:
    return jnp.log(0.99 * jax.nn.softmax(logits) + 0.01 / logits.shape[0])


def mixture_template(components: int, dimension: int) -> GaussianMixture:
    """A `GaussianMixture` of that size, to be filled with stored arrays."""
    covariances = np.broadcast_to(np.eye(dimension), (components, dimension, dimension))
    weights = np.full(components, 1 / components)
    return GaussianMixture(weights, np.zeros((components, dimension)), covariances)


def diagonal_mixture_template(components: int, dimension: int) -> VmapMixture:
    """A `diagonal_mixture` of that size, to be filled with stored arrays."""
    shape = (components, dimension)
    weights = np.full(components, 1 / components)
    return _trainable_mixture(weights, np.zeros(shape), np.ones(shape))


def _from_sklearn(mixture: SklearnMixture) -> GaussianMixture:
    covariances = mixture.covariances_
    d = mixture.means_.shape[1]
    if mixture.covariance_type == "diag":
        covariances = np.stack([np.diag(row) for row in covariances])
    elif mixture.covariance_type == "tied":
        covariances = np.broadcast_to(covariances, (len(mixture.means_), d, d))
    return GaussianMixture(mixture.weights_, mixture.means_, np.asarray(covariances))
