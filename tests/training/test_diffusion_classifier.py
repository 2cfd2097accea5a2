"""Diffusive classification: nothing pulls at the true energies, and weights of modes are learnt."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flowjax.distributions import StandardNormal

from tiltflow.data.errors import InputError
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.noise_energies import NoiseMLPEnergy
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.diffusion_classifier import DiffusionClassifier, DiffusionState
from tiltflow.training.loop import Schedule, train_energy

BATCHES, ROWS, LEVELS = 200, 200, 4
RATE = jnp.asarray(1.0)
# A base that is neither centred nor of variance one, and data that are not like it.
BASE = GaussianMixture(np.ones(1), np.array([[0.5, -1.0]]), np.diag([4.0, 0.25])[None])
MEAN, DEVIATION = np.array([0.5, -1.0]), np.array([2.0, 0.5])
DATA_MEAN, DATA_DEVIATION = np.array([1.0, -0.8]), np.array([1.0, 0.3])
METHOD = DiffusionClassifier(smallest=0.3, largest=3.0)


class Gaussians(eqx.Module):
    """Energies that make the base a normal density at every level, with a constant each."""

    mean: jax.Array
    deviation: jax.Array
    offset: jax.Array

    @property
    def levels(self):
        return len(self.offset)

    def at(self, x, level):
        log_prob = jax.scipy.stats.norm.logpdf(x, self.mean[level], self.deviation[level]).sum()
        return BASE.log_prob(x) - log_prob + self.offset[level]

    def __call__(self, x):
        return self.at(x, jnp.asarray(0))


def truth():
    """By the formula: variance shrinks by a^2 after (sigma w)^2 was added, around the base's."""
    sigma = np.geomspace(0.3, 3.0, LEVELS)[:, None]
    shrink = 1 / np.sqrt(1 + sigma**2)
    mean = MEAN + shrink * (DATA_MEAN - MEAN)
    deviation = shrink * np.sqrt(DATA_DEVIATION**2 + (sigma * DEVIATION) ** 2)
    return Gaussians(jnp.asarray(mean), jnp.asarray(deviation), jnp.zeros(LEVELS))


@eqx.filter_jit
def gradients(energy, method):
    """Over independent batches, one row each; the state is exact, not from draws of the base."""
    state = DiffusionState(jnp.asarray(MEAN), jnp.asarray(DEVIATION))

    def one(key):
        data_key, key = jax.random.split(key)
        batch = DATA_MEAN + DATA_DEVIATION * jax.random.normal(data_key, (ROWS, 2))
        model = TiltedEBM(BASE, energy)
        gradient, _, figures = method.gradient(key, model, None, state, batch, RATE)
        return gradient, figures

    return jax.lax.map(one, jax.random.split(jax.random.key(0), BATCHES))


def z_scores(leaf):
    """Of the mean over batches against zero."""
    rows = np.asarray(leaf, float)
    return rows.mean(axis=0) / (rows.std(axis=0) / np.sqrt(BATCHES) + 1e-9)


def largest_z(energy, method=METHOD):
    gradient, _ = gradients(energy, method)
    return max(np.abs(z_scores(leaf)).max() for leaf in jax.tree.leaves(gradient))


def test_nothing_pulls_at_the_true_energies():
    """20 parameters at 4.5 standard errors; energies that are wrong in one place from 8 on."""
    right = truth()
    assert largest_z(right) < 4.5
    for part, change in (
        (lambda it: it.mean, 0.3 * jnp.eye(LEVELS, 2)),
        (lambda it: it.deviation, 0.3 * jnp.eye(LEVELS, 2)),
        (lambda it: it.offset, 0.3 * jnp.eye(LEVELS)[2]),
    ):
        assert largest_z(eqx.tree_at(part, right, part(right) + change)) > 8
    # Levels in the wrong order, as if the classes were swapped.
    assert largest_z(jax.tree.map(lambda leaf: leaf[::-1], right)) > 8


def test_an_offset_is_pulled_back_by_classification_alone():
    """Scores do not see it; and the pull is down where the energy of a level is too high."""
    lifted = eqx.tree_at(lambda it: it.offset, truth(), jnp.array([0.0, 0.0, 0.3, 0.0]))
    pull = z_scores(gradients(lifted, METHOD)[0].offset)
    assert pull[2] > 8
    assert pull[1] < 0
    assert pull[3] < 0
    blind, _ = gradients(lifted, DiffusionClassifier(0.3, 3.0, classification=0.0))
    np.testing.assert_array_equal(blind.offset, 0)


def test_the_losses_where_base_and_data_are_alike(key):
    """Then all levels are the base: one nat of the score's loss, log 2 of the classifier's."""
    base = StandardNormal((2,))
    model = TiltedEBM(base, NoiseMLPEnergy(2, levels=6, width=4, depth=1, key=key))
    method = DiffusionClassifier(0.05, 5.0)
    state = method.init(key, base, None)
    np.testing.assert_allclose(state.mean, 0, atol=0.07)
    np.testing.assert_allclose(state.deviation, 1, atol=0.05)
    exact = DiffusionState(jnp.zeros(2), jnp.ones(2))
    batch = jax.random.normal(jax.random.key(1), (20_000, 2))
    figures = eqx.filter_jit(method.gradient)(key, model, None, exact, batch, RATE)[2]
    # The residual is a standard normal: |r|^2 / d has variance 2 / d = 1 a point.
    assert float(figures["score_matching_loss"]) == pytest.approx(1, abs=4.5 / np.sqrt(40_000) * 2)
    assert float(figures["classification_loss"]) == pytest.approx(np.log(2), abs=1e-5)


