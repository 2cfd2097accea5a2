"""Gaussian mixtures against scipy and scikit-learn, and the choice among them."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture as SklearnMixture

from tiltflow.data.mixtures import four_modes
from tiltflow.models import gaussian_mixture as module
from tiltflow.models.files import fill_tree, tree_arrays
from tiltflow.models.gaussian_mixture import (
    GaussianMixture,
    best_gaussian,
    best_mixture,
    log_prob_on_host,
    mixture_template,
    most_components,
    padded,
    small_mixture,
    with_wide_twins,
)

WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[0.0, 0.0], [3.0, -1.0], [-2.0, 4.0]])
COVARIANCES = np.array([[[1.0, 0.6], [0.6, 0.5]], [[0.3, 0], [0, 2.0]], [[2.0, -1], [-1, 1.0]]])


@eqx.filter_jit
def log_prob_of(dist, x):
    return dist.log_prob(jnp.asarray(x, float))


@eqx.filter_jit
def draws_of(dist, key, n):
    return dist.sample(key, (n,))


def mixture_of(components):
    weights = WEIGHTS[:components] / WEIGHTS[:components].sum()
    return GaussianMixture(weights, MEANS[:components], COVARIANCES[:components])


def reference_log_prob(x, components):
    weights = WEIGHTS[:components] / WEIGHTS[:components].sum()
    parts = [
        np.log(weight) + scipy.stats.multivariate_normal(mean, covariance).logpdf(x)
        for weight, mean, covariance in zip(weights, MEANS, COVARIANCES)
    ]
    return logsumexp(parts, axis=0)


def mass_on_grid(dist, half_width=12.0, cells=300):
    centres = (np.arange(cells) + 0.5) / cells * 2 * half_width - half_width
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    log_prob = log_prob_of(dist, grid)
    return np.exp(np.asarray(log_prob, float)).sum() * (2 * half_width / cells) ** 2


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize(("x64", "tolerance"), [(False, 1e-4), (True, 1e-12)])
def test_log_prob_is_that_of_scipy(components, x64, tolerance):
    x = np.random.default_rng(0).normal(0, 4, (100, 2))
    with jax.enable_x64(x64):
        log_prob = np.asarray(log_prob_of(mixture_of(components), x))
    expected = reference_log_prob(x, components)
    assert expected.min() < -30
    np.testing.assert_allclose(log_prob, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("components", [1, 3])
def test_density_integrates_to_one(components):
    assert abs(mass_on_grid(mixture_of(components)) - 1) < 1e-4


def test_draws_have_the_moments_of_the_mixture(key):
    """Every first and second moment within 4.5 standard errors (level about 1e-5 each)."""
    n = 20_000
    x = np.asarray(draws_of(mixture_of(3), key, n), float)
    products = np.concatenate([x, x[:, :1] * x, x[:, 1:] ** 2], axis=1)
    second = np.einsum("k,kij->ij", WEIGHTS, COVARIANCES + MEANS[:, :, None] * MEANS[:, None])
    expected = np.concatenate([WEIGHTS @ MEANS, second[0], second[1, 1:]])
    z = (products.mean(0) - expected) / (products.std(0) / n**0.5)
    assert np.abs(z).max() < 4.5


def test_best_gaussian_takes_as_many_parameters_as_the_rows_can_bear():
    rng = np.random.default_rng(1)
    many = rng.multivariate_normal([1.0, 2.0], COVARIANCES[0], 4000)
    gaussian, description, *_ = best_gaussian(many[:2000], many[2000:])
    assert description == "full covariance"
    np.testing.assert_allclose(gaussian.means[0], many[:2000].mean(0), rtol=1e-5)
    covariance = np.asarray(gaussian.scale_trils[0] @ gaussian.scale_trils[0].T)
    np.testing.assert_allclose(covariance, np.cov(many[:2000].T, bias=True), atol=1e-4)

    independent = rng.normal(size=(640, 8))
    assert best_gaussian(independent[:40], independent[40:])[1] == "0 factors"

    one_factor = rng.normal(size=(1060, 1)) * np.linspace(1, 2, 16) + rng.normal(size=(1060, 16))
    x, held_out = one_factor[:60], one_factor[60:]
    gaussian, description, *_ = best_gaussian(x, held_out)
    assert description == "1 factors"
    full = scipy.stats.multivariate_normal(x.mean(0), np.cov(x.T, bias=True))
    gain = float(log_prob_of(gaussian, held_out).mean()) - full.logpdf(held_out).mean()
    assert gain > 0.5

    column = rng.normal(3, 2, (200, 1))
    gaussian, *_ = best_gaussian(column[:100], column[100:])
    expected = scipy.stats.norm(column[:100].mean(), column[:100].std()).logpdf(column[100:, 0])
    log_prob = log_prob_of(gaussian, column[100:])
    np.testing.assert_allclose(log_prob, expected, atol=1e-4)


def two_clusters(kind, rng, n):
    """Clusters whose covariances differ, are equal, or have no correlations, in 4-D."""
    covariances = {
        "full": [np.eye(4) * 0.3 + 0.7, 2 * np.eye(4) - 0.4],
        "tied": [np.eye(4) * 0.2 + 0.8] * 2,
        "diag": [np.diag([1, 0.1, 2, 0.5]), np.diag([0.1, 1, 0.5, 2])],
    }[kind]
    rows = [
        rng.multivariate_normal(np.full(4, mean), covariance, n // 2)
        for mean, covariance in zip([-4.0, 4.0], covariances)
    ]
    return rng.permutation(np.concatenate(rows))


@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_best_mixture_finds_the_kind_and_is_that_of_scikit_learn(kind):
    rows = two_clusters(kind, np.random.default_rng(2), 1200)
    x, held_out = rows[:400], rows[400:]
    mixture, description, *_ = best_mixture(x, held_out, seed=3)
    assert description == f"2 components, {kind} covariances"
    reference = SklearnMixture(2, covariance_type=kind, reg_covar=1e-5, random_state=3).fit(x)
    log_prob = log_prob_of(mixture, held_out)
    np.testing.assert_allclose(log_prob, reference.score_samples(held_out), atol=2e-3, rtol=1e-4)


def test_em_is_started_again_where_one_start_can_put_two_components_in_one_mode():
    target = four_modes(16, 3.5)
    x = np.asarray(target.sample(jax.random.key(1), 4000), float)
    fresh = np.asarray(target.sample(jax.random.key(2), 2000), float)
    once = SklearnMixture(4, covariance_type="diag", reg_covar=1e-5, random_state=2).fit(x[400:])
    fitted = best_mixture(x[400:], x[:400], seed=2)
    for mixture in (fitted.density, fitted.fit(x)):
        assert log_prob_on_host(mixture, fresh).mean() > once.score(fresh) + 0.3


@pytest.mark.parametrize(
    "kind, components, least, starts",
    # Numbers to learn by hand: 3 weights, 8 places, and 8, 3 or 12 of covariances, in two columns.
    [("diag", 4, 190, 6), ("tied", 4, 140, 6), ("full", 4, 230, 6), ("full", 2, 110, 12)],
)
def test_em_is_started_once_where_rows_are_few(monkeypatch, kind, components, least, starts):
    monkeypatch.setattr(module, "_run_em", lambda mixture, x: mixture.n_init)
    rows = np.random.default_rng(0).normal(size=(least, 2))
    assert module._fit_mixture(rows, kind, components, 0) == starts
    assert module._fit_mixture(rows[1:], kind, components, 0) == 1
    assert module._fit_mixture(rows, kind, 1, 0) == 1


def test_the_best_mixture_goes_on_from_where_it_is_when_it_is_fitted_to_more_rows(monkeypatch):
    rows = two_clusters("full", np.random.default_rng(2), 600)
    fitted = best_mixture(rows[:300], rows[300:], seed=0)
    started = []

    def starts_of(mixture, x):
        started.append(mixture.warm_start and hasattr(mixture, "converged_"))
        return run_em(mixture, x)

    run_em = module._run_em
    monkeypatch.setattr(module, "_run_em", starts_of)
    first, second = fitted.fit(rows), fitted.fit(rows)
    assert started == [True, True]
    # So it is fitted to more rows than the search looks at.
    monkeypatch.setattr(module, "SEARCH_ROWS", 300)
    best_mixture(rows, rows[300:], seed=0, max_components=2, quick=True)
    assert started[-1] and not any(started[2:-1])
    # What was found is not changed by it.
    np.testing.assert_array_equal(first.means, second.means)
    assert not np.array_equal(first.means, fitted.density.means)


def test_what_the_search_has_fitted_is_not_fitted_again(monkeypatch):
    rows = two_clusters("full", np.random.default_rng(2), 600)
    ran = []

    def told(mixture, x):
        ran.append((mixture.covariance_type, mixture.n_components, len(x)))
        return run_em(mixture, x)

    run_em = module._run_em
    monkeypatch.setattr(module, "_run_em", told)
    fitted = best_mixture(rows[:500], rows[500:], seed=0, quick=True)
    assert fitted.description == "2 components, full covariances"
    assert ("full", 2, 500) in ran and len(set(ran)) == len(ran)


def test_the_search_goes_further_where_columns_are_few():
    assert [most_components(d) for d in (1, 2, 4, 5, 6, 100)] == [128, 128, 128, 64, 32, 32]
    rng = np.random.default_rng(7)
    places = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), axis=-1).reshape(-1, 2)
    rows = rng.permutation(np.repeat(places, 40, axis=0)) + 0.02 * rng.normal(size=(2560, 2))
    x, held_out = rows[:2000], rows[2000:]
    few = best_mixture(x, held_out, seed=0)
    many = best_mixture(x, held_out, seed=0, max_components=most_components(2))
    assert few.density.means.shape == (32, 2) and len(many.density.means) > 32
    assert many.scores.mean() > few.scores.mean() + 0.3


def test_few_rows_get_few_components():
    x = np.random.default_rng(5).normal(size=(60, 2))
    assert small_mixture(x, seed=0).means.shape == (3, 2)
    assert small_mixture(x[:15], seed=0).means.shape == (1, 2)
    assert small_mixture(np.tile(x, (9, 1)) + np.arange(540)[:, None], seed=0).means.shape == (4, 2)


def test_a_template_takes_the_stored_arrays():
    x = np.random.default_rng(6).normal(size=(90, 3)) * [1, 2, 3]
    fitted, template = small_mixture(x, seed=0), mixture_template(3, 3)
    filled = fill_tree("base", template, tree_arrays("base", fitted), "run")
    np.testing.assert_array_equal(log_prob_of(filled, x), log_prob_of(fitted, x))
    assert not np.allclose(log_prob_of(template, x), log_prob_of(fitted, x), atol=0.1)


def test_padding_changes_neither_density_nor_draws(key):
    """Nor the gradient, which a weight of zero must not turn into nan."""
    mixture = GaussianMixture(
        np.array([0.3, 0.7]), np.array([[0.0, 1.0], [4.0, 2.0]]), COVARIANCES[:2]
    )
    wide = padded(mixture, 5)
    assert wide.means.shape == (5, 2)
    x = jax.random.normal(key, (50, 2)) * 3
    np.testing.assert_allclose(wide.log_prob(x), mixture.log_prob(x), rtol=1e-6)
    gradients = [jax.vmap(jax.grad(it.log_prob))(x) for it in (wide, mixture)]
    np.testing.assert_allclose(*gradients, rtol=1e-5)
    np.testing.assert_array_equal(wide.sample(key, (50,)), mixture.sample(key, (50,)))
    assert padded(mixture, 2) is mixture


def test_wide_twins_are_a_density_with_heavier_tails():
    """A quarter of the weight twice as wide, at d = 1 by quadrature and at d = 16 in the tail."""
    one = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones((1, 1, 1)))
    twins = with_wide_twins(one, 0.25)
    x = np.linspace(-30, 30, 20_001)[:, None]
    density = np.exp(log_prob_on_host(twins, x))
    assert np.trapezoid(density, x[:, 0]) == pytest.approx(1, abs=1e-5)
    assert np.trapezoid(density * x[:, 0] ** 2, x[:, 0]) == pytest.approx(0.75 + 0.25 * 5, rel=1e-4)
    high = GaussianMixture(np.ones(1), np.zeros((1, 16)), np.eye(16)[None])
    far = np.full((1, 16), 2.5)
    gain = log_prob_on_host(with_wide_twins(high, 0.05), far) - log_prob_on_host(high, far)
    assert gain > 10


def test_the_density_on_the_host_is_that_of_jax():
    rng = np.random.default_rng(0)
    roots = np.tril(rng.normal(size=(3, 4, 4))) + 2 * np.eye(4)
    mixture = GaussianMixture(
        np.array([0.2, 0.3, 0.5]), rng.normal(size=(3, 4)), roots @ roots.transpose(0, 2, 1)
    )
    x = rng.normal(size=(50, 4))
    expected = mixture.log_prob(jnp.asarray(x, float))
    np.testing.assert_allclose(log_prob_on_host(mixture, x), expected, rtol=1e-4)


@pytest.mark.parametrize("rows, threads", [(40, 1), (60, None)])
def test_em_takes_one_thread_unless_the_table_is_large(monkeypatch, rows, threads):
    asked = []

    def limits(count):
        asked.append(count)
        return contextlib.nullcontext()

    monkeypatch.setattr("threadpoolctl.threadpool_limits", limits)
    monkeypatch.setattr(module, "ONE_THREAD", 100)
    small_mixture(np.random.default_rng(0).normal(size=(rows, 2)), seed=0)
    assert asked == [threads]
