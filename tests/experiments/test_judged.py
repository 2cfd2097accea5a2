"""Judgement of models whose every figure is known by hand, in the plane and above it."""

import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.mixtures import four_modes, two_modes
from tiltflow.evaluation.distances import sliced_wasserstein
from tiltflow.experiments import judged as module
from tiltflow.experiments.judged import (
    NoEnergy,
    judge_chains,
    judge_model,
    to_model,
)
from tiltflow.experiments.problem import make_problem, truth_in_model_units
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampler import SampleResult

WEIGHTS = np.array([0.4, 0.6])


class Shift(eqx.Module):
    """An energy that is a constant: log Z moves, the density does not."""

    nats: jax.Array

    def __call__(self, x):
        return -self.nats


class Wild(eqx.Module):
    """No number beyond a line, and no bottom before it."""

    slope: jax.Array

    def __call__(self, x):
        return jnp.where(x[0] > 1.5, jnp.nan, self.slope * x[0] ** 3)


def as_base(problem, weights):
    """The target with other weights, in model units."""
    target = problem.target
    means = (np.asarray(target.means, float) - problem.mean) / problem.scale
    roots = np.asarray(target.scale_trils, float) / problem.scale[:, None]
    return GaussianMixture(np.asarray(weights), means, roots @ roots.transpose(0, 2, 1))


@pytest.fixture(scope="module")
def plane():
    return make_problem(two_modes(), rows=2000, seed=0)


@pytest.fixture(scope="module")
def judged(plane):
    """Weights .4 and .6 in the place of 2/3 and 1/3, under an energy of -3 nats."""
    model = TiltedEBM(as_base(plane, WEIGHTS), Shift(jnp.asarray(3.0)))
    return judge_model(plane, model, seed=0, points=4000)


def test_a_reweighted_model_in_the_plane_has_the_figures_by_hand(plane, judged):
    truth = np.array([2 / 3, 1 / 3])
    assert judged.status == "quadrature"
    assert judged.log_z == pytest.approx(3, abs=1e-3)
    np.testing.assert_allclose(judged.weights, WEIGHTS, atol=1e-3)
    assert judged.weight_error_truth == pytest.approx(truth[0] - 0.4, abs=1e-3)
    assert judged.weight_error_data == pytest.approx(plane.share[0] - 0.4, abs=1e-3)
    assert judged.kl == pytest.approx(truth @ np.log(truth / WEIGHTS), abs=1e-3)
    assert judged.reverse_kl == pytest.approx(WEIGHTS @ np.log(WEIGHTS / truth), abs=1e-3)
    # Blind to the weights, but for what is between the modes; the samples see them.
    assert judged.fisher < 0.01
    assert judged.sliced_wasserstein > 5 * judged.sliced_wasserstein_floor


def test_the_truth_itself_has_no_errors(plane):
    model = TiltedEBM(as_base(plane, plane.target.weights), NoEnergy())
    found = judge_model(plane, model, seed=0, points=4000)
    assert found.kl == pytest.approx(0, abs=1e-4)
    assert found.weight_error_truth < 1e-3
    assert found.sliced_wasserstein < 2 * found.sliced_wasserstein_floor


def test_a_model_that_ran_away_is_broken_and_nothing_fails(plane):
    for energy in (Shift(jnp.asarray(jnp.nan)), Wild(jnp.asarray(3e38))):
        found = judge_model(plane, TiltedEBM(as_base(plane, WEIGHTS), energy), seed=0, points=100)
        assert found.status == "broken" and found.reasons
        assert np.isnan(found.kl) and np.isnan(found.weights).all()


@pytest.fixture(scope="module")
def solid():
    return make_problem(four_modes(3, 4.0), rows=2000, seed=0)


class Sampled(SampleResult):
    """What `tiltflow.sample` returns, as far as it is looked at here: one mode was not seen."""

    def mode_weights(self, label_fn=None):
        assert label_fn(self.samples).shape == (len(self.samples),)
        weights = np.array([0.5, 0.25, 0.25])
        half = 1.96 * np.array([0.002, 0.003, 0.001])
        intervals = np.stack([weights - half, weights + half], axis=1)
        return types.SimpleNamespace(labels=np.arange(3), weights=weights, intervals=intervals)


