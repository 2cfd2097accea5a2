"""Inpainting and denoising of a correlated Gaussian, whose conditionals are known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.sampling import langevin_inpainting
from tiltflow.sampling.langevin_inpainting import denoise, inpaint

N, D = 2000, 6
RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=D)
FACTOR = 0.8 * np.eye(D) + 0.35 * RNG.normal(size=(D, D))
COVARIANCE = FACTOR @ FACTOR.T
KNOWN = np.array([True, False, False, True, False, False])
VALUE = MEAN + np.array([1.0, 0, 0, -1.5, 0, 0])
LONG = {"steps": 1000, "signal_to_noise": 0.2}


class Gaussian(eqx.Module):
    mean: jax.Array
    precision: jax.Array

    def log_density(self, x):
        return -0.5 * (x - self.mean) @ self.precision @ (x - self.mean)


MODEL = Gaussian(jnp.asarray(MEAN), jnp.asarray(np.linalg.inv(COVARIANCE)))


def inpainted(key, rows=VALUE, **options):
    known = np.tile(KNOWN, (N, 1))
    return np.asarray(inpaint(key, MODEL.log_density, np.tile(rows, (N, 1)), known, **options))


def conditional():
    """Of the unknown coordinates given the known ones."""
    cross = COVARIANCE[np.ix_(~KNOWN, KNOWN)] @ np.linalg.inv(COVARIANCE[np.ix_(KNOWN, KNOWN)])
    mean = MEAN[~KNOWN] + cross @ (VALUE - MEAN)[KNOWN]
    return mean, COVARIANCE[np.ix_(~KNOWN, ~KNOWN)] - cross @ COVARIANCE[np.ix_(KNOWN, ~KNOWN)]


def agree(draws, mean, covariance):
    """Means within 4.5 standard errors, deviations within 6 % (bias and all)."""
    error = np.sqrt(np.diag(covariance) / len(draws))
    z = np.abs(draws.mean(0) - mean) / error
    ratio = draws.std(0) / np.sqrt(np.diag(covariance))
    return z.max() < 4.5 and np.abs(ratio - 1).max() < 0.06


def test_unknown_coordinates_come_from_their_conditional(key):
    rows = np.where(KNOWN, VALUE, np.nan)
    draws = inpainted(key, rows, **LONG)
    np.testing.assert_array_equal(draws[:, KNOWN], np.tile(VALUE[KNOWN], (N, 1)).astype(np.float32))
    mean, covariance = conditional()
    assert agree(draws[:, ~KNOWN], mean, covariance)
    # What the same test refuses: the marginal, and a variance off by the two of sqrt(2 h).
    assert not agree(draws[:, ~KNOWN], MEAN[~KNOWN], COVARIANCE[np.ix_(~KNOWN, ~KNOWN)])
    assert not agree(draws[:, ~KNOWN], mean, covariance / 2)
    correlation = np.corrcoef(draws[:, ~KNOWN].T)
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(correlation, covariance / np.outer(scale, scale), atol=0.1)


def test_steps_that_follow_the_score_of_the_moment_are_caught(key, monkeypatch):
    """Hardly any memory: where the score is near zero the step is huge."""
    jax.clear_caches()
    monkeypatch.setattr(langevin_inpainting, "DECAY", 1e9)
    draws = inpainted(key, **LONG)
    mean, covariance = conditional()
    assert not agree(draws[:, ~KNOWN], mean, covariance)
    jax.clear_caches()


def test_denoised_rows_come_from_the_posterior(key):
    noisy = MEAN + np.array([1.0, -1.0, 2.0, 0.0, -2.0, 1.0])
    draws = np.asarray(denoise(key, MODEL.log_density, np.tile(noisy, (N, 1)), 0.7, **LONG))
    precision = np.linalg.inv(COVARIANCE)
    covariance = np.linalg.inv(precision + np.eye(D) / 0.7**2)
    mean = covariance @ (precision @ MEAN + noisy / 0.7**2)
    assert agree(draws, mean, covariance)
    assert not agree(draws, MEAN, covariance)


def test_the_last_step_has_no_noise(key):
    """Of one step, that is all: the score times m / |s|^2, over a hundred."""
    noisy = np.tile(MEAN + 1.0, (3, 1))
    out = np.asarray(denoise(key, MODEL.log_density, noisy, 1.0, steps=1))
    score = -np.linalg.inv(COVARIANCE) @ np.ones(D)
    expected = noisy[0] + 0.1**2 * D / (score @ score) * score
    np.testing.assert_allclose(out, np.tile(expected, (3, 1)), rtol=1e-5)


def test_another_model_of_one_structure_is_not_compiled_anew(key):
    traces = []

    class Counted(Gaussian):
        def log_density(self, x):
            traces.append(1)
            return super().log_density(x)

    for shift in (0.0, 1.0):
        model = Counted(MODEL.mean + shift, MODEL.precision)
        denoise(key, model.log_density, np.zeros((2, D)), 1.0, steps=3, signal_to_noise=0.1 + shift)
        if shift == 0:
            first = len(traces)
    assert len(traces) == first > 0


def test_bad_input_is_refused(key):
    rows, known = np.zeros((2, D)), np.tile(KNOWN, (2, 1))
    with pytest.raises(InputError, match="row 2 has nothing unknown"):
        inpaint(key, MODEL.log_density, rows, np.array([KNOWN, np.ones(D, bool)]))
    rows[0, 0] = np.inf
    with pytest.raises(InputError, match="row 1 has a known coordinate that is not finite"):
        inpaint(key, MODEL.log_density, rows, known)
    with pytest.raises(InputError, match="inpaint such rows"):
        denoise(key, MODEL.log_density, rows, 1.0)
    with pytest.raises(InputError, match="noise_scale"):
        denoise(key, MODEL.log_density, np.zeros((2, D)), 0.0)
    for options, name in (({"steps": 0}, "steps"), ({"signal_to_noise": 0.0}, "signal_to_noise")):
        with pytest.raises(InputError, match=name):
            inpaint(key, MODEL.log_density, np.zeros((2, D)), known, **options)
