"""Multiscale flows of images: permutations, round trip, and density by the whole Jacobian."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.pixel_logit import PixelLogit
from tiltflow.models.batch_likelihood import batch_likelihood
from tiltflow.models.convolution import Squeeze
from tiltflow.models.convolutional_field import ConvolutionalField
from tiltflow.models.flows import trainable
from tiltflow.models.integration import Integration
from tiltflow.models.leading import Leading
from tiltflow.models.multiscale import halving_order, multiscale_flow, squeeze_order

STEPS = Integration(steps=3)


def perturbed(tree, spread=0.2):
    rng = np.random.default_rng(0)
    parameters, static = trainable(tree)
    return eqx.combine(
        jax.tree.map(lambda p: p + spread * jnp.asarray(rng.normal(size=p.shape)), parameters),
        static,
    )


def images(side, n):
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.integers(20, 236, (n, side * side)) + rng.random((n, 1)) - 0.5)


def new_flow(side, scales=2):
    return multiscale_flow(
        jax.random.key(0), (side, side, 1), scales=scales, channels=(3,), integration=STEPS
    )


def test_squeezing_is_the_layer_of_that_name_and_halving_takes_channels():
    x = jnp.arange(4 * 6 * 2.0)
    np.testing.assert_array_equal(x[squeeze_order((4, 6, 2))], Squeeze((4, 6, 2)).transform(x))
    image = np.arange(2 * 2 * 4).reshape(2, 2, 4)
    order = halving_order((2, 2, 4))
    np.testing.assert_array_equal(order[:8], image[..., :2].ravel())
    np.testing.assert_array_equal(order[8:], image[..., 2:].ravel())


def test_a_new_flow_is_the_logit_alone_in_some_order():
    x = images(4, 2)
    inverses = eqx.filter_jit(lambda flow, x: jax.vmap(flow.bijection.inverse)(x))
    z = inverses(new_flow(4), x)
    expected = jax.vmap(PixelLogit(16, margin=0.05).transform)(x)
    np.testing.assert_allclose(np.sort(z), np.sort(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("side", "scales"), [(8, 2)])
def test_images_come_back(side, scales):
    flow, x = perturbed(new_flow(side, scales)), images(side, 2)

    @eqx.filter_jit
    def there_and_back(flow, x):
        z, log_det = flow.bijection.inverse_and_log_det(x)
        back, other = flow.bijection.transform_and_log_det(z)
        return z, back, log_det, other

    z, back, log_det, other = there_and_back(flow, x[0])
    assert jnp.isfinite(z).all()
    np.testing.assert_allclose(back, x[0], atol=0.1)
    np.testing.assert_allclose(log_det, -other, rtol=1e-4, atol=1e-2)


def test_the_density_is_that_of_the_whole_jacobian():
    """At 4 x 4 in float64, columns by central differences; the field moves every scale."""
    with jax.enable_x64(True):
        rows, step = images(4, 2), 1e-3
        offsets = step * jnp.eye(16)

        @eqx.filter_jit
        def look(flow, x, key):
            inverse = jax.vmap(flow.bijection.inverse)
            points = inverse(jnp.concatenate([x[:1], x[0] + offsets, x[0] - offsets]))
            exact = batch_likelihood(flow, x).log_prob
            noisy = batch_likelihood(flow, x, key, trace="rademacher").log_prob
            return points, flow.log_prob(x[0]), exact, noisy

        flow = perturbed(new_flow(4), 0.3)
        points, alone, exact, noisy = look(flow, rows, jax.random.key(0))
        jacobian = (points[1:17] - points[17:]) / (2 * step)
        expected = flow.base_dist.log_prob(points[0]) + jnp.linalg.slogdet(jacobian)[1]
        np.testing.assert_allclose(alone, expected, atol=2e-3)
        # One solve for the batch gives the same, and noise does not.
        np.testing.assert_allclose(exact[0], alone, atol=1e-4)
        assert jnp.abs(noisy - exact).max() > 1e-3
        z, log_det = PixelLogit(16, margin=0.05).transform_and_log_det(rows[0])
        assert abs(float(alone - flow.base_dist.log_prob(z) - log_det)) > 0.1


def test_the_field_is_told_the_time_and_starts_at_zero():
    field = ConvolutionalField((4, 4, 2), (3,), key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (32,))
    assert not field(jnp.asarray(0.3), x).any()
    moved = perturbed(field)
    now, later = (moved(jnp.asarray(t), x) for t in (0.0, 1.0))
    assert now.shape == (32,) and jnp.abs(now - later).max() > 1e-3
    hidden = moved.enter(jnp.asarray(1.0), x)
    assert hidden.shape == (moved.width,)
    np.testing.assert_allclose(moved.leave(jnp.asarray(1.0), hidden), later, rtol=1e-5)


def test_what_cannot_be_halved_is_refused():
    with pytest.raises(InputError, match="scales: found 3 for images of 6 x 6"):
        new_flow(6, scales=3)
    with pytest.raises(InputError, match="channels"):
        ConvolutionalField((4, 4, 1), (), key=jax.random.key(0))
    with pytest.raises(InputError, match="bijection"):
        Leading(PixelLogit(5), 4)
