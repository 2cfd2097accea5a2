"""The Jarzynski experiment: costs, plain descent, cells that are kept, tables, a figure."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.published_mixtures import jarzynski_mixture
from tiltflow.experiments import jarzynski_mixture as module
from tiltflow.experiments.cells import read_cells
from tiltflow.experiments.jarzynski_descent import (
    MEANS_RATE,
    RATIO_RATE,
    Entrant,
    _stepped,
    descend,
    entrants,
)
from tiltflow.experiments.jarzynski_energy import TwoModesEnergy, first_energy
from tiltflow.experiments.judged import draw_truth
from tiltflow.experiments.problem import make_problem
from tiltflow.experiments.trial import Prepared
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.training.jarzynski import Jarzynski
from tiltflow.training.persistent import Persistent

D = 3


@pytest.fixture(scope="module")
def rows():
    return draw_truth(jarzynski_mixture(D), 0, 500)


@pytest.mark.parametrize("quick", [False, True])
def test_no_method_is_given_less_than_the_balanced_one(quick):
    methods = entrants(quick=quick)
    costs = {each.name: each.steps * each.method.evaluations(10_000) for each in methods}
    assert min(costs, key=costs.__getitem__) == "balanced"
    assert {each.steps for each in methods} == {2000 if quick else 8000}


def test_a_step_goes_down_the_gradient_at_the_authors_rates():
    ones = TwoModesEnergy(jnp.ones(2), jnp.ones(2), jnp.asarray(1.0))
    after = _stepped(ones, ones, 2.0)
    assert (MEANS_RATE, RATIO_RATE) == (0.0025, 0.0125)
    np.testing.assert_allclose(after.a, 1 - 2 * 0.0025, rtol=1e-6)
    np.testing.assert_allclose(after.b, 1 - 2 * 0.0025, rtol=1e-6)
    np.testing.assert_allclose(after.z, 1 - 2 * 0.0125, rtol=1e-6)


def test_descent_finds_the_means_and_tells_the_mass_on_the_way(rows):
    entrant = Entrant("jarzynski", Jarzynski(400, 0.1), steps=160, rate=30.0)
    energy, told = descend(entrant, rows, seed=0)
    np.testing.assert_allclose([energy.a[0], energy.b[0]], [-10, 6], atol=0.5)
    assert [each["step"] for each in told["watched"]] == list(range(0, 161, 2))
    assert told["watched"][0]["mass"] == 0.5
    assert told["watched"][-1]["mass"] == pytest.approx(float(energy.mass_below))
    # A share of .27 of the rows is in that mode; the weights of 400 walkers are noisy.
    assert told["watched"][-1]["mass"] == pytest.approx(0.25, abs=0.1)
    assert told["evaluations"] == 160 * (400 + 500 + 400)
    assert told["chains_rhat"] > 0.9


def test_chains_that_shall_start_at_the_rows_do(rows):
    """With steps too short to move by, they are still there."""
    entrant = Entrant("pcd", Persistent(500, 1, 1e-12), steps=8, at_rows=True)
    energy, _ = descend(entrant, rows, seed=0)
    # At the rows the two means are pulled no way: the model's rows are the data's.
    start = first_energy(jax.random.key(2), D)
    np.testing.assert_allclose(energy.a, start.a, atol=1e-4)
    away, _ = descend(replace(entrant, at_rows=False), rows, seed=0)
    assert np.abs(away.a - start.a).max() > 0.01


def test_a_quick_run_has_the_same_methods_for_both_energies_and_a_whole_one_all():
    names = [each.name for each in module.neural_contenders(quick=True)]
    assert sorted(names) == sorted(each.name for each in entrants())
    whole = {each.name for each in module.neural_contenders(quick=False)}
    assert whole > {*names, "flow_contrastive", "diffusion_classifier", "floor"}


def test_the_watched_mass_of_the_truth_is_a_quarter():
    """A flow that is the mixture itself, and an energy that makes the base that mixture."""
    target = jarzynski_mixture(D)
    problem = make_problem(target, rows=400, seed=0)
    scale = np.asarray(problem.scale)
    means = (np.asarray(target.means) - problem.mean) / scale
    covariances = np.tile(np.diag(scale**-2.0), (2, 1, 1))
    wrong = GaussianMixture(np.array([0.5, 0.5]), means, covariances)
    right = GaussianMixture(np.array([0.25, 0.75]), means, covariances)
    base = GaussianMixture(np.ones(1), np.zeros((1, D)), np.eye(D)[None])
    see = module.watch_mass(Prepared(problem, base, lambda kind: (wrong, 0.0)))
    mass = see(lambda x: base.log_prob(x) - right.log_prob(x))["mass"]
    # 8192 draws, half of them in each mode: a standard error of .004.
    assert mass == pytest.approx(0.25, abs=0.016)


def test_the_experiment_keeps_its_cells_and_draws_both_energies(tmp_path, monkeypatch, capsys):
    small = [Entrant("jarzynski", Jarzynski(50, 0.1), steps=4)]
    monkeypatch.setattr(module, "DIMENSION", D)
    monkeypatch.setattr(module, "ROWS", 100)
    monkeypatch.setattr(module, "entrants", lambda *, quick: (*small, replace(small[0], name="x")))
    watched = [{"step": 0, "mass": 0.5}, {"step": 9, "mass": float("nan")}]
    asked = []

    def contest(case, chosen, **settings):
        asked.append((case, [each.name for each in chosen], settings["equal_seconds"]))
        names = {"case": case.name, "method": "jarzynski", "budget": "evaluations"}
        names["setting"] = "shared"
        return [names | {"figures": {"watched": watched}}]

    monkeypatch.setattr(module, "run_contest", contest)
    monkeypatch.setattr(module, "summary", lambda title, lines: title)
    options = {"seeds": 2, "seed": 0, "quiet": True, "out": tmp_path, "methods": ("jarzynski",)}
    module.reproduce_jarzynski_mixture(**options, quick=True)
    assert asked == [(module.QUICK_CASE, ["jarzynski"], False)]
    text = capsys.readouterr().out
    assert "jarzynski  authors'" in text and "floor      exact maximum" in text
    assert "balanced: largest" not in text
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert len(read_cells(tmp_path)) == 4
    module.reproduce_jarzynski_mixture(**options)
    assert "4 cells, all of them kept" in capsys.readouterr().out
