"""The published mixtures are what their authors' code states."""

import equinox as eqx
import jax
import numpy as np
from scipy.stats import kstest

from tiltflow.data.published_mixtures import forty_modes, jarzynski_mixture


def test_forty_modes_are_uniform_and_of_the_published_variance():
    target = forty_modes(16)
    # 640 uniform coordinates; at level 1e-3.
    assert kstest(np.asarray(target.means).ravel(), "uniform", (-40, 80)).pvalue > 1e-3
    np.testing.assert_allclose(
        np.asarray(target.scale_trils[7]) ** 2, 1.31326 * np.eye(16), rtol=1e-4
    )
    np.testing.assert_allclose(target.weights, 1 / 40, rtol=1e-6)
    assert not np.array_equal(target.means, forty_modes(16, jax.random.key(1)).means)


def test_the_labels_of_jarzynski_draws_have_the_weights():
    """Within 4.5 standard errors; the modes lie where they should."""
    target, n = jarzynski_mixture(), 4000
    draws = np.asarray(eqx.filter_jit(target.sample)(jax.random.key(0), n))
    labels = np.asarray(jax.jit(jax.vmap(target.label))(draws))
    assert draws.shape == (n, 50)
    assert abs(labels.mean() - 0.75) < 4.5 * np.sqrt(0.75 * 0.25 / n)
    for mode, first in enumerate((-10.0, 6.0)):
        centre = draws[labels == mode].mean(axis=0)
        expected = np.where(np.arange(50) == 0, first, 0.0)
        np.testing.assert_allclose(centre, expected, atol=4.5 / np.sqrt(n / 5))
