"""Chain diagnostics: those of ArviZ where it decides, ours where it does not, and honest ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import lfilter

from tiltflow.data.errors import InputError
from tiltflow.evaluation.diagnostics import (
    diagnose_chains,
    effective_sample_size,
    effective_sample_sizes,
    jump_rate,
    pareto_k,
)


def ar1(correlation, draws, chains, seed):
    """Stationary chains x_t = correlation x_{t-1} + noise, noise of variance 1."""
    noise = np.random.default_rng(seed).standard_normal((draws, chains))
    noise[0] /= np.sqrt(1 - correlation**2)
    return lfilter([1.0], [1.0, -correlation], noise, axis=0)


CASES = {
    "mixed": ar1(0.5, 200, 4, 0),
    "odd": ar1(0.9, 501, 3, 1),
    "shifted": ar1(0.5, 200, 4, 2) + np.array([0, 0, 0, 1.0]),
    "wider": ar1(0.5, 200, 4, 3) * np.array([1, 1, 1, 3.0]),
    "rejecting": np.repeat(ar1(0.8, 100, 4, 4), 3, axis=0),
}
# ArviZ 0.23.4 on CASES: rhat, ess(method="bulk"), ess(method="tail"), ess(method="mean").
ARVIZ = {
    "mixed": [1.004688, 278.628358, 545.440398, 278.581483],
    "odd": [1.090617, 51.258253, 73.473113, 51.349497],
    "shifted": [1.053018, 64.955587, 390.998997, 64.750786],
    "wider": [1.114523, 309.431757, 55.782774, 335.282352],
    "rejecting": [1.087853, 32.433318, 80.648159, 33.426756],
}


@pytest.mark.parametrize("x64", [False, True])
def test_they_are_those_of_arviz(x64):
    """R-hat to all digits. ESS to 4 %: ArviZ ends Geyer's sum a pair earlier than BlackJAX."""
    with jax.enable_x64(x64):
        for names in (["mixed", "shifted", "wider"], ["odd"], ["rejecting"]):
            draws = jnp.asarray(np.stack([CASES[name] for name in names], axis=-1))
            found = diagnose_chains(draws)
            rhat, *sizes = np.transpose([ARVIZ[name] for name in names])
            # In float32 some draws are equally far from the median.
            np.testing.assert_allclose(found.rhat, rhat, rtol=1e-6 if x64 else 1e-3)
            means = effective_sample_sizes(draws)
            for ess, expected in zip([found.ess_bulk, found.ess_tail, means], sizes):
                np.testing.assert_allclose(ess, expected, rtol=0.04)


def test_what_says_nothing_does_not_look_converged():
    """A constant, chains that never move, and one number that is none; each beside a good one."""
    good = CASES["mixed"]
    bad = good.copy()
    bad[3, 2] = np.nan
    infinite = good.copy()
    infinite[3, 2] = np.inf
    frozen = np.broadcast_to(good[0], good.shape)
    columns = [good, np.ones_like(good), frozen, bad, infinite]
    found = diagnose_chains(jnp.asarray(np.stack(columns, axis=-1)))
    np.testing.assert_allclose(found.rhat, [ARVIZ["mixed"][0], *[np.inf] * 4], rtol=1e-3)
    assert np.all(np.asarray(found.ess_bulk) > [100, -1, -1, -1, -1])
    np.testing.assert_array_equal(found.ess_bulk[1:], 0)
    np.testing.assert_array_equal(found.ess_tail[1:], 0)


def test_a_chain_in_a_place_of_its_own_is_seen():
    """Where four chains sit in two modes and none of them moves between these."""
    draws = CASES["mixed"] + 20 * np.array([0, 0, 1, 1])
    found = diagnose_chains(jnp.asarray(draws)[:, :, None])
    assert float(found.rhat[0]) > 1.5
    assert float(found.ess_bulk[0]) < 8
    assert float(effective_sample_size(jnp.asarray(draws > 10, float))) == 0


