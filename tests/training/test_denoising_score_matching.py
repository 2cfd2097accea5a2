"""Denoising score matching: the gradient vanishes at the noised density, and only there."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import StandardNormal

from tiltflow.data.errors import InputError
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.denoising_score_matching import DenoisingScoreMatching
from tiltflow.training.loop import Schedule, train_energy

NOISE, BATCHES, ROWS = 0.6, 200, 200
MEAN = np.array([0.7, -0.4])
COVARIANCE = np.array([[0.8, 0.3], [0.3, 0.5]])
BASE = StandardNormal((2,))
OBJECTIVE = DenoisingScoreMatching(NOISE)


class Quadratic(eqx.Module):
    """The energy that makes the standard normal a Gaussian of that precision and mean."""

    precision: jax.Array
    mean: jax.Array

    def __call__(self, x):
        z = x - self.mean
        return 0.5 * z @ self.precision @ z - 0.5 * x @ x


def gaussian(covariance):
    return Quadratic(jnp.asarray(np.linalg.inv(covariance)), jnp.asarray(MEAN))


NOISED = gaussian(COVARIANCE + NOISE**2 * np.eye(2))


def by_objective(key, energy, batch):
    return OBJECTIVE.gradient(key, TiltedEBM(BASE, energy), None, (), batch, jnp.asarray(1.0))[0]


def mutant(sign=1.0, shift=1.0):
    """The loss written out, with the sign of the noise and the point where the score is taken."""

    def gradient(key, energy, batch):
        noise = jax.random.normal(key, batch.shape)

        def loss(energy):
            score = jax.vmap(jax.grad(TiltedEBM(BASE, energy).log_density))
            at = score(batch + shift * NOISE * noise)
            return 0.5 * jnp.sum((NOISE * at + sign * noise) ** 2, axis=-1).mean()

        return eqx.filter_grad(loss)(energy)

    return gradient


def largest_z(energy, gradient=by_objective):
    """Of the mean gradient over independent batches, in standard errors, over all parameters."""

    @eqx.filter_jit
    def run(energy):
        def one(key):
            data_key, key = jax.random.split(key)
            factor = jnp.asarray(np.linalg.cholesky(COVARIANCE))
            batch = MEAN + jax.random.normal(data_key, (ROWS, 2)) @ factor.T
            return gradient(key, energy, batch)

        return jax.lax.map(one, jax.random.split(jax.random.key(0), BATCHES))

    means = np.concatenate([leaf.reshape(BATCHES, -1) for leaf in jax.tree.leaves(run(energy))], 1)
    return np.max(np.abs(means.mean(0)) / (means.std(0) / np.sqrt(BATCHES)))


def test_the_minimum_is_the_density_with_the_noise():
    """Level 4.5 standard errors, the largest of six parameters; mutants from 8 on."""
    assert largest_z(NOISED) < 4.5
    assert largest_z(NOISED, mutant()) < 4.5
    assert largest_z(gaussian(COVARIANCE)) > 8
    assert largest_z(NOISED, mutant(sign=-1.0)) > 8
    assert largest_z(NOISED, mutant(shift=0.0)) > 8


def test_the_loss_is_that_of_the_formula(key):
    """On the true score: |sigma s + e|^2 / 2 is d / 2 less sigma^2 / 2 times the Fisher number."""
    rng = np.random.default_rng(0)
    batch = jnp.asarray(rng.multivariate_normal(MEAN, COVARIANCE, 40_000))
    model = TiltedEBM(BASE, NOISED)
    value = eqx.filter_jit(OBJECTIVE.gradient)(key, model, None, (), batch, jnp.asarray(1.0))[2]
    fisher = np.trace(np.linalg.inv(COVARIANCE + NOISE**2 * np.eye(2)))
    # The loss of a point varies by less than one: 4.5 standard errors are below 0.0225.
    expected = 0.5 * (2 - NOISE**2 * fisher)
    assert float(value["score_matching_loss"]) == pytest.approx(expected, abs=0.0225)


def test_training_finds_the_density_with_the_noise():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(0.8, 0.5, (2000, 1)))
    energy = MLPEnergy(1, width=16, depth=2, key=jax.random.key(1))
    base, noise = StandardNormal((1,)), 0.3
    schedule = Schedule(steps=600, chunk=200, learning_rate=1e-2, batch_size=256, averaging=0.98)
    objective = DenoisingScoreMatching(noise)
    trained = train_energy(jax.random.key(2), energy, base, objective, None, x, None, schedule)
    assert trained.stopped is None
    grid = np.linspace(-4, 5, 901)
    look = eqx.filter_jit(lambda model, x: jax.vmap(model.log_density)(x))
    log_density = np.asarray(look(TiltedEBM(base, trained.energy), jnp.asarray(grid)[:, None]))
    mass = np.exp(log_density - log_density.max())
    mass /= mass.sum()
    mean = mass @ grid
    assert mean == pytest.approx(0.8, abs=0.05)
    assert mass @ (grid - mean) ** 2 == pytest.approx(0.5**2 + noise**2, abs=0.04)


def test_cost_and_refusals():
    assert OBJECTIVE.evaluations(10) == 20
    with pytest.raises(InputError, match="noise_scale"):
        DenoisingScoreMatching(0.0)
