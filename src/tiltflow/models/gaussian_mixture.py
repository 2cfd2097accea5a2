"""Gaussian mixtures as densities: the base of a model, and what a proposal flow stands on.

    log p(x) = logsumexp_k [ log w_k + log N(x; m_k, L_k L_k^T) ]

The inverse Cholesky factors are stored and stacked, so that the density of a batch is one matrix
product; `flowjax.distributions.VmapMixture` of `MultivariateNormal` solves a triangular system
for every component instead. scikit-learn fits them; it is imported then, because it takes a second.
"""

import copy
import warnings
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from flowjax.distributions import AbstractDistribution
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.linalg import solve_triangular

from tiltflow.data.folds import simplest_within_error, validation_splits

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture as SklearnMixture

SEARCH_ROWS = 20_000
"""Rows that the search for the number of components looks at."""
ONE_THREAD = 10_000_000
"""Cells of a table below which EM takes one thread."""
STARTED_COMPONENTS = 24
"""EM is started as often as makes so many components, at least once: six times for four."""
ROWS_A_PARAMETER = 10
"""Below so many it is started once: the likeliest of several fits is the one that overfits most."""


class GaussianMixture(AbstractDistribution):
    """A mixture of k Gaussians with full covariances in d dimensions; k = 1 is one Gaussian."""

    shape: tuple[int, ...]
    cond_shape: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
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

    def joint_log_prob(self, x: Float[Array, " d"]) -> Float[Array, " k"]:
        """Log of the weight times the density of every component at one point."""
        z = (self.whitening @ x).reshape(self.means.shape) - self.whitened_means
        return self.log_norms - 0.5 * jnp.sum(z * z, axis=-1)

    def _log_prob(self, x: Any, condition: Any = None) -> Array:
        return logsumexp(self.joint_log_prob(x))

    def _sample(self, key: Any, condition: Any = None) -> Array:
        component_key, noise_key = jax.random.split(key)
        return self.sample_at(jax.random.uniform(component_key), noise_key)

    def sample_at(self, uniform: Float[Array, ""], key: PRNGKeyArray) -> Float[Array, " d"]:
        """A draw of the component where the weights' running sum passes `uniform`."""
        # One uniform and a comparison: `categorical` would draw k Gumbel variates for each draw.
        cumulative = jnp.cumsum(jax.nn.softmax(self.log_weights))
        component = jnp.sum(uniform >= cumulative[:-1])
        noise = jax.random.normal(key, self.shape)
        # All components at once: a matrix product is cheaper than gathering a factor per draw.
        return (self.means + self.scale_trils @ noise)[component]


