"""Finite differences against the exact loss of a quadratic energy, and against derivatives."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import StandardNormal

from tiltflow.data.errors import InputError
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.finite_difference_score_matching import FiniteDifferenceScoreMatching
from tiltflow.training.sliced_score_matching import SlicedScoreMatching

BATCH = np.random.default_rng(0).normal(0.5, 0.8, (64, 3))
A = np.array([[1.5, 0.4, -0.3], [0.4, 2.0, 0.7], [-0.3, 0.7, 4.0]])
B = np.array([0.3, -0.2, 0.1])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def log_density(x):
    return -0.5 * x @ A @ x - B @ x


def exact(divergence=1.0, square=1.0):
    score = -BATCH @ A - B
    return 0.5 * square * (score**2).sum(-1).mean() - divergence * np.trace(A)


def test_on_a_quadratic_the_loss_is_exact_on_average_at_any_radius():
    """400 draws: 4.5 standard errors; without trace, or with half the square, above 8."""
    for radius in (0.1, 2.0):
        objective = FiniteDifferenceScoreMatching(radius)
        draws = jax.lax.map(
            partial(objective.loss, log_density=log_density, batch=jnp.asarray(BATCH)),
            jax.random.split(jax.random.key(1), 400),
        )
        error = draws.std() / 20
        assert abs(draws.mean() - exact()) < 4.5 * error
        for wrong in ({"divergence": 0.0}, {"divergence": -1.0}, {"square": 0.5}):
            assert abs(draws.mean() - exact(**wrong)) > 8 * error


def test_the_gap_to_the_derivatives_falls_with_the_square_of_the_radius(key):
    """On a line every direction is the same up to sign, which neither loss sees."""
    batch = jnp.linspace(-2, 2, 9)[:, None]

    def loss(objective):
        return float(objective.loss(key, lambda x: jnp.sum(jnp.sin(2 * x) - x**4 / 4), batch))

    derivatives = loss(SlicedScoreMatching())
    wide, narrow = (
        loss(FiniteDifferenceScoreMatching(radius)) - derivatives for radius in (0.02, 0.01)
    )
    assert abs(narrow) > 1e-7
    assert wide / narrow == pytest.approx(4, abs=0.02)


def test_as_many_slices_as_coordinates_leave_nothing_to_chance(key):
    """On a quadratic, whose differences are its derivatives, where one slice is off."""
    batch = jnp.asarray(BATCH)
    for radius in (0.1, 2.0):
        every = FiniteDifferenceScoreMatching(radius, slices=3).loss(key, log_density, batch)
        assert float(every) == pytest.approx(exact(), rel=1e-6)
        one = FiniteDifferenceScoreMatching(radius).loss(key, log_density, batch)
        assert abs(float(one) - exact()) > 1e-3


class Quadratic(eqx.Module):
    """The energy that tilts the standard normal to the density above."""

    a: jax.Array

    def __call__(self, x):
        return 0.5 * x @ self.a @ x + B @ x - 0.5 * x @ x


def test_as_an_objective_its_gradient_is_that_of_the_loss(key):
    model = TiltedEBM(StandardNormal((3,)), Quadratic(jnp.asarray(A)))
    objective, batch = FiniteDifferenceScoreMatching(0.5), jnp.asarray(BATCH)
    gradient, state, figures = objective.gradient(key, model, None, (), batch, jnp.asarray(1.0))
    assert state == objective.init(key, model.base, None) == ()
    expected = float(objective.loss(key, log_density, batch))
    assert float(figures["score_matching_loss"]) == pytest.approx(expected, rel=1e-9)
    step = 1e-5
    energy = Quadratic(model.energy.a.at[0, 0].add(step))
    ahead = objective.loss(key, TiltedEBM(model.base, energy).log_density, batch)
    assert float(ahead) - expected == pytest.approx(step * float(gradient.a[0, 0]), rel=1e-3)


def test_cost_and_refusals():
    assert FiniteDifferenceScoreMatching().evaluations(10) == 30
    assert FiniteDifferenceScoreMatching(slices=2).evaluations(10) == 50
    with pytest.raises(InputError, match="slices"):
        FiniteDifferenceScoreMatching(slices=0)
    with pytest.raises(InputError, match="radius"):
        FiniteDifferenceScoreMatching(0.0)
