"""Rivals on a table: fitted within their seconds, and better than they start."""

import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest

from tiltflow.experiments import table_rivals
from tiltflow.experiments.table_rivals import fit_rival, log_prob_of_rows, rivals

X = np.random.default_rng(0).normal([0.5, 0.0], [0.5, 1.5], (300, 2))


@pytest.mark.parametrize("name", ["energy_flow", "autoregressive_flow"])
def test_a_rival_takes_the_steps_that_its_seconds_allow(name, monkeypatch):
    """By a clock that ticks once a look: chunks are short, and the fit ends in time."""
    ticks = itertools.count()
    monkeypatch.setattr(table_rivals, "clock", lambda: float(next(ticks)))
    rival = replace(next(each for each in rivals(None) if each.name == name), chunk=10)
    flow, figures = fit_rival(jax.random.key(0), rival, X[:200], X[200:], seconds=6.0)
    # Of six seconds one was for making it; a chunk is a second.
    assert figures["steps_allowed"] == 50
    assert 10 <= figures["steps"] <= 50
    scores = log_prob_of_rows(flow, X[200:])
    assert scores.shape == (100,)
    assert scores.mean() == pytest.approx(figures["held_out_log_likelihood"], abs=1e-3)