def log_prob_on_host(
    mixture: GaussianMixture, x: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """The log-density of many points, nats, in float64, without a compilation."""
    whitening, means, norms = (
        np.asarray(part, float)
        for part in (mixture.whitening, mixture.whitened_means, mixture.log_norms)
    )
    z = (x @ whitening.T).reshape(len(x), *means.shape) - means
    return np.logaddexp.reduce(norms - 0.5 * (z * z).sum(axis=2), axis=1)


def padded(mixture: GaussianMixture, components: int) -> GaussianMixture:
    """The same density with `components` of them, the further ones of weight zero.

    Mixtures of one size are one to the compiler, whatever was found in the data.
    """
    missing = components - len(mixture.log_weights)
    if missing <= 0:
        return mixture
    d = mixture.means.shape[1]

    def fill(array: Float[Array, "k ..."], rows: int) -> Float[Array, "m ..."]:
        values = np.asarray(array)
        return jnp.asarray(np.concatenate([values, *[values[:rows]] * missing]))

    def close(log_array: Float[Array, " k"]) -> Float[Array, " m"]:
        return jnp.asarray(np.pad(np.asarray(log_array), (0, missing), constant_values=-np.inf))

    def arrays(it: GaussianMixture) -> tuple[Any, ...]:
        parts = (it.means, it.scale_trils, it.whitening, it.whitened_means)
        return (it.log_weights, it.log_norms, *parts)

    weights, norms, *parts = arrays(mixture)
    filled = [fill(part, rows) for part, rows in zip(parts, (1, 1, d, 1))]
    return eqx.tree_at(arrays, mixture, (close(weights), close(norms), *filled))


def with_wide_twins(mixture: GaussianMixture, share: float) -> GaussianMixture:
    """Every component with a wider one in its place that takes `share` of its weight.

    A defensive mixture (Hesterberg 1995): importance weights stay bounded where the tails are a
    little heavier than was thought. The twin's variances are 1 + 4 / sqrt(d) times as large, so
    that from the one to the other it is 4 nats of Kullback-Leibler divergence or less, in any
    dimension.
    """
    weights = np.exp(np.asarray(mixture.log_weights, float))
    means, roots = (np.asarray(each, float) for each in (mixture.means, mixture.scale_trils))
    covariances = roots @ roots.transpose(0, 2, 1)
    wider = 1 + 4 / np.sqrt(means.shape[1])
    return GaussianMixture(
        np.concatenate([(1 - share) * weights, share * weights]),
        np.concatenate([means, means]),
        np.concatenate([covariances, wider * covariances]),
    )


class Fitted(NamedTuple):
    """A density fitted to the training rows, in words, and how to fit the same to other rows.

    `scores` are the log-likelihoods, nats, of the rows that judged it (`validation_splits`).
    """

    density: GaussianMixture
    description: str
    fit: Callable[[np.ndarray], GaussianMixture]
    scores: Float[np.ndarray, " m"]


def best_gaussian(x: Float[np.ndarray, "n d"], held_out: Float[np.ndarray, "m d"]) -> Fitted:
    """One Gaussian, its covariance chosen by `validation_splits`, and its description.

    Candidates are the full covariance and factor analysis, L L^T + diag(s), with 0, 1, 2, 4, ...
    factors: a full covariance costs d (d + 1) / 4n nats of Kullback-Leibler divergence by its
    estimation alone, which at d = 64 is more than everything else (docs/decisions.md).
    """
    splits = validation_splits(x, held_out)

    def validate(factors: int | None) -> Float[np.ndarray, " m"]:
        return np.concatenate([_gaussian_scores(a, factors, b) for a, b in splits])

    candidates = {}
    factors, previous = 0, -np.inf
    while 2 * factors < x.shape[1]:
        scores = candidates[factors] = validate(factors)
        if scores.mean() < previous:
            break
        previous, factors = scores.mean(), max(1, 2 * factors)
    candidates[None] = validate(None)
    best = simplest_within_error(candidates)

    def fit(rows: np.ndarray) -> GaussianMixture:
        return GaussianMixture(np.ones(1), rows.mean(axis=0)[None], _covariance(rows, best)[None])

    description = "full covariance" if best is None else f"{best} factors"
    return Fitted(fit(x), description, fit, candidates[best])


def _covariance(x: np.ndarray, factors: int | None) -> np.ndarray:
    """The covariance by factor analysis, or the full one if None, with a ridge of 1e-6."""
    ridge = 1e-6 * np.eye(x.shape[1])
    if factors is None:
        return np.cov(x, rowvar=False, bias=True).reshape(ridge.shape) + ridge
    if factors == 0:
        return np.diag(x.var(axis=0)) + ridge
    from sklearn.decomposition import FactorAnalysis

    return FactorAnalysis(factors, random_state=0).fit(x).get_covariance()


def _gaussian_scores(
    x: Float[np.ndarray, "n d"], factors: int | None, held_out: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, " m"]:
    """Log-likelihood of each held-out row, in nats, of the Gaussian fitted to `x`."""
    mean, root = x.mean(axis=0), np.linalg.cholesky(_covariance(x, factors))
    z = solve_triangular(root, (held_out - mean).T, lower=True)
    log_det = np.log(np.diag(root)).sum()
    return -0.5 * (z * z).sum(axis=0) - log_det - 0.5 * len(mean) * np.log(2 * np.pi)


def best_mixture(
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    *,
    seed: int,
    max_components: int = 32,
    quick: bool = False,
) -> Fitted:
    """The mixture, fitted by EM, that `validation_splits` find best, and its description.

    Covariances are diagonal, tied or full; components are doubled as long as a doubling pays. The
    search looks at no more than `SEARCH_ROWS` rows; to more of `x`, or other rows, the winner is
    fitted from there on: EM that starts anew can end elsewhere. If it is to be `quick`, the
    held-out rows alone judge, however few.
    """
    splits = [(x, held_out)] if quick else validation_splits(x, held_out)
    fewest = min(len(training) for training, _ in splits)

    @cache
    def on_training_rows(covariance_type: str, components: int) -> "SklearnMixture":
        return _fit_mixture(x[:SEARCH_ROWS], covariance_type, components, seed)

    def validate(covariance_type: str, components: int) -> Float[np.ndarray, " m"]:
        return np.concatenate(
            [
                (
                    # With one split its training rows are `x`, and the winner is fitted already.
                    on_training_rows(covariance_type, components)
                    if a is x
                    else _fit_mixture(a[:SEARCH_ROWS], covariance_type, components, seed)
                ).score_samples(b)
                for a, b in splits
            ]
        )

    candidates = {}
    for covariance_type in ("diag", "tied", "full"):
        previous = -np.inf
        components = 1
        while components <= min(max_components, max(1, fewest // 8)):
            scores = candidates[covariance_type, components] = validate(covariance_type, components)
            if scores.mean() < previous:
                break
            previous = scores.mean()
            components *= 2
    covariance_type, components = best = simplest_within_error(candidates)
    found = on_training_rows(covariance_type, components)

    def fit(rows: np.ndarray) -> GaussianMixture:
        return _from_sklearn(_run_em(copy.deepcopy(found).set_params(warm_start=True), rows))

    density = fit(x) if len(x) > SEARCH_ROWS else _from_sklearn(found)
    description = f"{components} components, {covariance_type} covariances"
    return Fitted(density, description, fit, candidates[best])


def most_components(dimension: int) -> int:
    """How far the search for a base shall go: 128 components up to 4 columns, 64 at 5, then 32.

    Where columns are few, many components are as fine as a kernel density (docs/decisions.md).
    """
    if dimension <= 4:
        return 128
    return 64 if dimension == 5 else 32


def small_mixture(x: Float[np.ndarray, "n d"], *, seed: int) -> GaussianMixture:
    """Four full components, or as many as the rows allow: a quick stand-in, by EM."""
    components = max(1, min(4, len(x) // (10 * x.shape[1])))
    return _from_sklearn(_fit_mixture(x[:SEARCH_ROWS], "full", components, seed))


def _fit_mixture(
    x: np.ndarray, covariance_type: str, components: int, seed: int
) -> "SklearnMixture":
    """By EM, the likeliest of several starts where components are few and rows are many.

    One start of four components ends with two of them in one mode and one on two others, 0.4 nats
    behind, a quarter of the time or more; of many components others make up for it.
    """
    from sklearn.mixture import GaussianMixture as SklearnMixture

    parameters = _parameters(covariance_type, components, x.shape[1])
    several = components > 1 and len(x) >= ROWS_A_PARAMETER * parameters
    mixture = SklearnMixture(
        components,
        covariance_type=covariance_type,
        reg_covar=1e-5,
        n_init=max(1, STARTED_COMPONENTS // components) if several else 1,
        random_state=seed,
    )
    return _run_em(mixture, x)


def _parameters(covariance_type: str, components: int, d: int) -> int:
    """How many numbers a mixture has to learn."""
    full = d * (d + 1) // 2
    covariances = {"diag": components * d, "tied": full, "full": components * full}
    return components * (d + 1) - 1 + covariances[covariance_type]


def _run_em(mixture: "SklearnMixture", x: np.ndarray) -> "SklearnMixture":
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    # Threads that wait for each other by spinning cost a small fit all its time on a busy machine.
    threads = threadpool_limits(1 if x.size < ONE_THREAD else None)
    with threads, warnings.catch_warnings():
        # A mixture that has not quite converged is judged on held-out rows like any other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(x)


def mixture_in(distribution: Any) -> GaussianMixture | None:
    """The mixture that a flow stands on or a mixture of flows starts from, or None."""
    leaves = jax.tree.leaves(
        paramax.unwrap(distribution), is_leaf=lambda leaf: isinstance(leaf, GaussianMixture)
    )
    return next((leaf for leaf in leaves if isinstance(leaf, GaussianMixture)), None)


def mixture_template(components: int, dimension: int) -> GaussianMixture:
    """A `GaussianMixture` of that size, to be filled with stored arrays."""
    covariances = np.broadcast_to(np.eye(dimension), (components, dimension, dimension))
    weights = np.full(components, 1 / components)
    return GaussianMixture(weights, np.zeros((components, dimension)), covariances)


def _from_sklearn(mixture: "SklearnMixture") -> GaussianMixture:
    weights, means = np.asarray(mixture.weights_), np.asarray(mixture.means_)
    covariances = np.asarray(mixture.covariances_)
    d = means.shape[1]
    if mixture.covariance_type == "diag":
        covariances = np.stack([np.diag(row) for row in covariances])
    elif mixture.covariance_type == "tied":
        covariances = np.broadcast_to(covariances, (len(means), d, d))
    return GaussianMixture(weights, means, covariances)
