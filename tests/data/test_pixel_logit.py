"""Pixels to the line and back: range, round trip, Jacobian and units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logit

from tiltflow.data.errors import InputError
from tiltflow.data.pixel_logit import PixelLogit, bits_per_dimension
from tiltflow.data.preprocessing import to_model_units, to_user_units

X = np.array([[-0.5, 0.0, 17.3], [255.5, 200.0, 127.5]])


def test_values_are_those_of_the_formula_and_go_back():
    z, _ = to_model_units(PixelLogit(3), X)
    np.testing.assert_allclose(z, logit(1e-6 + (1 - 2e-6) * (X + 0.5) / 256), rtol=1e-12)
    np.testing.assert_allclose(to_user_units(PixelLogit(3), z), X, atol=1e-6)


def test_the_log_determinant_is_that_of_autodiff():
    with jax.enable_x64(True):
        layer = PixelLogit(3, levels=16, margin=0.01)
        x = jnp.array([0.2, 7.0, 14.9])
        z, log_det = layer.transform_and_log_det(x)
        expected = np.linalg.slogdet(jax.jacfwd(layer.transform)(x))[1]
        assert float(log_det) == pytest.approx(float(expected), abs=1e-9)
        assert float(layer.inverse_and_log_det(z)[1]) == pytest.approx(-float(expected), abs=1e-9)


def test_the_uniform_density_is_eight_bits():
    """Of p uniform, z is logistic: in pixel units, one in 256."""
    z, log_det = to_model_units(PixelLogit(3), X[:, :])
    logistic = (-np.logaddexp(0, z) - np.logaddexp(0, -z)).sum(axis=1)
    assert bits_per_dimension(float((logistic + log_det).mean()), 3) == pytest.approx(8, abs=1e-4)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="levels"):
        PixelLogit(3, levels=1)
    for margin in (0.0, 0.5):
        with pytest.raises(InputError, match="margin"):
            PixelLogit(3, margin=margin)
