"""Persistent chains: they go on where they were, and some are started anew."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import Normal

from tiltflow.data.errors import InputError
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import refresh
from tiltflow.sampling.local import ula
from tiltflow.training.persistent import Persistent

BASE = Normal(jnp.zeros(2), jnp.ones(2))
MODEL = TiltedEBM(BASE, lambda x: jnp.sum(x) / 2)
N = 4000


@eqx.filter_jit
def draw(source, key, shift=0.0):
    """One step from draws of the base, moved by `shift`."""
    state = source.init(key, BASE)
    state = state._replace(position=state.position + shift)
    batch, rate = jnp.zeros((1, 2)), jnp.asarray(1.0)
    _, new, figures = source.draw(key, MODEL, None, state, batch, rate)
    return state, new, figures


def test_by_default_they_are_unadjusted_steps_from_where_the_chains_were(key):
    source = Persistent(chains=16, local_steps=3, step_size=0.1)
    state, new, figures = draw(source, key, shift=5.0)
    chains = refresh(state.position, MODEL.log_density)
    step_size = jnp.asarray(0.1)
    expected = jax.jit(lambda chains: ula(key, chains, MODEL.log_density, step_size, 3))(chains)
    np.testing.assert_array_equal(new.position, expected.position)
    assert float(new.step_size) == pytest.approx(0.1)
    assert not figures


def test_mala_adapts_its_step_size_to_the_acceptance_rate(key):
    source = Persistent(chains=N, local_steps=1, step_size=4.0, kernel="mala")
    _, new, figures = draw(source, key)
    rate = float(figures["local_acceptance_rate"])
    assert rate < 0.3
    expected = np.log(4.0) + 0.1 * (rate - 0.574)
    assert float(jnp.log(new.step_size)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("restart_rate", [0.05, 1.0])
def test_so_many_are_started_anew_from_the_base(key, restart_rate):
    """Chains were moved out to 50; those that are near 0 again are new. Level 4.5."""
    source = Persistent(chains=N, local_steps=1, step_size=1e-6, restart_rate=restart_rate)
    _, new, _ = draw(source, key, shift=50.0)
    anew = np.asarray(new.position[:, 0] < 25)
    spread = (restart_rate * (1 - restart_rate) / N) ** 0.5
    assert abs(anew.mean() - restart_rate) <= 4.5 * spread
    # Whole points are new, and they are draws of the base: mean 0, variance 1.
    np.testing.assert_array_equal(anew, new.position[:, 1] < 25)
    x, n = np.asarray(new.position)[anew], anew.sum()
    assert np.abs(x.mean(0)).max() < 4.5 / n**0.5
    assert np.abs(x.var(0) - 1).max() < 4.5 * (2 / n) ** 0.5


def test_restarted_chains_are_moved_as_well(key):
    """At rate 1 and a step of h under base and tilt: mean -h / 2, variance (1 - h)^2 + 2 h."""
    h = 0.5
    source = Persistent(chains=N, local_steps=1, step_size=h, restart_rate=1.0)
    _, new, _ = draw(source, key, shift=50.0)
    variance = (1 - h) ** 2 + 2 * h
    assert np.abs(new.position.mean(0) + h / 2).max() < 4.5 * (variance / N) ** 0.5
    assert np.abs(new.position.var(0) / variance - 1).max() < 4.5 * (2 / N) ** 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"restart_rate": -0.1}, r"restart_rate: found -0\.1; give a number from 0 to 1"),
        ({"step_size": float("nan")}, "step_size: found nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Persistent(**settings)