@pytest.mark.parametrize("shape", [(3, 4, 2), (100, 1, 2)])
def test_too_few_draws_or_chains_are_refused(shape):
    with pytest.raises(InputError, match="draws: found"):
        diagnose_chains(jnp.zeros(shape))


def test_constant_values_are_worth_all_draws_and_frozen_chains_none():
    assert float(effective_sample_size(jnp.full((10, 3), 0.1))) == 30
    assert float(effective_sample_size(jnp.broadcast_to(jnp.arange(3.0), (10, 3)))) == 0
    assert float(effective_sample_size(jnp.zeros((10, 3)).at[0, 0].set(jnp.nan))) == 0
    alternating = jnp.tile(jnp.array([0.0, 1.0])[:, None], (10, 3))
    assert float(effective_sample_size(alternating)) == 60


def test_an_offset_does_not_matter():
    values = jnp.asarray(CASES["mixed"], dtype="float32")
    near = effective_sample_size(jnp.round(values, 2))
    far = effective_sample_size(jnp.round(values, 2) + 1e4)
    assert float(far) == pytest.approx(float(near), rel=0.02)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, 0.999])
def test_it_is_honest_for_many_short_chains(correlation):
    """256 chains of 20 draws, 200 times: z-scores of the mean have variance 1.

    The variance of chi-squared with 200 degrees of freedom over 200, within 4 of its standard
    deviations 0.1. The mutant takes all draws for independent.
    """
    values = ar1(correlation, 20, 200 * 256, seed=11).reshape(20, 200, 256).swapaxes(0, 1)
    values = values * np.sqrt(1 - correlation**2)
    ess = effective_sample_sizes(np.moveaxis(values, 0, -1))
    squared = values.mean(axis=(1, 2)) ** 2 / values.var(axis=(1, 2))
    assert abs((squared * np.asarray(ess)).mean() - 1) < 0.4
    if correlation > 0:
        assert (squared * 20 * 256).mean() - 1 > 0.8


def test_pareto_k_is_that_of_arviz():
    """Of log-normal weights; the number is ArviZ 0.23.4's `psislw`."""
    log_weights = 2 * np.random.default_rng(5).standard_normal(10_000)
    assert float(pareto_k(jnp.asarray(log_weights))) == pytest.approx(0.7093113645387655, rel=1e-4)


@pytest.mark.parametrize("shape", [0.3, 1.0])
def test_pareto_k_of_pareto_weights(shape):
    """u^-k has the shape k; within 4 standard errors (1 + k) / sqrt(tail)."""
    draws = np.random.default_rng(6).uniform(size=40_000)
    found = float(pareto_k(jnp.asarray(-shape * np.log(draws))))
    assert abs(found - shape) < 4 * (1 + shape) / np.sqrt(600)


def test_pareto_k_where_there_is_no_tail():
    assert float(pareto_k(jnp.zeros(1000))) == 0
    rounding = 1e-7 * np.random.default_rng(7).integers(0, 4, 1000)
    assert float(pareto_k(jnp.asarray(rounding, dtype="float32"))) == 0
    assert float(pareto_k(jnp.arange(24.0))) == np.inf
    assert float(pareto_k(jnp.full(100, jnp.nan))) == np.inf
    assert float(pareto_k(jnp.full(1000, -jnp.inf).at[:3].set(0.0))) == np.inf
    few = jnp.asarray(np.random.default_rng(8).standard_normal(1000))
    spoiled = few.at[:3].set(jnp.array([jnp.nan, jnp.inf, -jnp.inf]))
    assert float(pareto_k(spoiled)) == float(pareto_k(few.at[:3].set(-jnp.inf)))


def test_jumps_by_hand():
    assert float(jump_rate(np.array([[0, 1], [0, 2], [1, 2]]))) == 0.5
    assert float(jump_rate(np.zeros((5, 2), int))) == 0
