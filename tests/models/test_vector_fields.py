"""Vector fields: the formula, the two halves, zero at first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.models.vector_fields import ConcatSquash, ConcatSquashField, MLPField, VectorField

FIELDS = [ConcatSquashField, MLPField]


def perturbed(field, spread=0.5):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda p: p + spread * jnp.asarray(rng.normal(size=p.shape), p.dtype), field
    )


def test_a_layer_is_the_formula(key):
    layer = ConcatSquash(3, 2, key=key)
    x, t = np.array([0.3, -1.0, 2.0]), 0.7
    gate = 1 / (1 + np.exp(-(np.asarray(layer.gate_slope) * t + layer.gate_bias)))
    expected = (layer.linear.weight @ x + layer.linear.bias) * gate + layer.drift * t
    np.testing.assert_allclose(layer(jnp.asarray(t), jnp.asarray(x)), expected, rtol=1e-5)


@pytest.mark.parametrize("make", FIELDS)
def test_a_new_field_is_zero_and_learns(make, key):
    field = make(2, (5, 7), key=key)
    assert isinstance(field, VectorField)
    x, t = jnp.array([0.3, -1.0]), jnp.asarray(0.2)
    np.testing.assert_array_equal(field(t, x), 0.0)
    gradient = jax.grad(lambda field: field(t, x).sum())(field)
    last = jax.tree.leaves(gradient.layers[-1])[0]
    assert jnp.abs(last).max() > 0


@pytest.mark.parametrize("make", FIELDS)
def test_a_field_is_its_halves_and_depends_on_time(make, key):
    field = perturbed(make(3, (4, 6), key=key))
    x, t = jnp.array([0.3, -1.0, 2.0]), jnp.asarray(0.2)
    hidden = field.enter(t, x)
    assert hidden.shape == (field.width,) == (4,)
    np.testing.assert_array_equal(field.leave(t, hidden), field(t, x))
    assert jnp.abs(field(t, x) - field(t + 1, x)).max() > 0.01


@pytest.mark.parametrize("make", FIELDS)
@pytest.mark.parametrize("widths", [(), (4, 0)])
def test_a_field_without_hidden_units_is_refused(make, widths, key):
    with pytest.raises(InputError, match="widths"):
        make(2, widths, key=key)
