"""Dual averaging: BlackJAX's numbers; the target acceptance, from steps much too large or small."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.adaptation.step_size import dual_averaging_adaptation

from tiltflow.sampling import adaptation
from tiltflow.sampling.chains import refresh
from tiltflow.sampling.kernels import local_moves, target_acceptance


def log_density(x):
    return -0.5 * jnp.sum(x**2)


@functools.partial(jax.jit, static_argnums=0)
def adapt(kind, key, first):
    """200 moves of 64 chains, their step sizes and rates, and then 40 with the final one."""
    start_key, warm_key, run_key = jax.random.split(key, 3)
    chains = refresh(jax.random.normal(start_key, (64, 5)), log_density)

    def sweep(carry, key):
        chains, state = carry
        chains, info = local_moves(
            kind, key, chains, log_density, adaptation.current(state), 1, integration_steps=3
        )
        rate = info.acceptance_rate
        return (chains, adaptation.update(state, rate, target_acceptance(kind))), rate

    carry = (chains, adaptation.init(first))
    (chains, state), rates = jax.lax.scan(sweep, carry, jax.random.split(warm_key, 200))
    step_size = adaptation.final(state)
    _, info = local_moves(kind, run_key, chains, log_density, step_size, 40, integration_steps=3)
    return rates, step_size, info.acceptance_rate


@pytest.mark.parametrize("kind", ["mala", "hmc", "barker"])
def test_the_final_step_size_has_the_target_acceptance(key, kind):
    sizes = []
    for first in (1e-4, 100.0):
        rates, step_size, rate = adapt(kind, key, jnp.asarray(first))
        assert np.isfinite(rates).all()
        assert float(rate) == pytest.approx(target_acceptance(kind), abs=0.05)
        sizes.append(float(step_size))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_the_numbers_are_those_of_blackjax():
    init, update, final = dual_averaging_adaptation(0.574)
    theirs, ours = init(0.3), adaptation.init(jnp.asarray(0.3))
    for rate in (0.1, 0.9, 0.5):
        theirs = update(theirs, rate)
        ours = adaptation.update(ours, jnp.asarray(rate), 0.574)
        assert float(adaptation.current(ours)) == pytest.approx(float(jnp.exp(theirs[0])), rel=1e-6)
    assert float(adaptation.final(ours)) == pytest.approx(float(final(theirs)), rel=1e-6)


def test_without_an_update_the_step_size_stays():
    state = adaptation.init(jnp.asarray(0.3))
    assert float(adaptation.final(state)) == pytest.approx(0.3)
    assert float(adaptation.current(state)) == pytest.approx(0.3)


def test_rates_of_chains_are_averaged_and_what_is_no_number_counts_as_zero():
    state = adaptation.init(jnp.asarray(0.3))
    of_chains = adaptation.update(state, jnp.asarray([0.2, 0.8, jnp.nan]), 0.5)
    mean = adaptation.update(state, jnp.asarray(1 / 3), 0.5)
    assert float(of_chains.log_step_size) == pytest.approx(float(mean.log_step_size), rel=1e-6)
