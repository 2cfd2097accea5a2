"""Preprocessing: inverses, Jacobians and densities, digits kept in float64, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tiltflow.data.errors import InputError
from tiltflow.data.preprocessing import (
    CHUNK,
    fit_preprocessing,
    preprocessing_template,
    to_model_units,
    to_user_units,
)

KINDS = ["standardise", "whiten", "gaussianise"]


def skewed_table(n):
    """Three dependent columns: far from 0 with a small spread, lognormal, Student t."""
    generator = np.random.default_rng(0)
    z = generator.normal(size=(n, 2))
    heavy = generator.standard_t(2, size=n)
    return np.stack([1e6 + z[:, 0], np.exp(z[:, 0] + z[:, 1]), 1e-3 * heavy + z[:, 1]], axis=1)


@pytest.fixture(scope="module")
def fitted():
    X = skewed_table(1000)
    return X, {kind: fit_preprocessing(X, kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_model_units_are_standard_and_go_back(fitted, kind):
    X, bijection = fitted[0], fitted[1][kind]
    Z, log_det = to_model_units(bijection, X)
    assert Z.dtype == log_det.dtype == np.float64
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(Z.std(axis=0), 1, rtol=1e-9)
    if kind == "whiten":
        np.testing.assert_allclose(np.cov(Z.T, bias=True), np.eye(3), atol=1e-9)
    # 1e6 ± 1 comes back to the last digits of float64.
    np.testing.assert_allclose(to_user_units(bijection, Z), X, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_log_det_is_that_of_the_jacobian(fitted, kind):
    X, bijection = fitted[0][:20], fitted[1][kind]
    with jax.enable_x64(True):
        jacobian = jax.jit(jax.vmap(jax.jacfwd(bijection.transform)))(jnp.asarray(X))
        inverse = jax.jit(jax.vmap(bijection.inverse_and_log_det))
        Z, log_det = to_model_units(bijection, X)
        back = inverse(jnp.asarray(Z))[1]
    np.testing.assert_allclose(log_det, np.linalg.slogdet(np.asarray(jacobian)).logabsdet)
    np.testing.assert_allclose(log_det, -np.asarray(back))


@pytest.mark.parametrize("kind", KINDS)
def test_density_in_user_units_integrates_to_one(kind):
    X = skewed_table(500)[:, :2]
    bijection = fit_preprocessing(X, kind)
    # Cells between the images of a fine grid in model units, so that the tails are covered too.
    edges = np.linspace(-6, 6, 161)
    corner = to_user_units(bijection, np.stack([edges, edges], axis=1))
    if kind == "whiten":
        corner = X.mean(axis=0) + edges[:, None] * X.std(axis=0)
    x, y = np.meshgrid(*((corner[1:] + corner[:-1]) / 2).T, indexing="ij")
    area = np.diff(corner[:, 0])[:, None] * np.diff(corner[:, 1])
    Z, log_det = to_model_units(bijection, np.stack([x.ravel(), y.ravel()], axis=1))
    log_prob = scipy.stats.norm.logpdf(Z).sum(axis=1) + log_det
    assert abs((np.exp(log_prob) * area.ravel()).sum() - 1) < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_template_has_the_structure_of_the_fitted_bijection(fitted, kind):
    leaves, structure = jax.tree.flatten(fitted[1][kind])
    blank, blank_structure = jax.tree.flatten(preprocessing_template(kind, 3))
    assert structure == blank_structure
    assert [np.shape(leaf) for leaf in leaves] == [np.shape(leaf) for leaf in blank]
    arrays = [leaf for leaf in leaves if np.ndim(leaf)]
    assert all(type(leaf) is np.ndarray and leaf.dtype == np.float64 for leaf in arrays)
    # Filled with stored arrays it is the fitted one.
    X = fitted[0][:5]
    filled = to_model_units(jax.tree.unflatten(blank_structure, leaves), X)
    np.testing.assert_array_equal(filled[0], to_model_units(fitted[1][kind], X)[0])
    identity = to_model_units(preprocessing_template(kind, 3), X)
    np.testing.assert_allclose(identity[0], X, rtol=1e-14)


def test_digits_survive_the_default_precision():
    X = np.array([[1e6 - 1e-6], [1e6], [1e6 + 2e-6]])
    Z, _ = to_model_units(fit_preprocessing(X, "standardise"), X)
    steps = np.diff(Z[:, 0])
    # 1e6 ± 1e-6 holds four digits in float64, none in float32.
    np.testing.assert_allclose(steps[1] / steps[0], 2.0, rtol=1e-3)
    assert not jax.config.jax_enable_x64


def test_tables_longer_than_a_chunk():
    X = np.arange(CHUNK + 3.0)[:, None]
    bijection = fit_preprocessing(X, "standardise")
    Z, log_det = to_model_units(bijection, X)
    np.testing.assert_allclose(Z[:, 0], (X[:, 0] - X.mean()) / X.std(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(log_det, -np.log(X.std()))


@pytest.mark.parametrize(
    ("law", "least_gain", "most_left"),
    [
        (scipy.stats.lognorm(1.0), 0.7, 0.05),
        (scipy.stats.lognorm(2.0), 2.5, 0.07),
        (scipy.stats.t(2), 0.4, 0.05),
        (scipy.stats.expon(), 0.35, 0.05),
    ],
)
def test_gaussianise_removes_most_of_the_divergence_from_a_gaussian(law, least_gain, most_left):
    """KL from the truth to the fitted density on 20 000 fresh values, nats per value."""
    generator = np.random.default_rng(0)
    X, fresh = (law.rvs((n, 1), random_state=generator) for n in (3000, 20_000))
    truth = law.logpdf(fresh[:, 0]).mean()
    divergence = {}
    for kind in ("standardise", "gaussianise"):
        Z, log_det = to_model_units(fit_preprocessing(X, kind), fresh)
        divergence[kind] = truth - (scipy.stats.norm.logpdf(Z[:, 0]) + log_det).mean()
    assert divergence["gaussianise"] < most_left
    assert divergence["standardise"] - divergence["gaussianise"] > least_gain


def test_gaussianised_draws_of_the_family_look_gaussian():
    """Kolmogorov-Smirnov at level 1e-2 on fresh draws, fixed seed."""
    generator = np.random.default_rng(3)
    z = generator.normal(size=(4000, 1))
    X = 50.0 + 4.0 * np.sinh((np.arcsinh(z) + 0.8) / 0.6)
    Z, _ = to_model_units(fit_preprocessing(X[:3000], "gaussianise"), X[3000:])
    assert scipy.stats.kstest(Z[:, 0], "norm").pvalue > 1e-2
    assert scipy.stats.kstest((X[3000:, 0] - X.mean()) / X.std(), "norm").pvalue < 1e-6


def test_gaussianise_leaves_gaussian_columns_affine():
    X = 3 + 2 * np.random.default_rng(1).normal(size=(1000, 1))
    Z, _ = to_model_units(fit_preprocessing(X, "gaussianise"), X)
    np.testing.assert_allclose(Z[:, 0], (X[:, 0] - X.mean()) / X.std(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("share", [0.3, 0.8, 0.999])
def test_gaussianise_survives_a_spike_of_equal_values(share):
    generator = np.random.default_rng(2)
    X = np.where(generator.random((2000, 1)) < share, 0.0, generator.normal(size=(2000, 1)))
    Z, log_det = to_model_units(fit_preprocessing(X, "gaussianise"), X)
    assert np.isfinite(Z).all() and np.isfinite(log_det).all()


def test_whiten_takes_nearly_collinear_columns_and_refuses_collinear_ones():
    generator = np.random.default_rng(4)
    X = generator.normal(size=(300, 3)) * [1.0, 1e4, 1e-4]
    near = np.column_stack([X, X[:, 0] + 1e-4 * X[:, 1] + 1e-3 * generator.normal(size=300)])
    Z, _ = to_model_units(fit_preprocessing(near, "whiten"), near)
    np.testing.assert_allclose(np.cov(Z.T, bias=True), np.eye(4), atol=1e-6)
    exact = np.column_stack([X, 2 * X[:, 2]])
    with pytest.raises(InputError, match=r"column '(c|d)' is a linear combination .* drop"):
        fit_preprocessing(exact, "whiten", ["a", "b", "c", "d"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_column_is_refused_by_name(kind):
    X = np.column_stack([np.arange(10.0), np.ones(10)])
    with pytest.raises(InputError, match="column 'x1' has standard deviation 0; drop it"):
        fit_preprocessing(X, kind)
