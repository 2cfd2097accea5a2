"""A mixture of flows: its mixture at first; ever after the density that is written, and its draws.

In float64, where an error is an error.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
import pytest
from jax.scipy.stats import norm

from tiltflow.models.flows import trainable
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.mixture_of_flows import BendingLayer, MixtureOfFlows

SIDE = np.linspace(-9.0, 9.0, 181)
DRAWS = 20_000


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def two_modes(dimension):
    """Unlike in weight, place and covariance."""
    means = np.stack([np.arange(dimension) * 0.5 - 1, np.ones(dimension)])
    wide = 0.6 * np.eye(dimension) + 0.3
    return GaussianMixture(np.array([0.8, 0.2]), means, np.stack([wide, 0.3 * np.eye(dimension)]))


@eqx.filter_jit
def build(mixture):
    return MixtureOfFlows(jax.random.key(0), mixture)


@pytest.fixture(scope="module")
def bent():
    """In the plane, and far from its start: all that is trained moved by N(0, 0.3^2)."""
    rng = np.random.default_rng(1)
    parameters, static = trainable(build(two_modes(2)))
    moved = jax.tree.map(lambda x: jnp.asarray(x + 0.3 * rng.normal(size=x.shape)), parameters)
    return eqx.combine(moved, static)


@eqx.filter_jit
def log_prob(density, x):
    return density.log_prob(x)


def by_hand(density, x):
    """Log p of one point, one component after the other, with the determinant of autodiff."""
    density = paramax.unwrap(density)
    mixture = density.mixture
    weights = jax.nn.softmax(mixture.log_weights + density.log_gains)
    total = 0.0
    for k, weight in enumerate(weights):
        layers = [jax.tree.map(lambda it, k=k: it[k], eqx.filter(each, eqx.is_array))
                  for each in density.layers]  # fmt: skip
        parts = [eqx.combine(layer, each) for layer, each in zip(layers, density.layers)]

        def to_normal(x, parts=parts, k=k):
            z = jnp.linalg.solve(mixture.scale_trils[k], x - mixture.means[k])
            for layer in parts:
                z = layer.forward(z)[0]
            return z

        determinant = jnp.linalg.slogdet(jax.jacfwd(to_normal)(x))[1]
        total += weight * jnp.exp(norm.logpdf(to_normal(x)).sum() + determinant)
    return jnp.log(total)


def test_a_new_one_is_its_mixture():
    mixture = two_modes(5)
    x = np.random.default_rng(0).normal(size=(50, 5)) * 2
    np.testing.assert_allclose(log_prob(build(mixture), x), log_prob(mixture, x), atol=1e-9)


def test_the_density_is_that_of_its_maps(bent):
    x = np.random.default_rng(0).normal(size=(40, 2)) * 2
    exact = jax.jit(jax.vmap(lambda x: by_hand(bent, x)))(x)
    np.testing.assert_allclose(log_prob(bent, x), exact, atol=1e-9)
    assert np.abs(exact - log_prob(two_modes(2), x)).max() > 1


def moments(x):
    return np.stack([x[:, 0], x[:, 1], x[:, 0] ** 2, x[:, 0] * x[:, 1], x[:, 1] ** 2], axis=1)


def discrepancy(density):
    """The largest error of a moment of the draws, in standard errors; exact ones by a grid."""
    grid = np.stack(np.meshgrid(SIDE, SIDE), axis=-1).reshape(-1, 2)
    mass = np.exp(np.asarray(log_prob(density, jnp.asarray(grid)))) * (SIDE[1] - SIDE[0]) ** 2
    assert mass.sum() == pytest.approx(1, abs=1e-3)
    # A new function, so that nothing that is changed for a test was compiled before.
    draw = jax.jit(lambda key: density.sample(key, (DRAWS,)))
    drawn = moments(np.asarray(draw(jax.random.key(3))))
    error = drawn.mean(0) - mass @ moments(grid)
    return np.abs(error / (drawn.std(0) / DRAWS**0.5)).max()


def test_draws_have_the_moments_of_the_density(bent):
    """Five moments, 4.5 standard errors: level 3e-5."""
    assert discrepancy(bent) < 4.5


def inverse_without(part):
    right = BendingLayer.inverse

    def wrong(self, z):
        without = eqx.tree_at(lambda it: getattr(it, part), self, replace_fn=jnp.zeros_like)
        return right(without, z)

    return wrong


@pytest.mark.parametrize("part", ["turn", "log_stretch", "shift"])
def test_an_inverse_that_leaves_something_out_is_caught(bent, monkeypatch, part):
    monkeypatch.setattr(BendingLayer, "inverse", inverse_without(part))
    assert discrepancy(bent) > 8


def test_the_frame_of_the_mutants_passes_without_a_mutation(bent, monkeypatch):
    right = BendingLayer.inverse
    monkeypatch.setattr(BendingLayer, "inverse", lambda self, z: right(self, z))
    assert discrepancy(bent) < 4.5


def test_mixture_and_first_rotations_are_never_trained(bent):
    parameters, _ = trainable(bent)
    # Gains, and for each of two layers: turn, stretch, shift, two matrices and two vectors.
    assert len(jax.tree.leaves(parameters)) == 1 + 2 * 7