def sampled(draws):
    nothing = Sampled(*[None] * len(SampleResult._fields))
    return nothing._replace(
        samples=draws,
        chains=np.zeros((32, 64, 3)),
        log_z=3.0,
        log_z_stderr=0.01,
        diagnostics=types.SimpleNamespace(ess_bulk=np.full(3, 1024.0)),
        verdict=types.SimpleNamespace(status="doubtful", reasons=("Some doubt.",)),
    )


def test_above_the_plane_the_samplers_findings_are_judged(solid, monkeypatch):
    """Against figures by hand, within four standard errors; a mode that was not seen has none."""
    truth, weights = np.asarray(solid.target.weights, float), np.array([0.5, 0.25, 0.25])
    base = as_base(solid, [*weights, 1e-30])
    draws = np.asarray(base.sample(jax.random.key(0), (4000,)), float)
    model = TiltedEBM(as_base(solid, np.full(4, 0.25)), Shift(jnp.asarray(3.0)))
    asked = []

    def sample(log_density, starts, **options):
        asked.append(starts)
        return sampled(draws)

    monkeypatch.setattr(module, "sample", sample)
    found = judge_model(solid, model, seed=0, points=4000)
    np.testing.assert_array_equal(asked[0], solid.x[: module.CHAINS])
    assert (found.status, found.reasons) == ("doubtful", ["Some doubt."])
    assert found.weights == [0.5, 0.25, 0.25, 0.0]
    assert found.weight_error_truth == pytest.approx(0.1)
    assert found.weight_stderr == pytest.approx(0.003)
    assert abs(found.kl - truth @ np.log(truth / 0.25)) < 4 * found.kl_stderr
    assert 0.01 < found.kl_stderr < 0.03
    # Of these draws, under this model: its weights are 1/4, whatever the draws' are.
    expected = weights @ np.log(0.25 / truth[:3])
    assert abs(found.reverse_kl - expected) < 4 * found.reverse_kl_stderr
    wrong = judge_model(solid, TiltedEBM(model.base, Shift(jnp.asarray(4.0))), seed=0, points=4000)
    assert wrong.kl == pytest.approx(found.kl - 1, abs=1e-4)


def test_a_flow_alone_is_drawn_from_directly(solid, monkeypatch):
    monkeypatch.delattr(module, "sample")
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    found = judge_model(solid, TiltedEBM(as_base(solid, weights), NoEnergy()), seed=0, points=4000)
    assert (found.status, found.log_z) == ("exact draws", 0)
    assert found.weight_stderr == pytest.approx(np.sqrt(0.24 / module.SAMPLES), rel=0.02)
    np.testing.assert_allclose(found.weights, weights, atol=4 * found.weight_stderr)


def test_a_model_that_the_sampler_refuses_is_broken(solid, monkeypatch):
    def sample(*arguments, **options):
        raise ValueError("log_density: is nan at row 7")

    monkeypatch.setattr(module, "sample", sample)
    model = TiltedEBM(as_base(solid, np.full(4, 0.25)), Shift(jnp.asarray(0.0)))
    found = judge_model(solid, model, seed=0, points=100)
    assert found.status == "broken" and "row 7" in found.reasons[0]


def test_the_standardised_truth_is_that_of_the_target(plane):
    rows = np.asarray(plane.data[:5])
    standardised = truth_in_model_units(plane)
    found = jax.vmap(standardised.log_prob)(jnp.asarray(to_model(plane, rows)))
    expected = jax.vmap(plane.target.log_prob)(jnp.asarray(rows)) + np.log(plane.scale).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert sliced_wasserstein(to_model(plane, rows), rows, seed=0) > 0


def test_chains_that_stand_still_are_told_from_chains_that_mix():
    generator = np.random.default_rng(0)
    mixed = list(generator.standard_normal((8, 100, 2)))
    start = generator.standard_normal((100, 2))
    stuck = [start + 0.1 * step for step in generator.standard_normal((8, 100, 2))]
    assert judge_chains(mixed)["chains_rhat"] < 1.1 < 2 < judge_chains(stuck)["chains_rhat"]
    assert judge_chains(mixed)["chains_ess"] > 0.5 > judge_chains(stuck)["chains_ess"]
    assert np.isnan(judge_chains(mixed[:3])["chains_rhat"])
