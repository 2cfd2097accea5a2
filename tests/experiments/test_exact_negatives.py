"""Negatives without chains have the moments of the model that they stand for."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import Normal

from tiltflow.experiments.exact_negatives import GridNegatives, TruthNegatives
from tiltflow.models.flows import trainable
from tiltflow.models.tilted import TiltedEBM


class Quadratic(eqx.Module):
    """Tilts N(0, I) to a normal of variance 1/2 about `centre`."""

    centre: jax.Array

    def __call__(self, x):
        return 0.5 * jnp.sum(x**2) - 2 * self.centre @ x


def test_draws_have_the_moments_of_the_tilted_normal():
    """A systematic draw of n points errs by far less than n independent ones would."""
    centre = jnp.array([0.7, -1.2])
    model = TiltedEBM(Normal(jnp.zeros(2)), Quadratic(centre))
    source = GridNegatives(draws=2000, cells=80)
    state = source.init(jax.random.key(0), model.base)
    negatives, *_ = eqx.filter_jit(source.draw)(
        jax.random.key(1), model, None, state, jnp.zeros((4, 2)), jnp.ones(())
    )
    assert len(state.points) == 6400 and source.evaluations(4) == 6400 + 4 + 2000
    np.testing.assert_allclose(negatives.weights.sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(negatives.position.mean(axis=0), centre, atol=0.05)
    np.testing.assert_allclose(np.cov(np.asarray(negatives.position).T), np.eye(2) / 2, atol=0.05)


def test_a_cell_without_a_number_is_never_drawn():
    model = TiltedEBM(Normal(jnp.zeros(2)), lambda x: jnp.where(x[0] > 0, jnp.nan, 0.0))
    source = GridNegatives(draws=500, cells=40)
    state = source.init(jax.random.key(0), model.base)
    negatives, *_ = eqx.filter_jit(source.draw)(
        jax.random.key(1), model, None, state, jnp.zeros((4, 2)), jnp.ones(())
    )
    assert np.isfinite(negatives.position).all() and (negatives.position[:, 0] < 0).all()


def test_the_grid_is_another_in_every_step():
    """A grid that stays would leave holes: all points of two steps are a cell's width apart."""
    model = TiltedEBM(Normal(jnp.zeros(2)), lambda x: 0.0 * x[0])
    source = GridNegatives(draws=100, cells=40)
    state = source.init(jax.random.key(0), model.base)

    def places(seed):
        negatives, *_ = eqx.filter_jit(source.draw)(
            jax.random.key(seed), model, None, state, jnp.zeros((4, 2)), jnp.ones(())
        )
        return np.asarray(negatives.position) % (2 * source.half_width / source.cells)

    first, second = places(0), places(1)
    assert np.ptp(first, axis=0).max() < 1e-4
    assert np.abs(first[0] - second[0]).min() > 1e-3


def test_weighted_draws_of_the_truth_stand_for_a_model_on_the_way_to_it():
    """At 4.5 standard errors, of as many draws as the weights are worth."""
    base, truth = Normal(jnp.zeros(3)), Normal(jnp.full(3, 0.8), jnp.full(3, 0.6))
    source = TruthNegatives(draws=20_000)
    state = source.init(jax.random.key(0), base, truth)

    @eqx.filter_jit
    def draw(energy):
        static = trainable(truth)[1]
        return source.draw(
            jax.random.key(1),
            TiltedEBM(base, energy),
            static,
            state,
            jnp.zeros((4, 3)),
            jnp.ones(()),
        )

    half_way = Normal(jnp.full(3, 0.4), jnp.full(3, 0.8))
    negatives, after, figures = draw(lambda x: base.log_prob(x) - half_way.log_prob(x))
    worth = float(figures["importance_ess"]) * source.draws
    assert 0.3 < figures["importance_ess"] < 1
    np.testing.assert_allclose(negatives.weights.sum(), 1, rtol=1e-5)
    mean = negatives.weights @ negatives.position
    np.testing.assert_allclose(mean, 0.4, atol=4.5 * 0.8 / worth**0.5)
    variance = negatives.weights @ (negatives.position - 0.4) ** 2
    np.testing.assert_allclose(variance, 0.64, atol=4.5 * 0.64 * (2 / worth) ** 0.5)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert source.evaluations(4) == 4 + 40_000
