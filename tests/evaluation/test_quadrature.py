"""Quadrature against exact numbers."""

import jax
import numpy as np
import pytest

from tiltflow.data.mixtures import two_modes
from tiltflow.evaluation.quadrature import (
    Grid,
    draw,
    grid_around,
    kl_divergence,
    mode_weights,
    nested_grid_around,
    normalise,
    proposal_quality,
)


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


def test_a_wider_normal_as_proposal_has_its_closed_forms():
    """Of variance v: acceptance 2 / (1 + v), effective share (2 v - 1) / v^2."""
    axis = np.linspace(-14, 14, 401)
    grid, v = Grid(axis, axis), 2.0
    squares = (grid.points**2).sum(axis=1)
    truth, model = (-0.5 * squares / each - np.log(2 * np.pi * each) for each in (1.0, v))
    found = proposal_quality(grid, truth, model)
    assert found.acceptance == pytest.approx(2 / (1 + v), abs=1e-4)
    assert found.effective_share == pytest.approx((2 * v - 1) / v**2, abs=5e-3)
    # The narrow one for the wide one is taken as often, but a few of its draws have all the weight.
    other = proposal_quality(grid, model, truth)
    assert other.acceptance == pytest.approx(found.acceptance, abs=1e-4)
    assert other.effective_share < 0.5 * found.effective_share
    assert proposal_quality(grid, truth, truth) == pytest.approx((1, 1), abs=1e-6)


def test_a_proposal_without_mass_or_density_is_told(exact):
    target, grid, log_prob, labels = exact
    hole = np.where(labels == 0, log_prob - np.log(float(target.weights[0])), -np.inf)
    found = proposal_quality(grid, log_prob, hole)
    assert found.acceptance == pytest.approx(float(target.weights[0]), abs=1e-3)
    # What it does not know of its own hole: chains there take none of its draws.
    assert found.effective_share == pytest.approx(1, abs=1e-3)
    assert np.isnan(proposal_quality(grid, log_prob, np.where(labels == 0, np.nan, 0.0))).all()


@pytest.fixture(scope="module")
def nested():
    data = np.random.default_rng(0).standard_normal((2000, 2))
    grid = nested_grid_around(data, cells=100)
    log_prob = -0.5 * (grid.points**2).sum(axis=1) - np.log(2 * np.pi)
    return grid, log_prob


def test_nested_grids_neither_overlap_nor_leave_a_gap(nested):
    grid, _ = nested
    width, height = (
        (grid.outer.x[1] - grid.outer.x[0]) * 55,
        (grid.outer.y[1] - grid.outer.y[0]) * 55,
    )
    assert np.exp(grid.log_cell).sum() == pytest.approx(width * height, rel=1e-9)
    assert grid.points.shape == (len(grid.log_cell), 2)


def test_mass_far_from_the_data_is_counted(nested):
    """A second bump of nine tenths far outside; the fine grid alone would not see it."""
    grid, log_prob = nested
    far = np.array([11.0, -9.0])
    bump = -0.5 * ((grid.points - far) ** 2).sum(axis=1) - np.log(2 * np.pi)
    both = np.logaddexp(log_prob + np.log(0.1), bump + np.log(0.9))
    _, log_z = normalise(grid, both)
    assert log_z == pytest.approx(0, abs=1e-3)
    inner = both[: len(grid.inner.points)]
    assert normalise(grid.inner, inner)[1] == pytest.approx(np.log(0.1), abs=0.01)
    assert kl_divergence(grid, log_prob, both) == pytest.approx(np.log(10), abs=0.01)


def test_draws_of_the_grid_have_its_moments(nested):
    """Within 4.5 standard errors, the cells' own variance included."""
    grid, log_prob = nested
    n = 20_000
    points = draw(grid, normalise(grid, log_prob)[0], n, seed=0)
    assert (np.abs(points.mean(axis=0)) < 4.5 / np.sqrt(n)).all()
    cell = (grid.inner.x[1] - grid.inner.x[0]) ** 2 / 12
    assert points[:, 0].var() == pytest.approx(1 + cell, abs=4.5 * np.sqrt(2 / n))
    assert len(np.unique(points[:, 0])) == n
