"""Local kernels: BlackJAX step by step, the bias ULA should have, refusals, the step size."""

import functools

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.sampling.chains import refresh
from tiltflow.sampling.local import adapt_step_size, mala, ula

STEP = jnp.asarray(0.5)


def log_density(x):
    """A standard normal without its constant."""
    return -0.5 * jnp.sum(x**2)


run_mala = jax.jit(mala, static_argnums=(2, 4))
run_refresh = jax.jit(refresh, static_argnums=1)
run_ula = jax.jit(ula, static_argnums=(2, 4))


@functools.cache
def start(n):
    position = 1.5 * jax.random.normal(jax.random.key(1), (64, 2))[:n]
    return run_refresh(position, log_density)


def assert_cache_is_fresh(chains):
    np.testing.assert_allclose(chains.log_density, -0.5 * (chains.position**2).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(chains.gradient, -chains.position, rtol=1e-5)


def test_mala_is_that_of_blackjax_step_by_step(key):
    kernel = blackjax.mala(log_density, STEP)
    chains = start(64)
    state = jax.vmap(kernel.init)(chains.position)
    step = jax.jit(jax.vmap(kernel.step))
    rates = []
    for step_key in jax.random.split(key, 3):
        state, info = step(jax.random.split(step_key, 64), state)
        rates.append(info.acceptance_rate.mean())
    moved, rate = run_mala(key, chains, log_density, STEP, 3)
    np.testing.assert_array_equal(moved.position, state.position)
    np.testing.assert_array_equal(moved.log_density, state.logdensity)
    assert float(rate) == pytest.approx(np.mean(rates), rel=1e-6)
    assert 0.2 < float(rate) < 0.99
    assert_cache_is_fresh(moved)


def test_a_chain_moves_alike_in_any_company(key):
    few, _ = run_mala(key, start(32), log_density, STEP, 3)
    many, _ = run_mala(key, start(64), log_density, STEP, 3)
    np.testing.assert_array_equal(few.position, many.position[:32])
    assert len(np.unique(np.asarray(many.position[:, 0]))) > 32


def test_ula_has_the_bias_that_it_should_have(key):
    """On N(0, 1) its stationary variance is 1 / (1 - h / 2) exactly: 4/3 at h = 1/2.

    Variances of n squares have the standard error sqrt(2 / n); level 4.5 of them.
    """
    n, h = 20_000, 0.5
    expected = 1 / (1 - h / 2)
    start_key, run_key = jax.random.split(key)
    position = expected**0.5 * jax.random.normal(start_key, (n, 1))
    chains = run_ula(run_key, run_refresh(position, log_density), log_density, jnp.asarray(h), 10)
    assert_cache_is_fresh(chains)
    z = (float((chains.position**2).mean()) / expected - 1) / (2 / n) ** 0.5
    assert abs(z) < 4.5
    # MALA at the same step has none: it leaves variance 1 alone.
    exact = jax.random.normal(start_key, (n, 1))
    chains, _ = run_mala(run_key, run_refresh(exact, log_density), log_density, jnp.asarray(h), 10)
    assert abs(float((chains.position**2).mean()) - 1) / (2 / n) ** 0.5 < 4.5


@jax.jit
def fenced_moves(key, bad):
    """200 chains near a fence beyond which the log-density is `bad`."""

    def fenced(x):
        return jnp.where(x[0] > 0.5, bad, log_density(x))

    return mala(key, refresh(jnp.full((200, 2), 0.3), fenced), fenced, STEP, 5)


@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
def test_mala_refuses_proposals_that_are_not_finite(key, bad):
    chains, rate = fenced_moves(key, bad)
    assert np.isfinite(chains.log_density).all()
    assert chains.position[:, 0].max() <= 0.5
    assert (chains.position[:, 0] != 0.3).mean() > 0.9
    assert 0 < float(rate) < 0.9


def test_step_size_moves_towards_the_target_acceptance():
    log_step = jnp.asarray(-1.0)
    assert adapt_step_size(log_step, jnp.asarray(0.9)) > log_step
    assert adapt_step_size(log_step, jnp.asarray(0.1)) < log_step
    assert adapt_step_size(log_step, jnp.asarray(0.4), target=0.4) == log_step
    # A rate that is not a number counts as zero: smaller steps, and a finite step size.
    unknown = adapt_step_size(log_step, jnp.asarray(jnp.nan))
    assert unknown == adapt_step_size(log_step, jnp.asarray(0.0))


def test_adapted_step_size_reaches_the_target_acceptance():
    @jax.jit
    def adapt(key):
        def one(carry, key):
            chains, log_step = carry
            chains, rate = mala(key, chains, log_density, jnp.exp(log_step), 1)
            return (chains, adapt_step_size(log_step, rate)), rate

        carry = (start(64), jnp.zeros(()) - 4.0)
        return jax.lax.scan(one, carry, jax.random.split(key, 400))[1]

    rates = adapt(jax.random.key(2))
    assert rates[:10].mean() > 0.95
    assert float(rates[200:].mean()) == pytest.approx(0.574, abs=0.02)
