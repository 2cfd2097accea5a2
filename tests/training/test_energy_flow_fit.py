"""Energy flows fitted to rows in the user's units, by every loss, against the truth."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.pixel_logit import PixelLogit
from tiltflow.data.preprocessing import fit_preprocessing, to_model_units
from tiltflow.models.energy_flow import EnergyFlow
from tiltflow.models.energy_flow_architectures import fully_connected_energy_flow
from tiltflow.training.denoising_score_matching import DenoisingScoreMatching
from tiltflow.training.energy_flow_fit import fit_energy_flow, user_log_prob
from tiltflow.training.finite_difference_score_matching import FiniteDifferenceScoreMatching
from tiltflow.training.flow_losses import (
    MaximumLikelihood,
    SampledMaximumLikelihood,
    ScoreMatching,
)
from tiltflow.training.sliced_score_matching import SlicedScoreMatching

MEAN, FACTOR = np.array([300.0, -5.0]), np.array([[40.0, 0.0], [0.6, 0.5]])
LOSSES = {
    "likelihood": MaximumLikelihood(),
    "sampled": SampledMaximumLikelihood(),
    "sliced": ScoreMatching(SlicedScoreMatching()),
    "denoising": ScoreMatching(DenoisingScoreMatching(0.1)),
    "differences": ScoreMatching(FiniteDifferenceScoreMatching(0.2)),
}


def rows(seed, n):
    return MEAN + np.random.default_rng(seed).normal(size=(n, 2)) @ FACTOR.T


X, HELD_OUT = rows(0, 4000), rows(1, 2000)
PREPROCESSING = fit_preprocessing(X, "standardise")


def true_log_prob(x):
    u = (x - MEAN) @ np.linalg.inv(FACTOR).T
    return -0.5 * (u**2).sum(1) - np.log(2 * np.pi) - np.log(np.diag(FACTOR)).sum()


@eqx.filter_jit
def start():
    # One linear layer: all Gaussians, and nothing else.
    return fully_connected_energy_flow(jax.random.key(0), 2, depth=1)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_finds_a_gaussian(name):
    reports = []
    fit = fit_energy_flow(
        jax.random.key(1),
        start(),
        X,
        HELD_OUT,
        preprocessing=PREPROCESSING,
        loss=LOSSES[name],
        learning_rate=0.02,
        max_steps=800,
        averaging=0.98,
        on_report=reports.append,
    )
    log_prob = user_log_prob(fit.flow, PREPROCESSING, HELD_OUT)
    assert log_prob.mean() == pytest.approx(fit.held_out_log_likelihood, abs=1e-4)
    scores = {report["step"]: report["held_out_log_likelihood"] for report in reports}
    assert scores[fit.steps] == pytest.approx(fit.held_out_log_likelihood, abs=1e-5)
    assert fit.skipped == 0
    # Five parameters of 4000 rows are worth 0.001 nats; the noise of 0.1 costs 0.002 more.
    gap = (true_log_prob(HELD_OUT) - log_prob).mean()
    assert -0.01 < gap < 0.01


def test_a_forgotten_jacobian_would_be_seen():
    _, log_det = to_model_units(PREPROCESSING, HELD_OUT)
    assert abs(log_det.mean()) > 1


def test_singular_starts_and_rows_out_of_range_are_refused():
    flow = start()
    assert isinstance(flow, EnergyFlow)
    singular = eqx.tree_at(lambda it: it.layers[0].weight, flow, jnp.ones((2, 2)))
    with pytest.raises(InputError, match="singular"):
        fit_energy_flow(jax.random.key(0), singular, X, HELD_OUT, preprocessing=PREPROCESSING)
    pixels = np.array([[0.0, 255.0], [3.0, 256.5]])
    with pytest.raises(InputError, match="held_out: row 2 is not finite after preprocessing"):
        fit_energy_flow(jax.random.key(0), flow, pixels[:1], pixels, preprocessing=PixelLogit(2))
    with pytest.raises(InputError, match="X: found rows of 3 numbers"):
        user_log_prob(flow, PREPROCESSING, np.zeros((4, 3)))
