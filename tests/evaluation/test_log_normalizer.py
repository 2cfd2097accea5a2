"""log Z by importance sampling: exact where it can be, and with an error that is one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import StandardNormal

from tiltflow.evaluation.log_normalizer import (
    best_of_proposals,
    estimate_log_normalizer,
    importance_sampling,
    normalised_weights,
)
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.recording import weigh_draws


def tilt(x):
    """On N(0, 1) in each of two coordinates: Z = exp((0.8^2 + 0.3^2) / 2)."""
    return 0.8 * x[0] - 0.3 * x[1]


MODEL = TiltedEBM(StandardNormal((2,)), tilt)
LOG_Z = (0.8**2 + 0.3**2) / 2


def test_by_hand():
    estimate = importance_sampling(jnp.log(jnp.array([1.0, 2.0, 3.0, 6.0])))
    ess = 12**2 / 50 / 4
    assert float(estimate.log_z) == pytest.approx(np.log(3), rel=1e-6)
    assert float(estimate.ess) == pytest.approx(ess, rel=1e-5)
    assert float(estimate.stderr) == pytest.approx(((1 / ess - 1) / 4) ** 0.5, rel=1e-5)


def test_the_perfect_proposal_has_no_error(key):
    """A proposal that is the model gives the same weight to every draw."""
    proposal = GaussianMixture(np.ones(1), np.array([[-0.8, 0.3]]), np.eye(2)[None])
    estimate = estimate_log_normalizer(key, MODEL, proposal, 100)
    assert float(estimate.log_z) == pytest.approx(LOG_Z, abs=1e-5)
    assert float(estimate.stderr) < 1e-3
    assert float(estimate.ess) == pytest.approx(1, abs=1e-4)


def test_large_log_weights_neither_overflow_nor_lose_the_estimate():
    estimate = importance_sampling(jnp.array([1000.0, 1000.0, -1000.0]))
    assert float(estimate.log_z) == pytest.approx(1000 + np.log(2 / 3), rel=1e-6)
    assert float(estimate.ess) == pytest.approx(2 / 3, rel=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_counts_as_zero(bad):
    estimate = importance_sampling(jnp.array([0.0, bad, 0.0, bad]))
    assert float(estimate.log_z) == pytest.approx(np.log(0.5), rel=1e-6)
    assert float(estimate.ess) == pytest.approx(0.5, rel=1e-6)
    np.testing.assert_allclose(
        normalised_weights(jnp.array([0.0, bad, 0.0, bad])), [0.5, 0, 0.5, 0], rtol=1e-6
    )


def test_no_finite_weight_is_no_estimate():
    estimate = importance_sampling(jnp.full(3, jnp.nan))
    assert estimate.log_z == -np.inf
    assert not estimate.ess > 0


def test_the_standard_error_is_calibrated(key):
    """200 replicates of 1000 draws: their z-scores have mean 0 and variance 1.

    The mean within 4 / sqrt(200); the variance, of chi-squared with 200 degrees of freedom over
    200, within 4 of its standard deviations 0.1.
    """
    proposal = GaussianMixture(np.ones(1), np.zeros((1, 2)), 1.5 * np.eye(2)[None])

    @jax.jit
    def replicates(keys):
        def one(key):
            y, log_prob = proposal.sample_and_log_prob(key, (1000,))
            return importance_sampling(jax.vmap(MODEL.log_density)(y) - log_prob)

        return jax.vmap(one)(keys)

    estimates = replicates(jax.random.split(key, 200))
    assert 0.2 < float(estimates.ess.mean()) < 0.95
    z = (np.asarray(estimates.log_z) - LOG_Z) / np.asarray(estimates.stderr)
    assert abs(z.mean()) < 4 / 200**0.5
    assert abs(z.var() - 1) < 0.4


def test_more_draws_than_a_chunk_come_out_whole(key):
    y, log_weights = weigh_draws(key, MODEL.log_density, StandardNormal((2,)), 10_000)
    assert y.shape == (10_000, 2)
    assert len(np.unique(np.asarray(y[:, 0]))) > 9_900
    # The proposal is the base, so what is left of the weight is the energy.
    np.testing.assert_allclose(log_weights, -jax.vmap(tilt)(y), atol=1e-5)
    estimate = importance_sampling(log_weights)
    assert abs(float(estimate.log_z) - LOG_Z) < 4.5 * float(estimate.stderr)


def test_the_proposal_with_the_larger_share_is_taken(key):
    """One that is the model, between a far one and one with no finite weight."""
    exact = GaussianMixture(np.ones(1), np.array([[-0.8, 0.3]]), np.eye(2)[None])
    far = GaussianMixture(np.ones(1), np.array([[5.0, 5.0]]), 0.01 * np.eye(2)[None])
    nowhere = GaussianMixture(np.ones(1), np.full((1, 2), np.inf), np.eye(2)[None])
    best, estimate = best_of_proposals(key, MODEL, [nowhere, exact, far], 100)
    assert best == 1
    assert float(estimate.ess) == pytest.approx(1.0, abs=1e-5)


def test_a_model_that_is_its_base_has_log_z_zero_exactly(key):
    model = TiltedEBM(StandardNormal((2,)), lambda x: 0.0 * x[0])
    far = GaussianMixture(np.ones(1), np.array([[2.0, 0.0]]), np.eye(2)[None])
    _, estimate = best_of_proposals(key, model, [far, model.base], 1000)
    assert float(estimate.log_z) == 0.0 and float(estimate.stderr) == 0.0
