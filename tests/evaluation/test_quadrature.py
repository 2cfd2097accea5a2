"""Quadrature against exact numbers."""

import jax
import numpy as np
import pytest

from tiltflow.data.mixtures import two_modes
from tiltflow.evaluation.quadrature import grid_around, kl_divergence, mode_weights, normalise


@pytest.fixture(scope="module")
def exact():
    target = two_modes()
    data = np.asarray(target.sample(jax.random.key(0), 2000), dtype=float)
    grid = grid_around(data, cells=250)
    log_prob = np.asarray(jax.vmap(target.log_prob)(grid.points.astype("float32")), dtype=float)
    labels = np.asarray(jax.vmap(target.label)(grid.points.astype("float32")))
    return target, grid, log_prob, labels


def test_normalise_finds_the_constant(exact):
    _, grid, log_prob, _ = exact
    normalised, log_z = normalise(grid, log_prob + 3.0)
    assert log_z == pytest.approx(3.0, abs=1e-3)
    assert np.allclose(normalised, log_prob, atol=1e-3)


def test_normalise_counts_nan_as_no_mass(exact):
    _, grid, log_prob, _ = exact
    broken = log_prob.copy()
    broken[log_prob < -50] = np.nan
    assert normalise(grid, broken)[1] == pytest.approx(0.0, abs=1e-3)


def test_mode_weights_are_the_targets(exact):
    target, grid, log_prob, labels = exact
    found = mode_weights(grid, log_prob, labels, 2)
    assert np.allclose(found, np.asarray(target.weights), atol=1e-3)


def test_kl_of_a_reweighted_mixture(exact):
    """Moving weight w to v between separate modes costs sum w log(w / v) exactly."""
    target, grid, log_prob, labels = exact
    w, v = np.asarray(target.weights, dtype=float), np.array([0.5, 0.5])
    model = log_prob + np.log(v / w)[labels]
    assert kl_divergence(grid, log_prob, model) == pytest.approx(
        np.sum(w * np.log(w / v)), abs=1e-3
    )
    assert kl_divergence(grid, log_prob, log_prob) == 0


def test_kl_is_infinite_where_the_model_has_no_mass(exact):
    _, grid, log_prob, labels = exact
    model = np.where(labels == 0, log_prob, -np.inf)
    assert kl_divergence(grid, log_prob, model) == np.inf
