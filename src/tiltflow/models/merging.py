"""One Gaussian for every group of a mixture's components with no barrier between them.

A mixture of many components follows a bent or tapering density piece by piece; a flow that stands
on it must undo the pieces before it can learn the whole. On one Gaussian for each separate mode
there is nothing to undo, and more to learn. A barrier stands between two components if somewhere
on the line from mean to mean the mixture's density falls by more than a nat below that of the
lower end, as between the modes of `evaluation/basins.py`. Groups are what barriers do not part.
"""

from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components

from tiltflow.models.gaussian_mixture import GaussianMixture, log_prob_on_host

BARRIER = 1.0
STEPS = 20


def merged(mixture: GaussianMixture) -> GaussianMixture:
    """The mixture with a Gaussian of the same mean and covariance for every group."""
    weights = np.exp(np.asarray(mixture.log_weights, float))
    means, roots = (np.asarray(each, float) for each in (mixture.means, mixture.scale_trils))
    second = roots @ roots.transpose(0, 2, 1) + means[:, :, None] * means[:, None, :]
    groups = group_components(mixture)
    parts = []
    for group in range(groups.max() + 1):
        share = weights * (groups == group)
        total = share.sum()
        mean = share @ means / total
        covariance = np.tensordot(share, second, axes=1) / total - np.outer(mean, mean)
        parts.append((total, mean, covariance))
    total, mean, covariance = (np.stack(each) for each in zip(*parts))
    return GaussianMixture(total, mean, covariance)


def group_components(mixture: GaussianMixture) -> Int[np.ndarray, " k"]:
    """The group of every component, counted from zero."""
    means = np.asarray(mixture.means, float)
    joined = np.zeros((len(means), len(means)), bool)
    for i, j in combinations(range(len(means)), 2):
        joined[i, j] = _no_barrier(mixture, means[i], means[j])
    return connected_components(joined, directed=False)[1]


def _no_barrier(
    mixture: GaussianMixture, a: Float[np.ndarray, " d"], b: Float[np.ndarray, " d"]
) -> bool:
    along = np.linspace(0.0, 1.0, STEPS + 1)[:, None]
    height = log_prob_on_host(mixture, (1 - along) * a + along * b)
    return bool(height.min() > min(height[0], height[-1]) - BARRIER)
