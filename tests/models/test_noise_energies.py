"""Energies of many noise levels: zero at the start, level 0 when called, levels apart later."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.models.energies import Energy
from tiltflow.models.noise_energies import NoiseEnergy, NoiseMLPEnergy

X = jnp.asarray(np.random.default_rng(0).normal(size=(20, 3)))
LEVELS = jnp.arange(5)


@eqx.filter_jit
def look(energy):
    """All energies by level, and those without one."""
    by_level = jax.vmap(lambda level: jax.vmap(lambda x: energy.at(x, level))(X))(LEVELS)
    return by_level, jax.vmap(energy)(X)


def test_it_starts_at_zero_at_every_level(key):
    energy = NoiseMLPEnergy(3, levels=5, width=8, depth=2, key=key)
    assert isinstance(energy, NoiseEnergy)
    assert isinstance(energy, Energy)
    assert energy.levels == 5
    by_level, called = look(energy)
    assert (by_level == 0).all()
    assert (called == 0).all()


def test_called_it_is_the_first_level_and_the_levels_differ(key):
    energy = NoiseMLPEnergy(3, levels=5, width=8, depth=2, key=key)
    weight = jnp.asarray(np.random.default_rng(1).normal(size=(1, 8)))
    energy = eqx.tree_at(lambda it: it.network.layers[-1].weight, energy, weight)
    by_level, called = look(energy)
    np.testing.assert_allclose(called, by_level[0], rtol=1e-6)
    # Not by a constant: the level changes the shape.
    assert (np.diff(by_level, axis=0).std(axis=1) > 1e-3).all()
    lifted = eqx.tree_at(lambda it: it.offsets, energy, jnp.arange(1.0, 6.0))
    change = look(lifted)[0] - by_level
    np.testing.assert_allclose(change, np.arange(1.0, 6.0)[:, None] + np.zeros(20), atol=1e-5)


def test_no_precision_is_forced():
    with jax.enable_x64(True):
        energy = NoiseMLPEnergy(2, levels=3, width=4, depth=1, key=jax.random.key(0))
        assert energy.at(jnp.ones(2), jnp.asarray(1)).dtype == np.float64


def test_one_level_is_refused(key):
    with pytest.raises(InputError, match="levels: found 1"):
        NoiseMLPEnergy(2, levels=1, key=key)
