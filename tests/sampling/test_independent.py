"""Independent Metropolis-Hastings: the ratio by hand, weights that are not finite, noisy flows."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import AbstractDistribution

from tiltflow.data.errors import InputError
from tiltflow.models.flows import coupling_flow, trainable
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.sampling.chains import Chains
from tiltflow.sampling.independent import (
    Proposals,
    acceptance_weights,
    check_proposal_is_deterministic,
    independent_metropolis_hastings,
)

move = jax.jit(independent_metropolis_hastings)


def chains_at(position, log_density):
    position = np.full((len(log_density), 2), position)
    return jax.tree.map(
        lambda x: jnp.asarray(x, float), Chains(position, np.array(log_density), 10 * position)
    )


def offer(key, log_density, log_q, new_log_density, new_log_q):
    old, new = chains_at(0.0, log_density), chains_at(1.0, new_log_density)
    proposals = Proposals(new, jnp.asarray(new_log_q, float))
    return move(key, old, jnp.asarray(log_q, float), proposals)


def test_acceptance_is_the_ratio_of_weights(key):
    """Log w goes from 1 to 0, so 1/e is accepted: binomial, 4.5 standard errors."""
    n = 4000
    moved, accepted, rate = offer(key, [3.0] * n, [2.0] * n, [-1.0] * n, [-1.0] * n)
    probability = np.exp(-1)
    assert float(rate) == pytest.approx(probability, rel=1e-5)
    error = float(accepted.mean()) - probability
    assert abs(error) < 4.5 * (probability * (1 - probability) / n) ** 0.5
    # Position, log-density and gradient move together or not at all.
    np.testing.assert_array_equal(moved.position[:, 0], accepted)
    np.testing.assert_array_equal(moved.gradient[:, 0], 10 * accepted)
    np.testing.assert_array_equal(moved.log_density, np.where(accepted, -1, 3))


def test_a_better_weight_is_always_accepted(key):
    _, accepted, rate = offer(key, [0.0] * 50, [0.0] * 50, [-100.0] * 50, [-101.0] * 50)
    assert accepted.all()
    assert rate == 1


BAD = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize(
    ("new_log_density", "new_log_q"), [(bad, 0.0) for bad in BAD] + [(0.0, bad) for bad in BAD]
)
def test_a_proposal_whose_weight_is_not_finite_is_refused(key, new_log_density, new_log_q):
    # The chain is at a weight of 1e-40, where anything else would be taken.
    args = [[-92.0] * 20, [0.0] * 20, [new_log_density] * 20, [new_log_q] * 20]
    moved, accepted, rate = offer(key, *args)
    assert not accepted.any()
    assert rate == 0
    assert (moved.position == 0).all()


@pytest.mark.parametrize(
    ("log_density", "log_q"), [(bad, 0.0) for bad in BAD] + [(0.0, bad) for bad in BAD]
)
def test_a_chain_whose_own_weight_is_not_finite_does_not_freeze(key, log_density, log_q):
    """flowjax turns a NaN log q into -inf: taken as it is, no proposal could ever beat it."""
    _, accepted, _ = offer(key, [log_density] * 20, [log_q] * 20, [-50.0] * 20, [0.0] * 20)
    assert accepted.all()


def test_a_chain_decides_alike_in_any_company(key):
    few = offer(key, [0.0] * 32, [0.0] * 32, [-0.7] * 32, [0.0] * 32)[1]
    many = offer(key, [0.0] * 64, [0.0] * 64, [-0.7] * 64, [0.0] * 64)[1]
    np.testing.assert_array_equal(few, many[:32])
    assert 0 < few.sum() < 32


def by_hand(current, proposed):
    a = np.minimum(1, np.exp(np.subtract(proposed, np.asarray(current)[:, None])))
    n = len(current)
    return (1 - a.mean(1)) / n, a.mean(0) / n


def test_acceptance_weights_are_the_mean_over_all_pairs(key):
    current, proposed = jax.random.normal(key, (2, 40))
    stay, go = jax.jit(acceptance_weights)(current, proposed)
    expected = by_hand(current, proposed)
    np.testing.assert_allclose(stay, expected[0], atol=1e-7)
    np.testing.assert_allclose(go, expected[1], atol=1e-7)
    assert float(stay.sum() + go.sum()) == pytest.approx(1, abs=1e-6)


def test_acceptance_weights_take_numbers_far_beyond_the_range_of_exp():
    stay, go = acceptance_weights(jnp.array([-3000.0, 2000.0]), jnp.array([1000.0, -1000.0]))
    np.testing.assert_allclose(stay, [0, 0.5])
    np.testing.assert_allclose(go, [0.25, 0.25])


@pytest.mark.parametrize("bad", BAD)
def test_acceptance_weights_of_what_is_not_finite(bad):
    """A bad proposal gets nothing; a bad chain keeps no more than the bad proposals leave it."""
    stay, go = acceptance_weights(jnp.array([bad, 0.0]), jnp.array([0.0, bad]))
    np.testing.assert_allclose(stay, [0.25, 0.25])
    np.testing.assert_allclose(go, [0.5, 0])


def test_weighted_chains_and_proposals_have_the_expectation_of_the_target():
    """Chains exact for N(0, 1), proposals from N(1, 1.5^2): 4000 batches, 4.5 standard errors.

    Weights swapped between the two sets, or those of importance sampling at so few points, are
    caught at the same level.
    """

    def batch(key):
        x_key, y_key = jax.random.split(key)
        x = jax.random.normal(x_key, (6,))
        y = 1 + 1.5 * jax.random.normal(y_key, (6,))
        log_w = [-0.5 * z**2 + 0.5 * ((z - 1) / 1.5) ** 2 for z in (x, y)]
        stay, go = acceptance_weights(*log_w)
        snis = jax.nn.softmax(log_w[1])
        values = [(stay @ f(x) + go @ f(y)) for f in (jnp.asarray, jnp.square)]
        swapped = [(go @ f(x) + stay @ f(y)) for f in (jnp.asarray, jnp.square)]
        return jnp.array([*values, *swapped, snis @ y, snis @ y**2])

    keys = jax.random.split(jax.random.key(3), 4000)
    values = np.asarray(jax.jit(jax.vmap(batch))(keys), float)
    errors = values.mean(0) - np.array([0, 1] * 3)
    z = np.abs(errors) / (values.std(0) / len(keys) ** 0.5)
    assert z[:2].max() < 4.5
    assert z[2:4].max() > 10
    assert z[4:].max() > 10


def test_weighted_points_are_less_noisy_than_the_chains_after_the_move(key):
    """Proposals that are nearly exact: the mean's variance is no larger than that of the move."""

    def batch(key):
        x_key, y_key, move_key = jax.random.split(key, 3)
        x = jax.random.normal(x_key, (16,))
        y = 1.3 * jax.random.normal(y_key, (16,))
        log_w = [-0.5 * z**2 + 0.5 * (z / 1.3) ** 2 for z in (x, y)]
        stay, go = acceptance_weights(*log_w)
        accepted = jax.random.uniform(move_key, (16,)) < jnp.exp(log_w[1] - log_w[0])
        return jnp.array([stay @ x + go @ y, jnp.where(accepted, y, x).mean()])

    values = np.asarray(jax.jit(jax.vmap(batch))(jax.random.split(key, 2000)), float)
    assert values[:, 0].var() < 0.9 * values[:, 1].var()


