"""Choosing a base: the rule of the choice, and the kinds."""

import jax
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.folds import FEW_HELD_OUT, simplest_within_error
from tiltflow.models.gaussian_mixture import GaussianMixture, mixture_in
from tiltflow.models.mixture_of_flows import MixtureOfFlows
from tiltflow.training import bases
from tiltflow.training.bases import choose_base
from tiltflow.training.maximum_likelihood import FlowFit


def scores(rows: int, gain: float, noise: float) -> dict[str, np.ndarray]:
    """A simple candidate, and a flexible one that gains `gain` on average with paired noise."""
    generator = np.random.default_rng(0)
    simple = generator.normal(size=rows)
    difference = generator.normal(size=rows) * noise
    return {"gaussian": simple, "mixture": simple + difference - difference.mean() + gain}


def test_few_rows_ask_for_a_clear_gain():
    # The standard error of the difference is 1 / sqrt(100) = 0.1.
    assert simplest_within_error(scores(100, 0.05, 1.0)) == "gaussian"
    assert simplest_within_error(scores(100, 0.20, 1.0)) == "mixture"


def test_many_rows_take_the_best():
    assert simplest_within_error(scores(4 * FEW_HELD_OUT, 0.001, 1.0)) == "mixture"
    assert simplest_within_error(scores(4 * FEW_HELD_OUT, -0.001, 1.0)) == "gaussian"


def test_unknown_kind_is_refused_before_any_fit():
    rows = np.zeros((3, 2))
    with pytest.raises(InputError, match="gaussian, mixture or flow"):
        choose_base(jax.random.key(0), "spline", rows, rows, seed=0)


def test_the_base_log_likelihood_is_of_the_training_rows_alone():
    """One column, where the proposal is an affine map and quick: the base is fitted to all rows,
    its figure is not. Held-out rows far from the others tell the two apart."""
    generator = np.random.default_rng(0)
    x, held_out = generator.normal(size=(200, 1)), generator.normal(size=(40, 1)) + 4.0
    start = choose_base(jax.random.key(0), "gaussian", x, held_out, seed=0)
    mean, variance = x.mean(), x.var()
    exact = -0.5 * np.log(2 * np.pi * variance) - 0.5 * ((held_out - mean) ** 2).mean() / variance
    assert start.base_log_likelihood == pytest.approx(exact, rel=1e-3)
    assert float(start.base.log_prob(held_out).mean()) > exact + 1.0


@pytest.mark.parametrize(
    ("dimension", "kind"), [(9, "auto"), (9, "flow"), (9, "mixture"), (8, "auto")]
)
def test_a_mixture_of_flows_is_base_and_proposal_where_it_is_best(monkeypatch, dimension, kind):
    """Two modes. The fit is a stand-in that finds the truth for a mixture of flows alone."""
    generator = np.random.default_rng(0)
    means = np.stack([np.full(dimension, -2.0), np.full(dimension, 2.0)])
    rows = means[generator.integers(2, size=1200)] + generator.normal(size=(1200, dimension))
    truth = GaussianMixture(np.full(2, 0.5), means, np.stack([np.eye(dimension)] * 2))

    def fit(key, flow, x, held_out, **settings):
        found = isinstance(flow, MixtureOfFlows)
        return FlowFit(truth, 0.0, 7) if found else FlowFit(flow, 0.0, 0)

    monkeypatch.setattr(bases, "fit_flow", fit)
    start = choose_base(jax.random.key(0), kind, rows[600:], rows[:600], seed=0)
    if dimension == 9 and kind != "mixture":
        assert start.base is truth and start.flow is truth
        assert start.kind == "flow"
        assert start.description == "mixture of flows, 7 steps"
    else:
        assert start.base is not truth and start.flow is not truth
        assert start.kind == "mixture"


@pytest.mark.parametrize(
    ("dimension", "kind", "held_out", "tried"),
    [
        (5, "auto", 600, True),
        (5, "flow", 600, True),
        (5, "mixture", 600, False),
        (4, "auto", 600, False),
        (5, "auto", 499, False),
    ],
)
def test_a_flow_on_one_gaussian_is_base_and_proposal_where_it_is_best(
    monkeypatch, dimension, kind, held_out, tried
):
    """Two modes. The stand-in finds the truth for a flow on one Gaussian alone."""
    generator = np.random.default_rng(0)
    means = np.stack([np.full(dimension, -2.0), np.full(dimension, 2.0)])
    rows = means[generator.integers(2, size=1200)] + generator.normal(size=(1200, dimension))
    truth = GaussianMixture(np.full(2, 0.5), means, np.stack([np.eye(dimension)] * 2))

    def fit(key, flow, x, held_out, **settings):
        mixture = mixture_in(flow)
        found = not isinstance(flow, MixtureOfFlows) and len(mixture.log_weights) == 1
        return FlowFit(truth, 0.0, 7) if found else FlowFit(flow, 0.0, 0)

    monkeypatch.setattr(bases, "fit_flow", fit)
    start = choose_base(jax.random.key(0), kind, rows[600:], rows[:held_out], seed=0)
    if tried:
        assert start.base is truth and start.flow is truth
        assert start.kind == "flow"
        assert start.description.startswith("coupling flow, 7 steps, on one Gaussian")
    else:
        assert start.base is not truth and start.flow is not truth
        assert start.kind == "mixture"
