"""What experiments on tables share: log-densities of test rows by scikit-learn, and their means."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.neighbors import KernelDensity

from tiltflow.experiments.clock import clock
from tiltflow.models.gaussian_mixture import most_components

COMPONENTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
MORE_COMPONENTS = (*COMPONENTS, 48, 64, 96, 128)
"""For few columns, as far as the base of a balanced EBM may go."""
BANDWIDTHS = np.geomspace(0.02, 2.0, 21)
"""Of Gaussian kernels, in standard deviations of each column."""
MOST_LEFT_OUT = 2_000
ROWS_AT_ONCE = 500


def mixture_scores(
    rest: Float[np.ndarray, "n d"],
    test: Float[np.ndarray, "m d"],
    seed: int,
    *,
    components: Sequence[int] | None = None,
    most_seconds: float = np.inf,
) -> Float[np.ndarray, " m"]:
    """Log-density of the test rows under scikit-learn's mixture, fitted to all other rows.

    The number of components is chosen by BIC, without `components` from as many as the base of a
    balanced EBM may have; no larger one is begun after `most_seconds` (`clock.py`).
    """
    if components is None:
        most = most_components(rest.shape[1])
        components = [count for count in MORE_COMPONENTS if count <= most]
    mean, scale = rest.mean(axis=0), rest.std(axis=0)
    z = (rest - mean) / scale
    started = clock()
    mixtures = []
    for count in components:
        # With fewer rows than this a component is singular, and BIC runs after it.
        few = count > 1 and count * (z.shape[1] + 1) > len(z)
        if not few and (not mixtures or clock() - started < most_seconds):
            mixtures.append(SklearnMixture(count, random_state=seed, max_iter=300).fit(z))
    best = min(mixtures, key=lambda mixture: mixture.bic(z))
    return best.score_samples((test - mean) / scale) - np.log(scale).sum()


def kernel_scores(
    rest: Float[np.ndarray, "n d"], test: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, " m"]:
    """Log-density of the test rows under scikit-learn's Gaussian kernels on all other rows.

    The bandwidth is the best one when each row, of the first 2000, is left out in turn.
    """
    mean, scale = rest.mean(axis=0), rest.std(axis=0)
    z = (rest - mean) / scale
    fit = KernelDensity(bandwidth=_best_bandwidth(z)).fit(z)
    return fit.score_samples((test - mean) / scale) - np.log(scale).sum()


def _best_bandwidth(z: Float[np.ndarray, "n d"]) -> float:
    left_out = min(len(z), MOST_LEFT_OUT)
    likelihoods = -left_out * z.shape[1] * np.log(BANDWIDTHS)
    for first in range(0, left_out, ROWS_AT_ONCE):
        squared = cdist(z[first : min(first + ROWS_AT_ONCE, left_out)], z, "sqeuclidean")
        own = np.arange(len(squared))
        squared[own, first + own] = np.inf
        likelihoods += [
            np.asarray(logsumexp(-squared / (2 * bandwidth**2), axis=1)).sum()
            for bandwidth in BANDWIDTHS
        ]
    return float(BANDWIDTHS[likelihoods.argmax()])


def standard_error(values: Float[np.ndarray, " m"]) -> float:
    """Of the mean of independent values."""
    return float(np.std(values) / np.sqrt(len(values)))


def paired_difference(
    scores: Float[np.ndarray, " m"],
    others: Float[np.ndarray, " m"],
    *,
    log_z_stderr: float = 0.0,
) -> tuple[float, float]:
    """Mean of `scores - others` on the same rows, and its standard error with that of log Z."""
    gaps = scores - others
    return float(gaps.mean()), float(np.hypot(standard_error(gaps), log_z_stderr))
