"""Draws given some coordinates: right for a mixture whose conditional is known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from tiltflow.models.conditional_mixture import condition, draw
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.sampling.conditional import sample_given

WEIGHTS = np.array([0.6, 0.4])
MEANS = np.array([[0.0, 0.0, 0.0], [1.0, 3.0, -2.0]])
COVARIANCES = np.array(
    [
        [[1.0, 0.6, 0.2], [0.6, 1.5, 0.3], [0.2, 0.3, 0.8]],
        [[0.7, -0.3, 0.1], [-0.3, 0.9, 0.0], [0.1, 0.0, 0.5]],
    ]
)
MIXTURE = GaussianMixture(WEIGHTS, MEANS, COVARIANCES)
X = np.array([0.8, np.nan, np.nan])
KNOWN = np.array([True, False, False])


def by_hand(x, known):
    """Weights, means and covariances of the unknown coordinates, from the covariances."""
    weights, means, covariances = [], [], []
    for weight, mean, covariance in zip(WEIGHTS, MEANS, COVARIANCES):
        of_known = covariance[np.ix_(known, known)]
        gain = covariance[np.ix_(~known, known)] @ np.linalg.inv(of_known)
        weights.append(weight * multivariate_normal(mean[known], of_known).pdf(x[known]))
        means.append(mean[~known] + gain @ (x[known] - mean[known]))
        covariances.append(
            covariance[np.ix_(~known, ~known)] - gain @ covariance[np.ix_(known, ~known)]
        )
    return np.array(weights) / np.sum(weights), np.array(means), np.array(covariances)


@pytest.mark.parametrize("known", [[True, False, False], [False, True, True], [True, False, True]])
def test_a_conditioned_mixture_is_the_one_by_hand(known):
    known = np.array(known)
    x = np.where(known, [0.8, 1.0, -1.0], np.nan)
    found = condition(MIXTURE, jnp.asarray(x), jnp.asarray(known))
    weights, means, covariances = by_hand(x, known)
    np.testing.assert_allclose(jnp.exp(found.log_weights), weights, rtol=1e-4)
    np.testing.assert_allclose(found.means[:, ~known], means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.means[:, known], np.stack([x[known]] * 2))
    squared = np.asarray(found.factors @ found.factors.transpose(0, 2, 1))
    np.testing.assert_allclose(squared[:, ~known][:, :, ~known], covariances, rtol=1e-4, atol=1e-5)
    assert not squared[:, known].any()
    back = np.asarray(found.inverses @ found.factors)
    np.testing.assert_allclose(back, np.stack([np.diag(~known)] * 2), atol=1e-5)


def test_all_known_and_nothing_known():
    x = jnp.array([0.3, 0.2, 0.1])
    everything = condition(MIXTURE, x, jnp.ones(3, bool))
    assert jnp.array_equal(draw(jax.random.key(0), everything, 5), jnp.stack([x] * 5))
    nothing = condition(MIXTURE, x, jnp.zeros(3, bool))
    np.testing.assert_allclose(jnp.exp(nothing.log_weights), WEIGHTS, rtol=1e-5)
    np.testing.assert_allclose(nothing.means, MEANS, atol=1e-5)


WRONG = GaussianMixture(np.array([0.2, 0.8]), MEANS * 0.8, 1.5 * COVARIANCES)
"""What proposes: near, and wrong in weights, places and widths."""


def ends(log_density, draws=4000):
    run = jax.jit(
        lambda key, x, known: sample_given(
            key, log_density, WRONG, x, known, draws=draws, sweeps=20, local_steps=2
        )
    )
    return run(jax.random.key(1), jnp.asarray(X), jnp.asarray(KNOWN))


def summary(position):
    """Share of the second mode, means and variances of what was unknown."""
    there = position[:, 2] < -1
    return np.concatenate([[there.mean()], position[:, 1:].mean(0), position[:, 1:].var(0)])


def exact_summary():
    rng = np.random.default_rng(0)
    weights, means, covariances = by_hand(X, KNOWN)
    component = rng.choice(2, 200_000, p=weights)
    noise = rng.normal(size=(200_000, 2))
    factors = np.linalg.cholesky(covariances)[component]
    rows = means[component] + np.einsum("nij,nj->ni", factors, noise)
    return summary(np.column_stack([np.full(len(rows), 0.8), rows]))


# Four standard errors of 4000 draws; variances by those of a normal, twice as wide for two modes.
TOLERANCE = 4 * np.array([0.5, 1.6, 1.3, 3.0, 2.5]) / np.sqrt(4000)


def test_chains_have_the_conditional_density():
    found = ends(MIXTURE.log_prob)
    position = np.asarray(found.position)
    assert (position[:, 0] == np.float32(0.8)).all()
    assert 0.2 < float(found.global_acceptance_rate) < 1
    assert 0.4 < float(found.local_acceptance_rate) < 0.8
    assert (np.abs(summary(position) - exact_summary()) < TOLERANCE).all()


def test_the_proposal_alone_would_be_noticed():
    """The mutant: were all proposals accepted, the draws would be the proposal's."""
    found = condition(WRONG, jnp.asarray(X), jnp.asarray(KNOWN))
    position = np.asarray(draw(jax.random.key(1), found, 4000))
    assert (np.abs(summary(position) - exact_summary()) > TOLERANCE).any()
