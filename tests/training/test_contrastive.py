"""Contrastive divergence: chains start at the rows of the batch, whatever came before."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import StandardNormal

from tiltflow.data.errors import InputError
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.contrastive import Contrastive
from tiltflow.training.langevin import check_kernel

BASE = StandardNormal((2,))
MODEL = TiltedEBM(BASE, lambda x: jnp.zeros(()))
ROWS = jnp.asarray([[3.0, 0.0], [0.0, 3.0], [-3.0, 0.0], [0.0, -3.0]])


@eqx.filter_jit
def draw(source, key, batch=ROWS, state=None):
    state = source.init(key, BASE) if state is None else state
    return source.draw(key, MODEL, None, state, batch, jnp.asarray(1.0))


def test_the_chains_start_at_the_rows_and_go_through_them_again(key):
    """At a step of 1e-8 they are still there."""
    negatives, state, _ = draw(Contrastive(chains=6, local_steps=2, step_size=1e-8), key)
    expected = np.concatenate([ROWS, ROWS[:2]])
    np.testing.assert_allclose(negatives.position, expected, atol=2e-3)
    np.testing.assert_array_equal(state.position, negatives.position)
    np.testing.assert_allclose(negatives.weights, np.full(6, 1 / 6), rtol=1e-6)
    # And no more rows than chains.
    few, _, _ = draw(Contrastive(chains=3, local_steps=2, step_size=1e-8), key)
    np.testing.assert_allclose(few.position, ROWS[:3], atol=2e-3)


def test_chains_are_forgotten_from_step_to_step(key):
    """The same key and rows give the same negatives, wherever the last chains ended."""
    source = Contrastive(chains=4, local_steps=3, step_size=0.1)
    first, state, _ = draw(source, key)
    other = state._replace(position=state.position + 100)
    second, _, _ = draw(source, key, state=other)
    np.testing.assert_array_equal(first.position, second.position)


def test_copies_of_one_row_go_different_ways(key):
    negatives, _, _ = draw(Contrastive(chains=8, local_steps=1, step_size=0.1), key)
    assert len(np.unique(np.asarray(negatives.position[:, 0]))) == 8


def test_langevin_steps_drift_as_they_should(key):
    """Under N(0, 1) a step of h takes the mean to (1 - h) of it, the variance to (1 - h)^2 v + 2 h.

    20 000 chains, level 4.5 standard errors.
    """
    h, n = 0.2, 20_000
    source = Contrastive(chains=n, local_steps=2, step_size=h)
    negatives, _, _ = draw(source, key, jnp.asarray([[2.0, 0.0]]))
    variance = 2 * h * (1 + (1 - h) ** 2)
    z = (np.asarray(negatives.position.mean(0)) - [2.0 * (1 - h) ** 2, 0.0]) / (variance / n) ** 0.5
    assert np.abs(z).max() < 4.5
    z = (np.asarray(negatives.position.var(0)) / variance - 1) / (2 / n) ** 0.5
    assert np.abs(z).max() < 4.5


def test_mala_keeps_a_law_that_it_starts_at_and_adapts_its_step(key):
    """Rows of the model itself: the ends have its variance, where unadjusted steps double it.

    20 000 chains, level 4.5 standard errors.
    """
    n = 20_000
    rows = jax.random.normal(jax.random.key(1), (n, 2))
    negatives, state, figures = draw(Contrastive(n, 5, 1.0, "mala"), key, rows)
    z = (np.asarray((negatives.position**2).mean(0)) - 1) / (2 / n) ** 0.5
    assert np.abs(z).max() < 4.5
    rate = float(figures["local_acceptance_rate"])
    assert float(jnp.log(state.step_size)) == pytest.approx(0.1 * (rate - 0.574), abs=1e-5)
    negatives, state, figures = draw(Contrastive(n, 5, 1.0), key, rows)
    assert (np.asarray((negatives.position**2).mean(0)) > 1.5).all()
    assert state.step_size == 1.0
    assert not figures


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_size": 0.0}, r"step_size: found 0\.0"),
        ({"chains": 0}, "chains: found 0"),
        ({"local_steps": -1}, "local_steps: found -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Contrastive(**settings)


def test_a_kernel_that_is_not_known_is_refused():
    with pytest.raises(InputError, match="kernel: 'hmc' is not known; use ula or mala"):
        check_kernel("hmc")
