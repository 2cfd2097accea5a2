"""Basins: as many modes as there are, and the points in them that belong there."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.mixtures import eight_gaussians, four_modes, gaussian_mixture, two_modes
from tiltflow.data.targets import Rings
from tiltflow.evaluation import basins
from tiltflow.evaluation.basins import assign, find_modes


def unequal_modes(dimension, distance):
    """Four Gaussians with weights .4/.3/.2/.1, each squeezed in random directions."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(4, dimension))
    means *= distance / np.linalg.norm(means, axis=1, keepdims=True)
    covariances = []
    for size in (1.0, 0.3, 1.5, 0.5):
        axes = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0]
        spread = size * np.exp(rng.uniform(-2.3, 1.0, dimension))
        covariances.append(axes @ np.diag(spread) @ axes.T)
    return gaussian_mixture(means, np.array(covariances), np.array([0.4, 0.3, 0.2, 0.1]))


def agreement_with(target, x, labels):
    """The share of points whose mode is that of the target, once modes are matched."""
    truth = np.asarray(jax.vmap(target.label)(jnp.asarray(x)))
    match = [np.bincount(truth[labels == k]).argmax() for k in range(labels.max() + 1)]
    return np.mean(np.array(match)[labels] == truth)


class Potential(eqx.Module):
    """A plain function with a parameter, as a module."""

    function: callable
    strength: jax.Array

    def log_density(self, x):
        return self.function(self.strength, x)


def normal_points(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize(
    ("target", "count"),
    [
        (eight_gaussians(), 8),
        (unequal_modes(2, 5.0), 4),
        (unequal_modes(32, 10.0), 4),
        (Rings(), 4),
    ],
    ids=["eight", "unequal 2", "unequal 32", "rings"],
)
def test_modes_and_labels_are_the_targets(key, target, count):
    """As the Bayes classifier has it, whose own error is far below 1 % on all of these."""
    x = np.asarray(target.sample(key, 600), float)
    modes = find_modes(target.log_prob, x)
    assert len(modes.centers) == count
    assert agreement_with(target, x, modes.labels) > 0.99
    counts = np.bincount(modes.labels, minlength=count)
    assert np.all(np.diff(counts) <= 0) and counts.min() > 0
    fresh = np.asarray(target.sample(jax.random.key(9), 600), float)
    assert agreement_with(target, fresh, assign(target.log_prob, fresh, modes)) > 0.99


def test_centres_are_the_tops():
    target = unequal_modes(32, 10.0)
    x = np.asarray(target.sample(jax.random.key(1), 500), float)
    modes = find_modes(target.log_prob, x)
    np.testing.assert_allclose(modes.centers, target.means, atol=0.05)
    tops = jax.vmap(target.log_prob)(target.means)
    np.testing.assert_allclose(modes.log_density, tops, atol=0.02)


def test_float64_finds_the_same(key):
    target = two_modes()
    x = np.asarray(target.sample(key, 300), float)
    single = find_modes(target.log_prob, x)
    with jax.enable_x64(True):
        double_target = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, float)), target)
        double = find_modes(double_target.log_prob, x)
    assert np.array_equal(single.labels, double.labels)
    np.testing.assert_allclose(single.centers, double.centers, atol=1e-3)


def ripples(strength, x):
    return -0.5 * x @ x + strength * jnp.sin(6 * x).sum()


def test_ripples_below_the_barrier_are_one_mode():
    """Amplitude 0.3 dips by 0.6 nats at most; amplitude 2 makes modes of its own."""
    x = normal_points(500, 2)
    assert len(find_modes(Potential(ripples, jnp.array(0.3)).log_density, x).centers) == 1
    assert len(find_modes(Potential(ripples, jnp.array(2.0)).log_density, x).centers) > 3


def banana(width, x):
    return -0.5 * (x[0] / 2) ** 2 - 0.5 * ((x[1] - 0.5 * x[0] ** 2) / width) ** 2


@pytest.mark.parametrize(("width", "seed"), [(0.3, 0), (0.3, 1), (0.1, 0)])
def test_a_banana_is_one_mode(width, seed):
    """In the last two, a stray point creeps along the narrow end for longer than it is carried."""
    z = normal_points(500, 2, seed)
    x = np.stack([2 * z[:, 0], width * z[:, 1] + 0.5 * (2 * z[:, 0]) ** 2], axis=1)
    modes = find_modes(Potential(banana, jnp.array(width)).log_density, x)
    assert len(modes.centers) == 1
    np.testing.assert_allclose(modes.centers, 0.0, atol=0.01)


def rippled_ring(strength, x):
    radius = jnp.sqrt(x @ x + 1e-12)
    angle = jnp.arctan2(x[1], x[0])
    return -0.5 * ((radius - 3) / 0.1) ** 2 + strength * jnp.cos(5 * angle)


def ring_points(n):
    rng = np.random.default_rng(3)
    radius, angle = 3 + 0.1 * rng.normal(size=n), rng.uniform(0, 2 * np.pi, n)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_tops_along_a_ring_are_joined_around_it_and_not_across():
    """Dips of 0.8 nats along the ring join its five tops; dips of 3 part them."""
    x = ring_points(500)
    assert len(find_modes(Potential(rippled_ring, jnp.array(0.4)).log_density, x).centers) == 1
    assert len(find_modes(Potential(rippled_ring, jnp.array(1.5)).log_density, x).centers) == 5


