"""Published units of images: the same density in them, and a start that is white."""

import jax
import numpy as np
import pytest

from tiltflow.data.pixel_logit import PixelLogit
from tiltflow.data.preprocessing import fit_preprocessing, to_model_units
from tiltflow.experiments.ebflow_units import SMOOTHNESS, in_published_units, start_whitened
from tiltflow.experiments.grey_images import ScaledImages
from tiltflow.models.energy_flow_architectures import (
    convolutional_energy_flow,
    fully_connected_energy_flow,
)
from tiltflow.training.energy_flow_fit import user_log_prob

ROWS = np.random.default_rng(0).uniform(0, 40, (300, 4)) * np.array([1.0, 2.0, 4.0, 6.0])
LOGIT = PixelLogit(4)


@pytest.fixture
def images():
    """Pixels of unequal and dependent sizes, whitened."""
    rows = ROWS + ROWS[:, ::-1] / 8
    scaling = fit_preprocessing(to_model_units(LOGIT, rows)[0], "whiten")
    return ScaledImages(rows, rows[:10], rows[:10], (2, 2), LOGIT, scaling)


def test_a_whitened_start_is_the_density_of_whitened_pixels(images, key):
    """In pixel units; without the layer, many nats apart."""
    flow = fully_connected_energy_flow(key, 4)
    published = in_published_units(images, "fully connected")
    expected = user_log_prob(flow, images.preprocessing, images.test)
    started = start_whitened(flow, published)
    found = user_log_prob(started, published.preprocessing, images.test)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    unlike = user_log_prob(flow, published.preprocessing, images.test)
    assert np.abs(unlike - expected).mean() > 5


def test_units_are_logits_over_the_smoothness(images):
    for architecture, smoothness in SMOOTHNESS.items():
        published = in_published_units(images, architecture)
        z = to_model_units(published.preprocessing, images.test)[0]
        logits = to_model_units(images.logit, images.test)[0]
        np.testing.assert_allclose(z, logits / smoothness, rtol=1e-5)


def test_a_flow_of_convolutions_starts_as_it_is(images):
    flow = convolutional_energy_flow(jax.random.key(0), (2, 2, 1), stages=1, size=1)
    assert start_whitened(flow, images) is flow
