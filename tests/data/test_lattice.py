"""The φ⁴ chain: the transfer matrix against quadrature, Laplace's formula and published figures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from tiltflow.data.errors import InputError
from tiltflow.data.lattice import (
    PhiFourChain,
    central_sites,
    exact_log_odds,
    exact_log_z,
    minima,
)

FIELDS = (0.0, 0.025, 0.05, 0.075, 0.1)
# Grenioux's code for "SLIPS", github h2o64/slips, `benchmark_utils.py`.
PUBLISHED = (0.0, 7.50320435, 14.9925537, 22.4531708, 29.8685608)


def brute_force(chain, log_density):
    """Log Z of the negative phase, of the positive one and of all, on a full grid of 100^d."""
    x, weights = np.polynomial.legendre.leggauss(50)
    half = 3.5 / 2
    x, weights = np.r_[half * (x - 1), half * (x + 1)], half * np.r_[weights, weights]
    points, log_weights = (
        np.stack(np.meshgrid(*[part] * chain.dimension), axis=-1).reshape(-1, chain.dimension)
        for part in (x, np.log(weights))
    )
    with jax.enable_x64(True):
        at = jax.jit(jax.vmap(lambda point: (log_density(point), chain.label(point))))
        log_density, label = (np.asarray(part) for part in at(jnp.asarray(points)))
    terms = log_density + log_weights.sum(axis=1)
    return [logsumexp(terms[keep]) for keep in (label == 0, label == 1, label < 3)]


@pytest.mark.parametrize(("dimension", "central"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)])
def test_transfer_matrix_agrees_with_quadrature_over_all_sites(dimension, central):
    # So soft that all phases, walls and ends weigh in.
    chain = PhiFourChain(0.3, dimension, 0.5, inverse_temperature=1.5, central=central)
    with jax.enable_x64(True):
        chain64 = jax.tree.map(lambda leaf: leaf.astype(float), chain)
    np.testing.assert_allclose(
        exact_log_z(chain), brute_force(chain64, chain64.log_density), atol=1e-6
    )


@pytest.mark.parametrize(
    "mutant",
    [
        lambda chain, x: chain.log_density(-x),
        lambda chain, x: chain.log_density(x) + 0.5 * x[0] ** 2,
        lambda chain, x: chain.log_density(x) / 2,
    ],
    ids=["sign of the field", "one end free", "half the energy"],
)
def test_a_wrong_density_disagrees_with_the_transfer_matrix(mutant):
    chain = PhiFourChain(0.3, 2, 0.5, inverse_temperature=1.5)
    wrong = brute_force(chain, lambda x: mutant(chain, x))
    assert np.abs(np.subtract(exact_log_z(chain), wrong)).max() > 0.05


@pytest.mark.parametrize("central", [1, 4, 5])
def test_phases_weigh_the_same_without_a_field(central):
    chain = PhiFourChain(0.0, 9, central=central)
    assert abs(exact_log_odds(chain)) < 1e-9
    assert exact_log_odds(PhiFourChain(0.01, 9, central=central)) > 0.1


@pytest.mark.parametrize("dimension", [2, 3, 100, 101])
def test_central_sites_lie_in_the_middle(dimension):
    one = central_sites(PhiFourChain(0.0, dimension, central=1))
    assert (one.start, one.stop) == (dimension // 2, dimension // 2 + 1)
    half = central_sites(PhiFourChain(0.0, dimension))
    assert half.stop - half.start == dimension // 2
    assert abs(half.start - (dimension - half.stop)) <= 1


def test_label_tells_the_phases_from_a_wall():
    chain = PhiFourChain(0.05, 8)
    negative, positive = minima(chain)
    wall = np.where(np.arange(8) < 4, negative, positive)
    labels = jax.vmap(chain.label)(jnp.asarray(np.stack([negative, positive, wall]), float))
    np.testing.assert_array_equal(labels, [0, 1, 2])


@eqx.filter_jit
def derivatives(chain, points):
    """Log-density, its gradient and its Hessian at every point."""
    density = chain.log_density
    return (
        jax.vmap(density)(points),
        jax.vmap(jax.grad(density))(points),
        jax.vmap(jax.hessian(density))(points),
    )


def log_determinants(chain, points):
    with jax.enable_x64(True):
        value, _, hessian = derivatives(chain, jnp.asarray(points))
    return np.asarray(value), np.linalg.slogdet(-np.asarray(hessian)).logabsdet


@pytest.mark.parametrize("field", [0.0, 0.1])
def test_minima_are_minima(field):
    chain = PhiFourChain(field)
    points = minima(chain)
    with jax.enable_x64(True):
        _, gradient, hessian = derivatives(chain, jnp.asarray(points))
    # The chain's constants are float32: the minima are those of their rounded values.
    assert np.abs(gradient).max() < 1e-4
    assert np.linalg.eigvalsh(np.asarray(hessian)).max() < -1
    labels = jax.vmap(chain.label)(jnp.asarray(points, float))
    np.testing.assert_array_equal(labels, [0, 1])


def test_a_field_that_leaves_one_minimum_is_refused():
    with pytest.raises(
        InputError, match=r"chain: with field 1 and coupling 0\.1 a phase has no minimum"
    ):
        minima(PhiFourChain(1.0))


def test_log_z_approaches_laplaces_formula_when_cold():
    """Z ~ exp(log_density) (2π)^(d/2) / sqrt(det H) at a minimum; its error is of order 1 / β."""
    errors = []
    for beta in (160.0, 320.0):
        chain = PhiFourChain(0.05, 20, 0.25, inverse_temperature=beta)
        value, log_det = log_determinants(chain, minima(chain))
        laplace = value + 10 * np.log(2 * np.pi) - log_det / 2
        errors.append(np.abs(np.subtract(exact_log_z(chain)[:2], laplace)))
    np.testing.assert_array_less(errors[0], 0.1)
    np.testing.assert_allclose(errors[0] / errors[1], 2, atol=0.3)


def test_log_odds_of_the_long_chain():
    """The table of the module: exact by two definitions of a phase, and where the old one stems."""
    half = [exact_log_odds(PhiFourChain(field)) for field in FIELDS]
    middle = [exact_log_odds(PhiFourChain(field, central=1)) for field in FIELDS]
    np.testing.assert_allclose(half, [0, 7.7918, 15.5702, 23.3208, 31.0259], atol=1e-3)
    np.testing.assert_allclose(middle, [0, 7.7917, 15.5665, 22.0269, 23.4009], atol=1e-3)


@pytest.mark.parametrize(("field", "published"), list(zip(FIELDS, PUBLISHED)))
def test_published_log_odds_are_laplaces_with_twice_the_log_determinant(field, published):
    chain = PhiFourChain(field)
    value, log_det = log_determinants(chain, minima(chain))
    without = value[0] - value[1]
    difference = log_det[1] - log_det[0]
    assert abs(without + difference - published) < 0.011
    if field > 0:
        assert abs(without + difference / 2 - published) > 0.3
        assert abs(exact_log_odds(chain) - published) > 0.25


def test_central_sites_beyond_the_chain_are_refused():
    with pytest.raises(InputError, match="central: 4 of 3 sites"):
        PhiFourChain(0.0, 3, central=4)