class Noisy(AbstractDistribution):
    """A normal whose log-density is noisy, in every call or where it comes with a draw."""

    shape: tuple = (2,)
    cond_shape: None = None
    noise: float = 0.0
    noise_of_draws: float = 0.0

    def log_prob(self, x, condition=None):
        noise = np.random.default_rng().standard_normal(len(x))
        return -0.5 * (x**2).sum(-1) - jnp.log(2 * jnp.pi) + self.noise * noise

    def sample_and_log_prob(self, key, sample_shape=(), condition=None):
        points = jax.random.normal(key, (*sample_shape, 2))
        noise = self.noise_of_draws * jax.random.normal(jax.random.fold_in(key, 1), sample_shape)
        return points, self.log_prob(points) + noise

    def _log_prob(self, x, condition=None):
        raise NotImplementedError

    def _sample(self, key, condition=None):
        raise NotImplementedError


@pytest.mark.parametrize("noise", [{"noise": 0.1}, {"noise_of_draws": 0.1}])
def test_a_noisy_proposal_is_refused(key, noise):
    with pytest.raises(InputError, match=r"flow: its log-density.*exact trace.*no cure"):
        check_proposal_is_deterministic(Noisy(**noise), key, jnp.ones((20, 2)))


def test_exact_proposals_pass(key):
    positions = jax.random.normal(key, (50, 3))
    check_proposal_is_deterministic(Noisy(), key, positions[:, :2])
    base = GaussianMixture(np.ones(1), np.zeros((1, 3)), np.eye(3)[None])
    learned, fixed = trainable(coupling_flow(key, base, layers=2, width=8))
    # Away from the identity, where the flow and its inverse round differently.
    flow = eqx.combine(jax.tree.map(lambda array: array + 0.2, learned), fixed)
    for proposal in (base, flow):
        check_proposal_is_deterministic(proposal, key, positions)
