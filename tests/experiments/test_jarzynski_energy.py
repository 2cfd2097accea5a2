"""The parametric energy is exactly what it says: its log Z, its masses, and its divergence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import StandardNormal
from scipy.integrate import quad
from scipy.stats import multivariate_normal

from tiltflow.data.published_mixtures import jarzynski_mixture
from tiltflow.experiments.jarzynski_energy import (
    TwoModesEnergy,
    best_energy,
    first_energy,
    judge_energy,
)
from tiltflow.experiments.judged import draw_truth
from tiltflow.models.tilted import TiltedEBM

D = 5


@pytest.fixture(scope="module")
def energy():
    """Means apart by 4, masses sigmoid(.7) = .668 below and .332 above."""
    a, b = np.zeros((2, D))
    a[:2], b[:2] = (-1.5, 0.4), (2.5, -0.3)
    return TwoModesEnergy(jnp.asarray(a), jnp.asarray(b), jnp.asarray(0.7))


@pytest.fixture(scope="module")
def target():
    return jarzynski_mixture(D)


def log_density(energy, x):
    return jax.vmap(TiltedEBM(StandardNormal((energy.a.size,)), energy).log_density)(x)


def test_the_model_is_exp_of_minus_u_on_the_standard_normal_base(energy):
    x = 3 * np.random.default_rng(0).standard_normal((50, D))
    near = [((x - np.asarray(mean)) ** 2).sum(axis=1) / 2 for mean in (energy.a, energy.b)]
    u = -np.log(np.exp(-near[0]) + np.exp(-near[1] - 0.7))
    np.testing.assert_allclose(log_density(energy, jnp.asarray(x)), -u, rtol=1e-5, atol=2e-5)


def test_log_z_is_that_of_quadrature():
    """In one dimension, where the integral is a number."""
    line = TwoModesEnergy(jnp.array([-1.0]), jnp.array([3.0]), jnp.asarray(-0.4))
    value = eqx.filter_jit(lambda x: log_density(line, x[None, None])[0])
    total, _ = quad(lambda x: np.exp(float(value(jnp.asarray(x)))), -9, 11, epsrel=1e-4, limit=80)
    assert float(line.log_z) == pytest.approx(np.log(total), abs=1e-4)


def test_log_z_and_the_mass_agree_with_importance_sampling(energy):
    """Seed 1; 4 standard errors, of 20 000 draws of a wide normal."""
    x = 2.2 * np.random.default_rng(1).standard_normal((20_000, D))
    log_q = multivariate_normal(np.zeros(D), 2.2**2 * np.eye(D)).logpdf(x)
    weights = np.exp(np.asarray(log_density(energy, jnp.asarray(x)), float) - log_q)
    z, stderr = weights.mean(), weights.std() / len(x) ** 0.5
    assert abs(np.exp(float(energy.log_z)) - z) < 4 * stderr
    # A point's mode by its nearer mean leaves the tails of the other one: 2.3 % of each.
    below = ((x - np.asarray(energy.a)) ** 2).sum(1) < ((x - np.asarray(energy.b)) ** 2).sum(1)
    mass, tail = float(energy.mass_below), 0.0207
    share = mass * (1 - tail) + (1 - mass) * tail
    residual = weights * (below - share) / z
    assert abs(residual.mean()) < 4 * residual.std() / len(x) ** 0.5


def test_the_mass_below_is_that_of_the_lower_mode_whatever_its_name(energy):
    swapped = TwoModesEnergy(energy.b, energy.a, -energy.z)
    below = 1 / (1 + np.exp(-0.7))
    assert float(energy.mass_below) == pytest.approx(below, rel=1e-6)
    assert float(swapped.mass_below) == pytest.approx(below, rel=1e-6)
    assert float(swapped.log_z) == pytest.approx(float(energy.log_z) + 0.7, rel=1e-6)


def test_the_truth_has_no_error_and_a_wrong_mass_has_its_own_divergence(target):
    """KL by Monte Carlo against the divergence of the masses alone, at 4 standard errors."""
    rows = draw_truth(target, 0, 2000)
    a, b = (jnp.asarray(mean) for mean in target.means)
    true = judge_energy(TwoModesEnergy(a, b, -jnp.log(jnp.asarray(3.0))), target, rows, seed=0)
    assert true.mass_error_truth < 1e-6 and true.means_error == 0
    assert abs(true.kl) < 1e-4 and abs(true.reverse_kl) < 1e-4 and true.fisher < 1e-6
    assert true.sliced_wasserstein < 3 * true.sliced_wasserstein_floor
    shifted = TwoModesEnergy(a.at[1].add(0.3), b, jnp.asarray(0.0))
    found = judge_energy(shifted, target, rows, seed=0)
    # The modes are 16 apart: the divergence is that of the masses and, within a mode, of the means.
    exact = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5) + 0.25 * 0.3**2 / 2
    assert abs(found.kl - exact) < 4 * found.kl_stderr and found.kl_stderr < 0.01
    # And the other way, where each mode has half of the mass; 4 standard errors of 20 000 draws.
    reverse = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75) + 0.5 * 0.3**2 / 2
    assert found.reverse_kl == pytest.approx(reverse, abs=4 * 0.6 / 20_000**0.5)
    # The score is wrong by .3 in the first mode alone, a quarter of the truth.
    assert found.fisher == pytest.approx(0.25 * 0.3**2 / 2, rel=0.05)
    assert found.sliced_wasserstein > 10 * found.sliced_wasserstein_floor
    assert found.means_error == pytest.approx(0.3, rel=1e-5)
    assert found.mass_error_truth == pytest.approx(0.25, abs=1e-6)


def test_the_best_energy_has_no_gradient(target):
    rows = draw_truth(target, 3, 1000)
    energy = best_energy(target, rows)
    assert judge_energy(energy, target, rows, seed=0).mass_error_data < 1e-6

    def loss(energy):
        density = log_density(energy, jnp.asarray(rows))
        return energy.log_z - density.mean()

    assert all(np.abs(part).max() < 1e-4 for part in jax.tree.leaves(eqx.filter_grad(loss)(energy)))


def test_the_start_is_two_equal_modes_almost_in_one_place():
    energy = first_energy(jax.random.key(0), 50)
    assert float(energy.mass_below) == 0.5
    assert float(energy.a[0]) == pytest.approx(-0.1, abs=0.04)
    assert float(energy.b[0]) == pytest.approx(0.1, abs=0.04)
    assert 0.005 < float(jnp.std(energy.a[1:])) < 0.015
