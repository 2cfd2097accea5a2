"""The smooth leaky ReLU: values by hand, a true inverse, and derivatives of all orders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.models import smooth_leaky_relu
from tiltflow.models.smooth_leaky_relu import SmoothLeakyReLU

X = np.concatenate([np.linspace(-8, 8, 97), [-1e4, -40.0, 40.0, 1e4]])


def test_values_and_slopes_are_those_of_the_formula():
    layer = SmoothLeakyReLU(1)
    for x in (-3.0, 0.0, 2.0):
        y, log_det = layer.transform_and_log_det(jnp.array([x]))
        assert float(y[0]) == pytest.approx(0.3 * x + 0.7 * np.log1p(np.exp(x)), abs=1e-6)
        assert float(log_det) == pytest.approx(np.log(0.3 + 0.7 / (1 + np.exp(-x))), abs=1e-6)


def round_trip(x):
    layer = SmoothLeakyReLU(len(x))

    @jax.jit
    def run(x):
        y, log_det = layer.transform_and_log_det(x)
        back, inverse_log_det = layer.inverse_and_log_det(y)
        return back, log_det + inverse_log_det, jnp.diag(jax.jacrev(layer.inverse)(y)), y

    return run(jnp.asarray(x))


@pytest.mark.parametrize(("x64", "digits"), [(False, 3e-6), (True, 1e-14)])
def test_the_inverse_is_exact_to_the_precision(x64, digits):
    with jax.enable_x64(x64):
        back, gap, slope, _ = round_trip(X)
        np.testing.assert_allclose(back, X, rtol=digits, atol=digits)
        np.testing.assert_allclose(gap, 0, atol=1e3 * digits)
        expected = 1 / (0.3 + 0.7 / (1 + np.exp(-np.clip(X, -50, 50))))
        np.testing.assert_allclose(slope, expected, rtol=100 * digits)


def test_too_few_steps_are_caught(monkeypatch):
    monkeypatch.setattr(smooth_leaky_relu, "NEWTON_STEPS", 2)
    assert np.abs(round_trip(X)[0] - X).max() > 1e-4


def test_bad_slopes_are_refused():
    for alpha in (0.0, -1.0, 1.5):
        with pytest.raises(InputError, match="alpha"):
            SmoothLeakyReLU(2, alpha)
