"""Groups of components: what a barrier parts, and what is kept of those that are joined."""

import numpy as np
import pytest

from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.merging import group_components, merged


def mixture(weights, means, variance=1.0):
    means = np.asarray(means, float)
    covariances = np.tile(variance * np.eye(means.shape[1]), (len(means), 1, 1))
    return GaussianMixture(np.asarray(weights, float), means, covariances)


def test_separate_modes_stay_as_they_are():
    apart = mixture([0.4, 0.6], [[-5.0, 0.0], [5.0, 0.0]])
    same = merged(apart)
    np.testing.assert_allclose(same.means, apart.means, atol=1e-6)
    np.testing.assert_allclose(same.scale_trils, apart.scale_trils, atol=1e-6)
    np.testing.assert_allclose(same.log_weights, apart.log_weights, atol=1e-6)


@pytest.mark.parametrize(("distance", "groups"), [(3.5, 1), (3.9, 2)])
def test_one_nat_is_a_barrier(distance, groups):
    """Two equal normals have one 3.7 deviations apart."""
    pair = mixture([0.5, 0.5], [[0.0, 0.0], [distance, 0.0]])
    assert group_components(pair).max() + 1 == groups


def test_a_chain_of_pieces_is_one_mode_with_the_moments_of_all():
    """Half a circle of eight pieces, whose ends are far apart, and a mode of its own."""
    angle = np.linspace(0, np.pi, 8)
    arc = 4 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    means = np.concatenate([arc, [[0.0, -12.0]]])
    weights = np.array([0.1] * 8 + [0.2])
    groups = group_components(mixture(weights, means))
    assert len(set(groups[:8])) == 1 and groups[8] != groups[0]

    modes = merged(mixture(weights, means))
    first = groups[0]
    np.testing.assert_allclose(np.exp(modes.log_weights)[first], 0.8, rtol=1e-5)
    np.testing.assert_allclose(modes.means[first], arc.mean(axis=0), atol=1e-5)
    root = np.asarray(modes.scale_trils[first])
    np.testing.assert_allclose(root @ root.T, np.eye(2) + np.cov(arc.T, bias=True), atol=1e-4)