def test_cost_and_refusals(key):
    assert METHOD.evaluations(10) == 60
    with pytest.raises(InputError, match="does not grow"):
        DiffusionClassifier(smallest=1.0, largest=0.5)
    with pytest.raises(InputError, match="classification"):
        DiffusionClassifier(classification=-1.0)
    model = TiltedEBM(BASE, MLPEnergy(2, width=4, depth=1, key=key))
    state = DiffusionState(jnp.zeros(2), jnp.ones(2))
    with pytest.raises(InputError, match="MLPEnergy has no noise levels"):
        METHOD.gradient(key, model, None, state, jnp.zeros((3, 2)), RATE)


def learned(x, method, steps):
    """The grid and the learned mass on it; the base is centred at zero, wherever the rows are."""
    base = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.array([[[np.mean(x**2)]]]))
    energy = NoiseMLPEnergy(1, levels=8, width=32, depth=2, key=jax.random.key(1))
    rows = jnp.asarray(x[:, None])
    schedule = Schedule(steps=steps, chunk=500, learning_rate=1e-2, batch_size=256, averaging=0.99)
    trained = train_energy(jax.random.key(2), energy, base, method, None, rows, None, schedule)
    assert trained.stopped is None
    grid = np.linspace(-6, 6, 1201)
    look = eqx.filter_jit(lambda model, x: jax.vmap(model.log_density)(x))
    log_density = np.asarray(look(TiltedEBM(base, trained.energy), jnp.asarray(grid)[:, None]))
    mass = np.exp(log_density - log_density.max())
    return grid, mass / mass.sum()


def test_training_finds_a_gaussian():
    """With the noise of the first level, and shrunk by it; from the base's variance of 0.9.

    It goes on slowly: 0.348 after these steps, 0.324 after 3000, 0.303 after 8000, of 0.301.
    """
    x = np.random.default_rng(0).normal(0.8, 0.5, 2000)
    grid, mass = learned(x, DiffusionClassifier(0.3, 10.0), 1000)
    mean = mass @ grid
    assert mean == pytest.approx(0.8 / np.sqrt(1.09), abs=0.05)
    expected = (0.25 + 0.09 * np.mean(x**2)) / 1.09
    assert mass @ (grid - mean) ** 2 == pytest.approx(expected, abs=0.08)


class Mixtures(eqx.Module):
    """The noised modes at -2 and 2 at every level; only the weight of each level is learnt."""

    base: StandardNormal
    deviation: float
    logit: jax.Array
    offset: jax.Array

    @property
    def levels(self):
        return len(self.offset)

    def at(self, x, level):
        sigma = 0.1 * 100 ** (level / (self.levels - 1))
        shrink = 1 / jnp.sqrt(1 + sigma**2)
        width = shrink * jnp.sqrt(self.deviation**2 + sigma**2)
        modes = jax.scipy.stats.norm.logpdf(x, jnp.array([2.0, -2.0]) * shrink, width)
        weights = jax.nn.log_sigmoid(self.logit[level] * jnp.array([1.0, -1.0]))
        log_prob = jax.scipy.special.logsumexp(modes + weights)
        return self.base.log_prob(x) - log_prob + self.offset[level]

    def __call__(self, x):
        return self.at(x, jnp.asarray(0))


def modes(deviation):
    """Rows in modes of weights 2 : 1, and the share of the right one."""
    rng = np.random.default_rng(0)
    right = rng.random(3000) < 1 / 3
    return np.where(right, 2.0, -2.0) + deviation * rng.normal(size=3000), right.mean()


def test_weights_come_down_from_the_levels_where_modes_overlap():
    """All weights start at one half. Scores alone leave that of the first level where it was."""
    x, share = modes(0.25)
    base = StandardNormal((1,))
    energy = Mixtures(base, 0.25, jnp.zeros(8), jnp.zeros(8))
    schedule = Schedule(steps=600, chunk=300, learning_rate=2e-2, batch_size=256, averaging=0.98)
    rows = jnp.asarray(x[:, None])
    weights = {}
    for classification in (1.0, 0.0):
        method = DiffusionClassifier(0.1, 10.0, classification)
        trained = train_energy(
            jax.random.key(2), energy, base, method, None, rows, None, schedule
        ).energy
        weights[classification] = jax.nn.sigmoid(trained.logit)
    np.testing.assert_allclose(weights[1.0][:5], share, atol=0.05)
    # At level 4 the modes overlap; there a score knows the weight too.
    assert float(weights[0.0][4]) == pytest.approx(share, abs=0.05)
    assert float(weights[0.0][0]) == pytest.approx(0.5, abs=0.01)


def test_a_network_learns_the_weight_of_a_mode():
    """Against the density with the noise of the first level; the slowest test of the file."""
    x, share = modes(0.4)
    grid, mass = learned(x, DiffusionClassifier(0.1, 10.0), 2000)
    shrink = 1 / np.sqrt(1.01)
    deviation = shrink * np.sqrt(0.4**2 + 0.01 * np.mean(x**2))
    right, left = scipy.stats.norm.pdf(grid, [[2 * shrink], [-2 * shrink]], deviation)
    exact = share * right + (1 - share) * left
    exact /= exact.sum()
    seen = exact > 1e-12
    assert mass[grid > 0].sum() == pytest.approx(share, abs=0.05)
    assert np.sum(exact[seen] * np.log(exact[seen] / mass[seen])) < 0.05
