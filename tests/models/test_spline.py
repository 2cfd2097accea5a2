"""The rational-quadratic spline: Durkan et al.'s formula, smooth to its ends, invertible."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.bijections import RationalQuadraticSpline as Reference

from tiltflow.models.spline import MIN_SLOPE, RationalQuadraticSpline

INTERVAL, BINS = 6.0, 8


@functools.cache
def bent(spread, dtype=np.float64):
    """A spline with parameters drawn from N(0, spread^2)."""
    rng = np.random.default_rng(3)
    with jax.enable_x64(dtype == np.float64):
        spline = RationalQuadraticSpline(bins=BINS, interval=INTERVAL)
        return jax.tree.map(lambda p: jnp.asarray(spread * rng.normal(size=p.shape), dtype), spline)


@jax.jit
def forward(spline, x):
    return jax.vmap(spline.transform_and_log_det)(x)


@jax.jit
def backward(spline, y):
    return jax.vmap(spline.inverse_and_log_det)(y)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def points(float64):
    return jnp.linspace(-7.5, 7.5, 1001)


def test_parameters_zero_are_the_identity(points):
    y, log_det = forward(bent(0.0), points)
    np.testing.assert_allclose(y, points, atol=1e-12)
    np.testing.assert_allclose(log_det, 0.0, atol=1e-12)


@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_it_is_increasing_and_inverts_with_the_slope_of_autodiff(points, spread):
    spline = bent(spread)
    y, log_det = forward(spline, points)
    assert (np.diff(y) > 0).all()
    assert np.abs(y - points).max() > 0.1
    slope = jax.vmap(jax.grad(lambda x: spline.transform_and_log_det(x)[0]))(points)
    np.testing.assert_allclose(log_det, np.log(slope), atol=1e-9)
    x, inverse_log_det = backward(spline, y)
    np.testing.assert_allclose(x, points, atol=1e-9)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-7)


def test_the_density_has_no_step_at_the_ends_of_the_interval(float64):
    spline = bent(1.0)
    eps = 1e-9
    ends = jnp.array([-INTERVAL - eps, -INTERVAL + eps, INTERVAL - eps, INTERVAL + eps])
    _, log_det = forward(spline, ends)
    np.testing.assert_allclose(log_det, 0.0, atol=1e-6)


def test_it_is_that_of_flowjax_with_the_same_knots_and_slopes(points):
    spline = bent(1.0)
    widths = MIN_SLOPE + (1 - MIN_SLOPE * BINS) * np.asarray(jax.nn.softmax(spline.widths))
    heights = MIN_SLOPE + (1 - MIN_SLOPE * BINS) * np.asarray(jax.nn.softmax(spline.heights))
    offset = np.log(np.expm1(1 - MIN_SLOPE))
    slopes = np.logaddexp(0, np.asarray(spline.slopes) + offset) + MIN_SLOPE
    reference = object.__new__(Reference)
    fields = {
        "knots": BINS - 1,
        "interval": (-INTERVAL, INTERVAL),
        "x_pos": jnp.asarray(2 * INTERVAL * np.cumsum([0, *widths]) - INTERVAL),
        "y_pos": jnp.asarray(2 * INTERVAL * np.cumsum([0, *heights]) - INTERVAL),
        "derivatives": jnp.asarray([1.0, *slopes, 1.0]),
    }
    for name, value in fields.items():
        object.__setattr__(reference, name, value)
    expected, expected_log_det = jax.vmap(reference.transform_and_log_det)(points)
    y, log_det = forward(spline, points)
    np.testing.assert_allclose(y, expected, atol=1e-9)
    np.testing.assert_allclose(log_det, expected_log_det, atol=1e-7)


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_float32_keeps_five_digits(spread):
    """In x relative to the interval; a steep bin divides an error of y by its slope."""
    x = jnp.linspace(-5.9, 5.9, 1001, dtype=np.float32)
    spline = bent(spread, np.float32)
    y, log_det = forward(spline, x)
    assert y.dtype == np.float32
    back, _ = backward(spline, y)
    flattest = np.minimum(1.0, np.exp(np.asarray(log_det)))
    assert (np.abs(np.asarray(back - x)) * flattest).max() < 2e-5 * INTERVAL


def test_gradients_are_finite_everywhere_also_at_the_knots():
    x = jnp.array([-100.0, -INTERVAL, -1.5, 0.0, INTERVAL, 100.0], jnp.float32)

    @jax.jit
    def gradients(spline):
        def loss(spline, x):
            value, log_det = spline.transform_and_log_det(x)
            inverse, inverse_log_det = spline.inverse_and_log_det(x)
            return value + log_det + inverse + inverse_log_det

        return jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=(None, 0))(spline, x)

    for spread in (0.0, 1.0):
        for leaf in jax.tree.leaves(gradients(bent(spread, np.float32))):
            assert np.isfinite(leaf).all()
