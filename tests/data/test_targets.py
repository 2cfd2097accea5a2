"""The targets: their densities integrate to one, and agree with scipy and with their draws."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tiltflow.data.four_zones import FourZones
from tiltflow.data.mixtures import (
    GaussianMixture,
    bend,
    eight_gaussians,
    four_modes,
    gaussian_mixture,
    two_modes,
    unbend,
    warped_modes,
)
from tiltflow.data.noisy_curves import moons, swirl, two_spirals
from tiltflow.data.pinwheel import Pinwheel
from tiltflow.data.targets import Checkerboard, Rings

# name: (constructor, half-width of the square that holds all of its mass)
PLANE = {
    "two_modes": (two_modes, 3.0),
    "eight_gaussians": (eight_gaussians, 15.0),
    "four_modes": (lambda: four_modes(2, 5.0), 10.0),
    "warped_modes": (lambda: warped_modes(2, 6.0), 20.0),
    "rings": (Rings, 5.0),
    "checkerboard": (Checkerboard, 5.0),
    "four_zones": (FourZones, 10.0),
    "moons": (moons, 5.0),
    "two_spirals": (two_spirals, 5.0),
    "swirl": (swirl, 5.0),
    "pinwheel": (Pinwheel, 6.0),
}
# One of each kind, and dimensions odd and even.
DRAWN = {
    "two_modes": two_modes,
    "four_modes_5d": lambda: four_modes(5, 8.0),
    "warped_modes_5d": lambda: warped_modes(5, 12.0),
    "rings": Rings,
    "checkerboard": Checkerboard,
    "four_zones": FourZones,
    "moons": moons,
    "pinwheel": Pinwheel,
}


@pytest.mark.parametrize(
    ("name", "x64"),
    [(name, False) for name in PLANE]
    + [("two_modes", True), ("rings", True), ("four_zones", True)],
)
def test_density_in_the_plane_integrates_to_one(name, x64):
    make, half_width = PLANE[name]
    # Cell centres: no edge of the checkerboard falls on one.
    centres = (np.arange(400) + 0.5) / 400 * 2 * half_width - half_width
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    with jax.enable_x64(x64):
        log_prob = on_grid(make(), jnp.asarray(grid, float))
    mass = np.exp(np.asarray(log_prob, np.float64)).sum() * (2 * half_width / 400) ** 2
    assert abs(mass - 1) < 5e-4


@eqx.filter_jit
def on_grid(target, grid):
    return jax.lax.map(target.log_prob, grid, batch_size=4096)


@pytest.mark.parametrize("name", DRAWN)
def test_draws_agree_with_the_weights_and_with_log_prob(name, key):
    """Labels by chi-squared at level 1e-3; means over draws within 4.5 standard errors."""
    target, n = DRAWN[name](), 4000
    points, labels, log_prob, score = draw(target, key, n)
    assert points.shape == (n, target.dimension)

    expected = n * np.asarray(target.weights, np.float64)
    counts = np.bincount(labels, minlength=len(expected))
    assert scipy.stats.chisquare(counts, expected * n / expected.sum()).pvalue > 1e-3

    if name == "checkerboard":
        np.testing.assert_allclose(log_prob, -np.log(32))
        return
    # Under p, E[∂ log p] = 0 and E[x · ∂ log p] = −d (Stein).
    assert_mean(score, 0.0)
    assert_mean((points * score).sum(axis=1), -target.dimension)


@eqx.filter_jit
def draw(target, key, n):
    points = target.sample(key, n)
    log_prob, score = jax.vmap(jax.value_and_grad(target.log_prob))(points)
    return points, jax.vmap(target.label)(points), log_prob, score


def assert_mean(values, truth):
    values = np.asarray(values, np.float64)
    assert np.all(
        np.abs(values.mean(axis=0) - truth) < 4.5 * values.std(axis=0) / np.sqrt(len(values))
    )


@pytest.mark.parametrize(("dimension", "x64"), [(1, False), (5, False), (5, True)])
def test_mixture_log_prob_matches_scipy(dimension, x64):
    generator = np.random.default_rng(1)
    factors = generator.normal(size=(3, dimension, dimension))
    covariances = factors @ factors.transpose(0, 2, 1) + 0.5 * np.eye(dimension)
    means, weights = 3 * generator.normal(size=(3, dimension)), np.array([0.5, 0.3, 0.2])
    points = 3 * generator.normal(size=(50, dimension))
    truth = scipy.special.logsumexp(
        [
            scipy.stats.multivariate_normal(mean, covariance).logpdf(points) + np.log(weight)
            for mean, covariance, weight in zip(means, covariances, weights)
        ],
        axis=0,
    )
    with jax.enable_x64(x64):
        # Weights of any sum are normalised.
        mixture = gaussian_mixture(means, covariances, 10 * weights)
        found = jax.jit(jax.vmap(mixture.log_prob))(jnp.asarray(points, float))
    np.testing.assert_allclose(found, truth, rtol=1e-12 if x64 else 2e-4)


def test_mixture_draws_have_the_covariance_of_their_mode(key):
    covariances = np.array([[[2.0, 1.2], [1.2, 1.0]], [[1.0, -0.5], [-0.5, 1.0]]])
    mixture = gaussian_mixture(np.array([[0.0, 0.0], [20.0, 0.0]]), covariances, np.ones(2))
    points, labels, *_ = draw(mixture, key, 4000)
    for mode in range(2):
        # The standard error of each entry is at most 2 · sqrt(2 / 2000) = 0.063.
        found = np.cov(np.asarray(points, np.float64)[labels == mode].T)
        np.testing.assert_allclose(found, covariances[mode], atol=0.25)


def test_two_modes_is_the_published_target():
    target = two_modes(3, a=1.5, variance=0.05)
    np.testing.assert_allclose(target.weights, [2 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(target.means, [[-1.0] * 3, [2.0] * 3], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(target.scale_trils[1]) ** 2, 0.05 * np.eye(3), rtol=1e-6)


@pytest.mark.parametrize("make", [four_modes, warped_modes])
@pytest.mark.parametrize("dimension", [3, 5])
def test_four_means_have_the_norm_and_are_orthogonal_from_four_dimensions_on(make, dimension):
    means = np.asarray(make(dimension, 6.0).means)
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 6.0, rtol=1e-5)
    if dimension >= 4:
        np.testing.assert_allclose(means @ means.T, 36 * np.eye(4), atol=1e-4)


def test_four_modes_refuse_one_dimension():
    with pytest.raises(ValueError, match="dimension >= 2"):
        four_modes(1, 3.0)


def test_another_key_gives_other_modes():
    other = warped_modes(5, 6.0, key=jax.random.key(1))
    assert not np.allclose(warped_modes(5, 6.0).rotations, other.rotations)


@pytest.mark.parametrize("dimension", [2, 5])
def test_bend_is_inverted_and_preserves_volume(dimension, key):
    z = 2 * jax.random.normal(key, (dimension,))
    bent, back, jacobian = jax.jit(lambda z: (bend(z), unbend(bend(z)), jax.jacfwd(bend)(z)))(z)
    assert not np.allclose(bent, z)
    np.testing.assert_allclose(back, z, atol=1e-5)
    assert abs(np.linalg.slogdet(np.asarray(jacobian)).logabsdet) < 1e-5


def test_warped_modes_far_apart_have_the_entropy_of_normals_plus_that_of_the_choice(key):
    """Volume-preserving maps keep the entropy; within 4.5 standard errors."""
    log_prob = draw(warped_modes(5, 30.0), key, 4000)[2]
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    assert_mean(-log_prob, 2.5 * np.log(2 * np.pi * np.e) - (weights * np.log(weights)).sum())


def test_rings_have_the_stated_radial_law_and_are_finite_at_the_origin(key):
    radii = (0.2, 1.0, 2.0, 3.0)
    rings = Rings(radii, scale=0.3)
    radius = np.linalg.norm(draw(rings, key, 4000)[0], axis=1)
    laws = [scipy.stats.truncnorm(-r / 0.3, np.inf, r, 0.3) for r in radii]
    # Level 1e-3 with a fixed seed; the cut at r = 0 removes a quarter of the inner ring.
    test = scipy.stats.kstest(radius, lambda r: sum(law.cdf(r) for law in laws) / 4)
    assert test.pvalue > 1e-3
    at_half = sum(law.pdf(0.5) for law in laws) / 4 / (2 * np.pi * 0.5)
    points = jnp.array([[0.3, 0.4], [0.0, 0.0]])
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(rings.log_prob)))(points)
    np.testing.assert_allclose(value[0], np.log(at_half), rtol=1e-4)
    assert np.isfinite(value).all() and np.isfinite(gradient).all()


def test_checkerboard_squares():
    board = Checkerboard()
    assert board.log_prob(jnp.array([-3.9, -3.9])) == -jnp.log(32.0)
    assert board.log_prob(jnp.array([-3.9, -1.9])) == -jnp.inf
    assert board.log_prob(jnp.array([5.0, 0.5])) == -jnp.inf
    np.testing.assert_array_equal(jax.jit(jax.vmap(board.label))(board.centers), np.arange(8))


def test_targets_are_arguments_of_jitted_functions():
    @jax.jit
    def at_origin(target):
        return target.log_prob(jnp.zeros(2))

    means = jnp.array([[1.0, 0.0]])
    np.testing.assert_allclose(
        at_origin(GaussianMixture(means, jnp.eye(2)[None], jnp.ones(1))), -np.log(2 * np.pi) - 0.5
    )
