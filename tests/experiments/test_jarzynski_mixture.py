"""The Jarzynski experiment: equal cost, plain descent, cells that are kept, tables, a figure."""

from dataclasses import replace

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
from tiltflow.experiments.jarzynski_energy import TwoModesEnergy
from tiltflow.experiments.judged import draw_truth
from tiltflow.experiments.problem import make_problem
from tiltflow.experiments.trial import Prepared
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.training.jarzynski import Jarzynski

D = 3


@pytest.fixture(scope="module")
def rows():
    return draw_truth(jarzynski_mixture(D), 0, 500)


@pytest.mark.parametrize("quick", [False, True])
def test_all_methods_spend_the_same_evaluations(quick):
    costs = {each.steps * each.method.evaluations(10_000) for each in entrants(quick=quick)}
    assert costs == {4_000_000 if quick else 80_000_000}


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
    assert told["evaluations"] == 160 * 400


def test_the_methods_of_both_energies_are_the_same():
    names = [each.name for each in module.neural_contenders(quick=True)]
    assert names == [each.name for each in entrants()]


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
