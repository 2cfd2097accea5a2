"""The sinh-arcsinh bijection and its maximum-likelihood fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.sinh_arcsinh import SinhArcsinh
from tiltflow.data.sinh_arcsinh_fit import (
    SinhArcsinhParameters,
    _terms,
    fit_sinh_arcsinh,
    log_likelihood,
)


@pytest.mark.parametrize("x64", [False, True])
def test_inverse_and_log_det(x64):
    bijection = SinhArcsinh(
        np.array([0.0, 5.0]), np.array([1.0, 0.1]), np.array([0.5, 1.5]), np.array([1.0, -2.0])
    )
    with jax.enable_x64(x64):
        for x in [[0.3, 5.1], [-40.0, 4.0], [1e4, 5.0]]:
            x = jnp.array(x)
            z, log_det = bijection.transform_and_log_det(x)
            back, back_log_det = bijection.inverse_and_log_det(z)
            jacobian = np.asarray(jax.jacfwd(bijection.transform)(x))
            tolerance = 1e-9 if x64 else 1e-3
            np.testing.assert_allclose(back, x, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=tolerance)
            np.testing.assert_allclose(log_det, -back_log_det, rtol=tolerance)


def test_log_det_does_not_overflow_far_out():
    one = np.ones(1)
    bijection = SinhArcsinh(0 * one, one, 0.1 * one, 0 * one)
    z, log_det = bijection.transform_and_log_det(jnp.array([1e30]))
    assert jnp.isfinite(z).all() and jnp.isfinite(log_det)


def test_gradient_of_the_likelihood_matches_differences():
    theta, x, step = np.array([0.2, -0.3, 0.4, 0.5]), np.array([-3.0, 0.1, 2.0]), 1e-6
    _, gradient = _terms(theta, x)
    for k, direction in enumerate(np.eye(4)):
        up, down = (_terms(theta + sign * step * direction, x)[0] for sign in (1, -1))
        np.testing.assert_allclose(gradient[k], (up - down) / (2 * step), rtol=1e-6)


def test_fit_finds_the_parameters_of_its_own_draws():
    """Within 4.5 standard errors in likelihood terms: 2 (best − true) is chi-squared of 4."""
    truth = SinhArcsinhParameters(-2.0, 30.0, 0.6, 0.8)
    z = np.random.default_rng(0).normal(size=5000)
    column = truth.loc + truth.scale * np.sinh((np.arcsinh(z) + truth.skew) / truth.tail)
    fit = fit_sinh_arcsinh(column)
    ratio = 2 * (log_likelihood(fit, column) - log_likelihood(truth, column)).sum()
    # 0 <= ratio at the maximum, and below the 1 − 1e-4 quantile of chi-squared of 4.
    assert -1e-3 < ratio < 23.5
    np.testing.assert_allclose([fit.tail, fit.skew], [0.6, 0.8], atol=0.15)


def test_fit_of_a_spike_stays_within_its_bounds():
    column = np.concatenate([np.zeros(700), np.random.default_rng(0).normal(size=300)])
    fit = fit_sinh_arcsinh(column)
    assert fit.scale > 0 and np.isfinite(fit).all()