def flat(strength, x):
    return -strength * (jnp.maximum(jnp.abs(x) - 1, 0.0) ** 2).sum()


def test_a_plateau_is_one_mode():
    x = np.random.default_rng(4).uniform(-1, 1, (500, 2))
    assert len(find_modes(Potential(flat, jnp.array(100.0)).log_density, x).centers) == 1


def pair(distance, x):
    return jnp.logaddexp(-0.5 * x[0] ** 2, -0.5 * (x[0] - distance) ** 2)


@pytest.mark.parametrize(("distance", "count"), [(3.2, 1), (5.0, 2)])
def test_the_barrier_of_two_equal_normals(distance, count):
    """3.2 apart: a dip of 0.6 nats; 5 apart: 2.4."""
    x = normal_points(400, 1) + distance * (np.arange(400) % 2)[:, None]
    modes = find_modes(Potential(pair, jnp.array(distance)).log_density, x)
    assert len(modes.centers) == count


def test_a_bump_in_a_valley_is_no_bridge():
    """By hand: tops 10 and 9, a bump at 2 between, 0.5 above the valleys on both sides."""
    edges, saddles = np.array([[0, 1], [1, 2]]), np.array([1.5, 1.5])
    labels = basins._persistent(np.array([10.0, 2.0, 9.0]), edges, saddles, 1.0)
    assert labels.tolist() == [0, 0, 2]
    chain = basins._persistent(np.array([10.0, 9.8, 9.6]), edges, np.array([9.5, 9.0]), 1.0)
    assert chain.tolist() == [0, 0, 0]


def test_narrow_modes_in_badly_scaled_columns(key):
    """Standard deviations of 1e-3 and 1e3, and modes of weights .9 and .1, eight apart."""
    target = gaussian_mixture(
        np.array([[0.0, 0.0], [8e-3, 8e3]]),
        np.array([np.diag([1e-6, 1e6]), np.diag([1e-6, 1e5])]),
        np.array([0.9, 0.1]),
    )
    x = np.asarray(target.sample(key, 600), float)
    modes = find_modes(target.log_prob, x)
    assert len(modes.centers) == 2
    assert agreement_with(target, x, modes.labels) > 0.99


def test_mutant_steps_as_long_as_they_like_are_caught(monkeypatch, key):
    monkeypatch.setattr(basins, "STRIDE", 4.0)
    target = Rings()
    x = np.asarray(target.sample(key, 600), float)
    modes = find_modes(target.log_prob, x)
    assert len(modes.centers) < 4 or agreement_with(target, x, modes.labels) < 0.9


def fenced(strength, x):
    return jnp.where(x[0] > -1, pair(strength, x), jnp.nan)


def test_points_where_the_density_is_not_finite_follow_their_neighbours():
    x = normal_points(400, 1) + 6.0 * (np.arange(400) % 2)[:, None]
    modes = find_modes(Potential(fenced, jnp.array(6.0)).log_density, x)
    assert len(modes.centers) == 2 and np.isfinite(modes.centers).all()
    left = modes.labels[x[:, 0] < -1]
    assert len(np.unique(left)) == 1 and left[0] == modes.labels[np.argmin(np.abs(x[:, 0]))]


def test_a_mode_that_the_first_points_missed_is_found():
    """Three points of 5000, none among the 512 evenly spaced ones, lie far away."""
    x = normal_points(5000, 1)
    x[[3, 1004, 4003]] += 8.0
    modes = find_modes(Potential(pair, jnp.array(8.0)).log_density, x)
    assert len(modes.centers) == 2
    assert np.bincount(modes.labels).tolist() == [4997, 3]


def nowhere(strength, x):
    return strength * jnp.nan * x[0]


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="points: found shape"):
        find_modes(two_modes().log_prob, np.array([[0.0, np.nan], [1.0, 1.0]]))
    with pytest.raises(InputError, match="log_density: finite at 0 of the points"):
        find_modes(Potential(nowhere, jnp.array(1.0)).log_density, normal_points(10, 2))


def test_another_parameter_is_not_compiled_again():
    traces = []

    def counted(strength, x):
        traces.append(1)
        return ripples(strength, x)

    x = normal_points(50, 2)
    find_modes(Potential(counted, jnp.array(0.1)).log_density, x)
    once = len(traces)
    find_modes(Potential(counted, jnp.array(0.2)).log_density, x)
    assert len(traces) == once


def test_neighbours_say_what_an_ascent_would_say(key):
    target = four_modes(16, 3.5)
    points = np.asarray(target.sample(key, 3000), float)
    modes = find_modes(target.log_prob, points[:1500])
    labels, sure = basins._by_neighbours(target.log_prob, points[1500:], modes)
    climbed, _ = basins._by_ascent(target.log_prob, points[1500:], modes)
    assert sure.mean() > 0.6
    assert (labels == climbed)[sure].mean() > 0.995


def test_a_dip_on_the_way_to_the_neighbours_leaves_it_to_the_ascent(key):
    target = two_modes(2, 1.0, 0.05)
    points = np.asarray(target.sample(key, 600), float)
    labels = np.asarray(jax.vmap(target.label)(points))
    modes = find_modes(target.log_prob, points[labels == 0])
    _, sure = basins._by_neighbours(target.log_prob, points, modes)
    assert sure[labels == 0].mean() > 0.9 and not sure[labels == 1].any()
