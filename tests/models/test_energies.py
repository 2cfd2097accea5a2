"""Energies start at zero; the tilted density adds the base and subtracts the energy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flowjax.distributions import StandardNormal

from tiltflow.models.energies import MLPEnergy
from tiltflow.models.tilted import TiltedEBM


def test_mlp_energy_starts_at_zero_and_can_leave_it(key):
    energy = MLPEnergy(3, width=16, depth=3, key=key)
    x = 10 * jax.random.normal(key, (50, 3))

    @eqx.filter_jit
    def look(energy):
        gradient = eqx.filter_grad(lambda energy: jax.vmap(energy)(x).mean())(energy)
        return *jax.vmap(jax.value_and_grad(energy))(x), gradient

    value, force, gradient = look(energy)
    assert (value == 0).all()
    assert (force == 0).all()
    assert np.abs(gradient.network.layers[-1].weight).max() > 0.01


def test_tilted_log_density_is_base_minus_energy():
    model = TiltedEBM(StandardNormal((2,)), lambda x: 3 * x[0] - x[1])
    x = jnp.array([0.5, -2.0])
    expected = scipy.stats.norm.logpdf([0.5, -2.0]).sum() - 3.5
    assert float(model.log_density(x)) == pytest.approx(expected, abs=1e-5)
    # d/dx [-x^2/2 - (3 x_0 - x_1)]
    np.testing.assert_allclose(jax.grad(model.log_density)(x), [-3.5, 3.0], atol=1e-5)


def test_no_precision_is_forced():
    with jax.enable_x64(True):
        energy = MLPEnergy(2, width=4, depth=1, key=jax.random.key(0))
        value = TiltedEBM(StandardNormal((2,)), energy).log_density(jnp.zeros(2))
    assert value.dtype == np.float64
    # Closer to the truth than float32 can be.
    assert float(value) == pytest.approx(-np.log(2 * np.pi), abs=1e-14)
