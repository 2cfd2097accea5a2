"""Rivals on a table: fitted within their seconds, and better than they start."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.bijections import Affine
from flowjax.distributions import StandardNormal, Transformed

from tiltflow.experiments import table_rivals
from tiltflow.experiments.published_tables import NETWORKS
from tiltflow.experiments.table_rivals import Rival, fit_rival, log_prob_of_rows, rivals
from tiltflow.models.batch_likelihood import batch_likelihood
from tiltflow.models.continuous import continuous_flow, continuous_flows
from tiltflow.models.integration import Integration
from tiltflow.training.continuous_fit import ContinuousLikelihood

X = np.random.default_rng(0).normal([0.5, 0.0], [0.5, 1.5], (300, 2))


def affine(key, x, held_out):
    return Transformed(StandardNormal((2,)), Affine(jnp.zeros(2), jnp.ones(2)))


def test_a_rival_takes_the_steps_that_its_seconds_allow(monkeypatch):
    """By a clock that ticks once a look: making it is one second, and so is a chunk."""
    ticks = itertools.count()
    monkeypatch.setattr(table_rivals, "clock", lambda: float(next(ticks)))
    rival = Rival("affine", affine, chunks=(10,), learning_rate=0.05)
    flow, figures = fit_rival(jax.random.key(0), rival, X[:200], X[200:], seconds=6.0)
    assert figures["steps_allowed"] == 50
    assert 10 <= figures["steps"] <= 50
    scores = log_prob_of_rows(flow, X[200:])
    assert scores.shape == (100,)
    assert scores.mean() == pytest.approx(figures["held_out_log_likelihood"], abs=1e-3)
    assert scores.mean() > StandardNormal((2,)).log_prob(X[200:]).mean()


def ffjord_of_few_steps():
    """One small flow, of some field that is not zero."""
    flow = continuous_flow(
        jax.random.key(0),
        StandardNormal((2,)),
        widths=(8,),
        integration=Integration(tolerance=1e-3),
    )
    layer = lambda flow: continuous_flows(flow)[0].field.layers[-1].linear.weight  # noqa: E731
    return eqx.tree_at(layer, flow, jax.random.normal(jax.random.key(1), (2, 8)))


def test_a_row_that_cannot_be_solved_takes_no_other_rows_with_it(monkeypatch):
    """Rows of one solve, of which one is not finite."""
    monkeypatch.setattr(table_rivals, "ROWS_AT_ONCE", 8)
    flow = ffjord_of_few_steps()
    rows = np.concatenate([X[:7], [[np.nan, 0.0]], X[7:12]])
    scores = log_prob_of_rows(flow, rows)
    assert np.flatnonzero(~np.isfinite(scores)).tolist() == [7]
    np.testing.assert_allclose(np.delete(scores, 7), flow.log_prob(X[:12]), atol=0.01)


def test_continuous_flows_are_watched_by_noise_and_judged_without():
    """The exact trace after every chunk takes as many products as there are columns."""
    for network in (None, NETWORKS["BSDS300"]):
        ffjord = rivals(network)[0]
        assert isinstance(ffjord.objective, ContinuousLikelihood)
        assert ffjord.objective.score_trace == "rademacher"
    flow = ffjord_of_few_steps()
    exact = batch_likelihood(flow, jnp.asarray(X[:250])).log_prob
    np.testing.assert_allclose(log_prob_of_rows(flow, X[:250]), exact, rtol=1e-5)
