"""Draws of a fitted model: the weights of the modes and their shapes, from wherever they start."""

import jax.numpy as jnp
import numpy as np

from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.production import draw_samples
from tiltflow.sampling.recording import record_sweeps
from tiltflow.sampling.sweep import FrozenKernel

MEANS = np.array([[-3.0, 0.0], [3.0, 0.0]])


def mixture(weights, variance):
    covariances = np.tile(variance * np.eye(2), (2, 1, 1))
    return GaussianMixture(np.array(weights), MEANS, covariances)


def twice_on_the_left(x):
    """An energy that doubles the density left of the middle, where there is almost no mass."""
    return jnp.where(x[0] < 0, -jnp.log(2.0), 0.0)


# Equal modes, one doubled: 2/3 and 1/3, each of covariance 0.5 I.
MODEL = TiltedEBM(mixture([0.5, 0.5], 0.5), twice_on_the_left)
# Overlaps with the model, with the wrong weights and the wrong width.
FLOW = mixture([0.3, 0.7], 0.8)
KERNEL = FrozenKernel("mala", 2, jnp.asarray(0.1))


def assert_right(x, independent):
    """The weight of the left mode and the spread within modes, by 4.5 standard errors."""
    left = x[:, 0] < 0
    assert abs(left.mean() - 2 / 3) < 4.5 * (2 / 9 / independent) ** 0.5
    within = (x - np.where(left[:, None], MEANS[0], MEANS[1])) ** 2
    assert abs(within.mean() / 0.5 - 1) < 4.5 * (1 / independent) ** 0.5


def test_draws_have_the_weights_and_the_shape_of_the_model(key):
    x = np.asarray(draw_samples(key, MODEL.log_density, FLOW, KERNEL, 4096, 5), float)
    assert x.shape == (4096, 2)
    # The start is resampled with replacement; a few moves make the draws nearly independent.
    assert_right(x, 4096 / 1.5)
    assert len(np.unique(x[:, 0])) > 4000


def test_chains_that_start_in_one_mode_come_to_the_right_weights(key):
    start = jnp.tile(jnp.asarray(MEANS[1], float), (2048, 1))
    trace = record_sweeps(key, MODEL.log_density, FLOW, start, KERNEL, 31)[1].position[1:]
    assert trace.shape == (30, 2048, 2)
    shares = np.asarray((trace[:, :, 0] < 0).mean(axis=1))
    assert shares[0] < 0.5
    assert_right(np.asarray(trace[-1], float), 2048)
