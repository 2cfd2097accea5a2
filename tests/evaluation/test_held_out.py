"""Held-out likelihoods: known values, and a comparison in which the draws' noise cancels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.folds import FEW_HELD_OUT
from tiltflow.evaluation.held_out import compare_on_held_out
from tiltflow.models.gaussian_mixture import GaussianMixture

BASE = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
FLOW = GaussianMixture(np.ones(1), np.zeros((1, 2)), 1.5 * np.eye(2)[None])
HELD_OUT = jnp.array([[1.0, 0.0], [0.5, 2.0], [-0.5, 1.0]])


def linear(a):
    return jax.tree_util.Partial(_minus_dot, jnp.asarray(a))


def _minus_dot(a, x):
    return -a @ x


def compare(key, candidate, best):
    result = compare_on_held_out(key, BASE, candidate, best, FLOW, HELD_OUT, 20_000)
    return {name: float(value) for name, value in result.items()}


A, B = np.array([0.6, 0.2]), np.array([0.1, 0.5])


def log_likelihood(a):
    """Mean of log N(x; a, I) over the held-out rows."""
    return -0.5 * ((np.asarray(HELD_OUT) - a) ** 2).sum(1).mean() - np.log(2 * np.pi)


def test_values_are_those_of_the_gaussian(key):
    seen = compare(key, linear(A), linear(B))
    error = 4.5 * seen["log_z_stderr"]
    assert 0 < error < 0.05
    assert abs(seen["log_z"] - A @ A / 2) < error
    assert abs(seen["held_out_log_likelihood"] - log_likelihood(A)) < error
    assert seen["base_held_out_log_likelihood"] == pytest.approx(log_likelihood(0 * A), abs=1e-5)
    assert abs(seen["gain"] - (log_likelihood(A) - log_likelihood(B))) < 2 * error
    assert 0.3 < seen["importance_ess"] < 1


def test_gain_is_antisymmetric_and_nothing_gains_over_itself(key):
    forth, back = compare(key, linear(A), linear(B)), compare(key, linear(B), linear(A))
    assert forth["gain"] == pytest.approx(-back["gain"], abs=1e-6)
    assert abs(forth["gain"]) > 0.01
    assert compare(key, linear(A), linear(A))["gain"] == 0


def test_the_same_draws_normalise_both(key):
    """The gain is exactly that of the two likelihoods of one key, so the noise is common.

    Two energies close to each other: the gain's spread over keys is far below that of log Z.
    """
    near = linear(A + 0.01)
    both = [(compare(k, near, linear(A)), compare(k, linear(A), near)) for k in split(key, 8)]
    for one, other in both:
        difference = one["held_out_log_likelihood"] - other["held_out_log_likelihood"]
        assert one["gain"] == pytest.approx(difference, abs=2e-6)
    gains, log_zs = [one["gain"] for one, _ in both], [one["log_z"] for one, _ in both]
    assert np.std(gains) < 0.1 * np.std(log_zs)


def split(key, n):
    return list(jax.random.split(key, n))


def test_an_energy_that_is_not_finite_never_wins(key):
    assert compare(key, linear([np.nan, 0.0]), linear(A))["gain"] == -np.inf
    assert compare(key, linear([np.inf, 0.0]), linear(A))["gain"] == -np.inf


@pytest.mark.parametrize(("rows", "clear"), [(40, False), (4 * FEW_HELD_OUT, True)])
def test_few_rows_do_not_make_a_small_gain_clear(key, rows, clear):
    """A tilt of 0.1 gains 0.005 nats on rows with that mean, with an error of 0.1 / sqrt(rows)."""
    spread = np.random.default_rng(0).normal(size=(rows, 2))
    held_out = jnp.asarray(spread - spread.mean(0) + np.array([0.1, 0.0]))
    tilt = linear(np.array([0.1, 0.0]))
    zero = linear(np.zeros(2))
    seen = compare_on_held_out(key, BASE, tilt, zero, FLOW, held_out, 200_000)
    assert seen["gain"] > 0
    assert bool(seen["clear"]) == clear
    assert not compare_on_held_out(key, BASE, zero, tilt, FLOW, held_out[:40], 20_000)["clear"]
