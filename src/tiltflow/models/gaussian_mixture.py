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
from jaxtyping import Array, Float, PRNGKeyArray
from sklearn.mixture import GaussianMixture as SklearnMixture


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


def gaussian(x: Float[np.ndarray, "n d"]) -> GaussianMixture:
    """The Gaussian with the mean and covariance of the rows of `x`, with a ridge of 1e-6."""
    return _from_sklearn(SklearnMixture(1, covariance_type="full", reg_covar=1e-6).fit(x))


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


def diagonal_mixture(
    x: Float[np.ndarray, "n d"], *, components: int, seed: int, scale_floor: float = 1e-3
) -> VmapMixture:
    """A trainable mixture of diagonal Gaussians fitted by EM: the base of a proposal flow.

    Scales never fall below `scale_floor` and weights below 0.01 / components, so that training
    cannot lose a component that a mode may need later.
    """
    mixture = SklearnMixture(
        components, covariance_type="diag", reg_covar=1e-4, random_state=seed
    ).fit(x)
    scales = np.sqrt(mixture.covariances_)
    normals = eqx.filter_vmap(Normal)(jnp.asarray(mixture.means_), jnp.asarray(scales))
    log_scales = jnp.asarray(np.log(scales))
    normals = eqx.tree_at(
        lambda dist: dist.bijection.scale,
        normals,
        paramax.Parameterize(lambda s: jnp.exp(s) + scale_floor, log_scales),
    )
    dist = VmapMixture(normals, jnp.asarray(mixture.weights_))
    return eqx.tree_at(
        lambda dist: dist.log_normalized_weights,
        dist,
        paramax.Parameterize(_floored_log_weights, jnp.asarray(np.log(mixture.weights_))),
    )


def _floored_log_weights(logits: Float[Array, " k"]) -> Float[Array, " k"]:
    return jnp.log(0.99 * jax.nn.softmax(logits) + 0.01 / logits.shape[0])


def _from_sklearn(mixture: SklearnMixture) -> GaussianMixture:
    covariances = mixture.covariances_
    d = mixture.means_.shape[1]
    if mixture.covariance_type == "diag":
        covariances = np.stack([np.diag(row) for row in covariances])
    elif mixture.covariance_type == "tied":
        covariances = np.broadcast_to(covariances, (len(mixture.means_), d, d))
    return GaussianMixture(mixture.weights_, mixture.means_, np.asarray(covariances))
