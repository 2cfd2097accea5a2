"""Local kernels: what goes in and comes out, what it costs, refusals, learned coordinates."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.sampling.chains import Chains, refresh
from tiltflow.sampling.kernels import (
    Preconditioner,
    learn_preconditioner,
    local_moves,
    target_acceptance,
)
from tiltflow.sampling.local import mala

STEP = {"mala": 0.2, "barker": 0.7, "hmc": 0.3, "nuts": 0.4, "mclmc": 0.5}
KINDS = list(STEP)
DENSE = Preconditioner(jnp.asarray([[0.9, 0.0], [0.3, 0.5]]))
DIAGONAL = Preconditioner(jnp.asarray([1.2, 0.6]))

run_refresh = jax.jit(refresh, static_argnums=1)
learn = jax.jit(learn_preconditioner, static_argnums=1)


def log_density(x):
    """A normal of variances 1 and 4 without its constant."""
    return -0.5 * (x[0] ** 2 + x[1] ** 2 / 4)


@eqx.filter_jit
def moves(kind, key, chains, step_size, preconditioner=None, steps=3):
    return local_moves(
        kind,
        key,
        chains,
        log_density,
        jnp.asarray(step_size),
        steps,
        preconditioner=preconditioner,
        integration_steps=4,
    )


def start(n):
    return run_refresh(1.5 * jax.random.normal(jax.random.key(1), (64, 2))[:n], log_density)


@pytest.mark.parametrize("preconditioner", [None, DIAGONAL, DENSE])
def test_the_cache_is_fresh_and_who_stays_keeps_every_bit(key, preconditioner):
    before = start(64)
    after, info = moves("barker", key, before, 3.0, preconditioner, 1)
    fresh = run_refresh(after.position, log_density)
    np.testing.assert_allclose(after.log_density, fresh.log_density, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.gradient, fresh.gradient, rtol=1e-5, atol=1e-6)
    stayed = np.asarray((before.position == after.position).all(1))
    assert 0 < stayed.mean() < 1
    for new, old in zip(after, before):
        np.testing.assert_array_equal(new[stayed], old[stayed])
    assert 0 < float(info.acceptance_rate) < 1
    assert info.gradients == 1


def test_mala_is_that_of_training(key):
    """One leapfrog step of length sqrt(2 h), by other random numbers: same rate, same distance."""
    before = run_refresh(1.5 * jax.random.normal(jax.random.key(1), (8192, 2)), log_density)
    ours, info = moves("mala", key, before, 0.5, None, 1)
    theirs, rate = jax.jit(mala, static_argnums=(2, 4))(
        key, before, log_density, jnp.asarray(0.5), 1
    )
    assert float(info.acceptance_rate) == pytest.approx(float(rate), abs=4.5 * 0.3 / 8192**0.5)
    distance, expected = (
        np.asarray(jnp.sum((each.position - before.position) ** 2, axis=1))
        for each in (ours, theirs)
    )
    error = np.hypot(distance.std(), expected.std()) / 8192**0.5
    assert abs(distance.mean() - expected.mean()) < 4.5 * error


def test_a_chain_moves_alike_in_any_company(key):
    few, *_ = moves("mala", key, start(32), 0.5, DENSE)
    many, *_ = moves("mala", key, start(64), 0.5, DENSE)
    np.testing.assert_allclose(few.position, many.position[:32], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_counted(key, kind):
    """By the calls that really happen, of one chain; entering and leaving costs none."""
    calls = []

    def counted(x):
        jax.debug.callback(lambda: calls.append(1))
        return log_density(x)

    @jax.jit
    def run(chains):
        moves = local_moves(kind, key, chains, counted, jnp.asarray(0.4), 2, integration_steps=3)
        return moves[1].gradients

    gradients = run(start(1))
    jax.effects_barrier()
    assert gradients == len(calls)


@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_proposals_that_are_not_finite_are_refused(key, kind, bad):
    after, info = fenced_moves(kind, key, jnp.asarray(bad))
    assert np.isfinite(after.log_density).all()
    assert after.position[:, 0].max() <= 0.5
    assert (after.position[:, 0] != 0.3).mean() > 0.5
    assert 0 < float(info.acceptance_rate) < 1
    # nan and +inf are counted, and no density is not.
    assert (float(info.nan_share) > 0.05) == (bad != -np.inf)


@eqx.filter_jit
def fenced_moves(kind, key, bad):
    """200 chains near a fence beyond which the log-density is `bad`."""

    def fenced(x):
        return jnp.where(x[0] > 0.5, bad, log_density(x))

    chains = refresh(jnp.full((200, 2), 0.3), fenced)
    after, info = local_moves(
        kind, key, chains, fenced, jnp.asarray(STEP[kind]), 3, integration_steps=3
    )
    return after, info


def test_microcanonical_moves_need_two_dimensions(key):
    chains = Chains(jnp.zeros((4, 1)), jnp.zeros(4), jnp.zeros((4, 1)))
    with pytest.raises(InputError, match="kind: mclmc"):
        local_moves("mclmc", key, chains, lambda x: -(x[0] ** 2), jnp.asarray(0.1), 1)


def test_every_kernel_has_a_target_acceptance():
    assert [target_acceptance(kind) for kind in KINDS] == [0.574, 0.4, 0.651, 0.8, 0.9]


def covariance_of(preconditioner):
    scale = np.asarray(preconditioner.scale, float)
    return np.diag(scale**2) if scale.ndim == 1 else scale @ scale.T


def test_the_preconditioner_is_the_covariance_of_the_chains(key):
    x = jax.random.normal(key, (2000, 2)) @ DENSE.scale
    expected = np.cov(np.asarray(x, float), rowvar=False, bias=True)
    dense = learn(x, "dense")
    np.testing.assert_allclose(covariance_of(dense), expected, rtol=1e-3)
    diagonal = learn(x, "diagonal")
    np.testing.assert_allclose(covariance_of(diagonal), np.diag(np.diag(expected)), rtol=1e-4)
    assert dense.scale[0, 1] == 0


def test_labels_take_out_what_separates_the_modes(key):
    within = jax.random.normal(key, (3000, 2)) * jnp.asarray([1.0, 0.1])
    labels = jnp.arange(3000) % 3
    position = within + 50.0 * labels[:, None]
    learned = learn(position, "dense", labels)
    np.testing.assert_allclose(np.diag(covariance_of(learned)), [1.0, 0.01], rtol=0.1)


@pytest.mark.parametrize("kind", ["diagonal", "dense"])
def test_a_preconditioner_exists_for_whatever_chains(key, kind):
    """Fewer chains than dimensions, equal columns, a column that stands still, a lost chain."""
    x = jax.random.normal(key, (6, 10)) * jnp.logspace(-8, 8, 10)
    x = x.at[:, 1].set(x[:, 0]).at[:, 2].set(7.0).at[3].set(jnp.nan)
    scale = learn(x, kind).scale
    assert np.isfinite(scale).all()
    assert (np.diag(np.atleast_2d(scale)) > 0).all() if kind == "dense" else (scale > 0).all()
    nothing = learn(jnp.zeros((4, 2)), kind).scale
    np.testing.assert_allclose(nothing, np.ones(2) if kind == "diagonal" else np.eye(2), rtol=1e-5)


def test_coordinates_make_narrow_targets_easy(key):
    """Correlation .99: in the learned coordinates MALA accepts as if the target were round."""
    factor = np.array([[1.0, 0.0], [0.99, (1 - 0.99**2) ** 0.5]])
    precision = jnp.asarray(np.linalg.inv(factor @ factor.T))

    def narrow(x):
        return -0.5 * x @ precision @ x

    @jax.jit
    def rates(key):
        chains = refresh(jax.random.normal(key, (500, 2)) @ factor.T, narrow)
        learned = learn_preconditioner(chains.position, "dense")
        return [
            local_moves("mala", key, chains, narrow, jnp.asarray(0.5), 3, preconditioner=each)[
                1
            ].acceptance_rate
            for each in (None, learned)
        ]

    plain, preconditioned = rates(key)
    assert plain < 0.2
    assert preconditioned > 0.8
