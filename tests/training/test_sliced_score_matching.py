"""Sliced score matching against the exact loss of a quadratic energy, and in training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import StandardNormal

from tiltflow.data.errors import InputError
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.loop import Schedule, train_energy
from tiltflow.training.sliced_score_matching import SlicedScoreMatching

BATCH = jnp.asarray(np.random.default_rng(0).normal(0.5, 0.8, (64, 3)))
DIAGONAL = np.diag([0.5, 1.0, 3.0])
FULL = DIAGONAL + np.array([[0.0, 0.4, -0.3], [0.4, 0.0, 0.7], [-0.3, 0.7, 0.0]])


class Quadratic(eqx.Module):
    """E(x) = x . A x / 2 + b . x."""

    a: jax.Array
    b: jax.Array

    def __call__(self, x):
        return 0.5 * x @ self.a @ x + self.b @ x


def exact(energy, divergence=1.0):
    """On the standard normal s = -x - A x - b (A symmetrised), with divergence -d - tr A."""
    a = 0.5 * (energy.a + energy.a.T)
    score = -BATCH - BATCH @ a - energy.b
    trace = -3 - jnp.trace(a)
    return 0.5 * (score**2).sum(-1).mean() + divergence * trace


@eqx.filter_jit
def estimate(key, energy, slices=1):
    model = TiltedEBM(StandardNormal((3,)), energy)
    objective = SlicedScoreMatching(slices)
    gradient, _, figures = objective.gradient(key, model, None, (), BATCH, jnp.asarray(1.0))
    return figures["score_matching_loss"], gradient


def energy_of(a):
    return Quadratic(jnp.asarray(a), jnp.array([0.3, -0.2, 0.1]))


def test_where_nothing_is_correlated_any_direction_gives_the_exact_loss(key):
    """Random signs see the trace of a diagonal Jacobian without error; sign and term are seen."""
    energy = energy_of(DIAGONAL)
    value, gradient = estimate(key, energy)
    assert float(value) == pytest.approx(float(exact(energy)), abs=1e-4)
    for wrong in (-1.0, 0.0):
        assert abs(float(value - exact(energy, wrong))) > 1
    expected = eqx.filter_grad(exact)(energy)
    np.testing.assert_allclose(gradient.b, expected.b, atol=1e-5)
    np.testing.assert_allclose(np.diag(gradient.a), np.diag(expected.a), atol=1e-5)


def test_the_loss_and_its_gradient_are_exact_on_average():
    """400 draws of the directions: 4.5 standard errors for ten numbers; without trace above 8."""
    energy = energy_of(FULL)
    keys = jax.random.split(jax.random.key(1), 400)
    value, gradient = jax.lax.map(lambda key: estimate(key, energy, slices=2), keys)

    def z(draws, expected):
        draws = np.asarray(draws, float)
        error = draws.std(axis=0) / np.sqrt(len(draws)) + 1e-6
        return np.abs(draws.mean(axis=0) - np.asarray(expected)) / error

    expected = eqx.filter_grad(exact)(energy)
    # The gradient in A is that in its symmetric part.
    symmetric = 0.5 * (gradient.a + jnp.swapaxes(gradient.a, 1, 2))
    assert z(value, exact(energy)) < 4.5
    off = ~np.eye(3, dtype=bool)
    assert z(symmetric[:, off], expected.a[off]).max() < 4.5
    np.testing.assert_allclose(gradient.b.mean(0), expected.b, atol=1e-4)
    for wrong in (-1.0, 0.0):
        assert z(value, exact(energy, wrong)) > 8


def test_as_many_slices_as_coordinates_give_the_exact_loss(key):
    """To rounding, where one slice is off; more than that are refused."""
    energy = energy_of(FULL)
    value, gradient = estimate(key, energy, slices=3)
    assert float(value) == pytest.approx(float(exact(energy)), rel=1e-5)
    expected = eqx.filter_grad(exact)(energy)
    symmetric = 0.5 * (gradient.a + gradient.a.T)
    np.testing.assert_allclose(symmetric, 0.5 * (expected.a + expected.a.T), atol=1e-4)
    one, _ = estimate(key, energy, slices=1)
    assert abs(float(one - exact(energy))) > 1e-2
    with pytest.raises(InputError, match=r"slices: found 4 for rows of 3"):
        estimate(key, energy, slices=4)


def test_training_finds_the_density_of_the_data():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(0.8, 0.5, (2000, 1)))
    energy = MLPEnergy(1, width=16, depth=2, key=jax.random.key(1))
    base = StandardNormal((1,))
    schedule = Schedule(steps=600, chunk=200, learning_rate=1e-2, batch_size=256, averaging=0.98)
    source = SlicedScoreMatching()
    trained = train_energy(jax.random.key(2), energy, base, source, None, x, None, schedule)
    assert trained.stopped is None
    grid = np.linspace(-4, 5, 901)
    look = eqx.filter_jit(lambda model, x: jax.vmap(model.log_density)(x))
    log_density = np.asarray(look(TiltedEBM(base, trained.energy), jnp.asarray(grid)[:, None]))
    mass = np.exp(log_density - log_density.max())
    mass /= mass.sum()
    mean = mass @ grid
    assert mean == pytest.approx(0.8, abs=0.05)
    assert mass @ (grid - mean) ** 2 == pytest.approx(0.5**2, abs=0.03)


def test_cost_and_refusals():
    assert SlicedScoreMatching(1).evaluations(10) == 40
    assert SlicedScoreMatching(3).evaluations(10) == 80
    with pytest.raises(InputError, match="slices"):
        SlicedScoreMatching(0)
