"""What experiments on tables share: a mixture by BIC, and log-densities of test rows compared."""

import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from sklearn.mixture import GaussianMixture as SklearnMixture

COMPONENTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def mixture_scores(
    rest: Float[np.ndarray, "n d"],
    test: Float[np.ndarray, "m d"],
    seed: int,
    *,
    components: Sequence[int] = COMPONENTS,
    most_seconds: float = np.inf,
) -> Float[np.ndarray, " m"]:
    """Log-density of the test rows under scikit-learn's mixture, fitted to all other rows.

    The number of components is chosen by BIC; no larger one is begun after `most_seconds`.
    """
    mean, scale = rest.mean(axis=0), rest.std(axis=0)
    z = (rest - mean) / scale
    started = time.perf_counter()
    mixtures = []
    for count in components:
        # With fewer rows than this a component is singular, and BIC runs after it.
        few = count > 1 and count * (z.shape[1] + 1) > len(z)
        if not few and (not mixtures or time.perf_counter() - started < most_seconds):
            mixtures.append(SklearnMixture(count, random_state=seed, max_iter=300).fit(z))
    best = min(mixtures, key=lambda mixture: mixture.bic(z))
    return best.score_samples((test - mean) / scale) - np.log(scale).sum()


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
