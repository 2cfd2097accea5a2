"""The acceptance experiment: what a diagnosis says of chains that mix and of those that do not."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.mixtures import four_modes
from tiltflow.experiments import acceptance as module
from tiltflow.experiments.acceptance import FIGURES, SCHEDULE, Case, diagnose, follow, summary
from tiltflow.experiments.problem import make_problem
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.flows import trainable
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.sweep import FrozenKernel
from tiltflow.training.balanced import Balanced, BalancedState
from tiltflow.training.bases import Start

D, NORM, SWEEPS, CHAINS = 3, 5.0, 24, 32


@pytest.fixture(scope="module")
def problem():
    return make_problem(four_modes(D, NORM), rows=600, seed=0)


@pytest.fixture(scope="module")
def truth(problem):
    """The target in model units, as a base that no energy tilts."""
    means = (np.asarray(problem.target.means) - problem.mean) / problem.scale
    covariances = np.tile(np.diag(problem.scale**-2.0), (4, 1, 1))
    return GaussianMixture(np.array([0.4, 0.3, 0.2, 0.1]), means, covariances)


def test_a_flow_that_is_the_model_mixes_at_every_sweep_and_one_that_misses_it_never(problem, truth):
    model = TiltedEBM(truth, MLPEnergy(D, width=2, depth=1, key=jax.random.key(0)))
    start = truth.sample(jax.random.key(1), (CHAINS,))
    kernel = FrozenKernel("mala", 2, jnp.asarray(0.02))
    args = (start, kernel, SWEEPS)
    good = diagnose(jax.random.key(2), problem, model, truth, *args)
    # Every proposal is taken: a jump where two labels differ, 1 - (.16 + .09 + .04 + .01) = .7,
    # with a standard error of .017.
    assert good["jump_rate"] == pytest.approx(0.7, abs=0.07)
    assert good["ess_per_sweep"] > 0.7 and good["rhat"] < 1.1
    # Of the same shapes as the truth: one compilation serves both.
    far = GaussianMixture(np.full(4, 0.25), np.full((4, D), 40.0), np.tile(np.eye(D), (4, 1, 1)))
    bad = diagnose(jax.random.key(2), problem, model, far, *args)
    assert bad["jump_rate"] < 0.02
    assert bad["ess_per_sweep"] < 0.2 and bad["rhat"] > 1.3


def test_following_a_training_tells_every_report_and_some_diagnoses(monkeypatch, problem, truth):
    """A training that reports twelve times, and goes back once on the way."""
    case = Case(D, NORM, replace(SCHEDULE, steps=24, chunk=2), Balanced(chains=300), every=5)
    start = Start(truth, "gaussian", "", truth, 0.0)
    state = BalancedState(jnp.zeros((300, D)), trainable(truth)[0], None, jnp.log(0.25))
    seen = []

    def diagnosis(key, problem, model, flow, position, kernel, sweeps):
        seen.append((position.shape, float(kernel.step_size), kernel.local_steps, sweeps))
        assert flow.log_prob(jnp.zeros(D)) == truth.log_prob(jnp.zeros(D))
        return {"rhat": 1.0}

    def train(key, energy, base, method, flow, x, held_out, schedule, *, watch):
        reports: list = [{"event": "rollback", "step": 2}]
        for step in range(2, 25, 2):
            known = {"step": step, "global_acceptance_rate": 0.5, "gain": 0.1}
            reports.append(known | watch(energy, state))
        return SimpleNamespace(reports=reports)

    monkeypatch.setattr(module, "choose_base", lambda *args, **settings: start)
    monkeypatch.setattr(module, "diagnose", diagnosis)
    monkeypatch.setattr(module, "train_energy", train)
    reports = follow(case, seed=0)
    assert [each["step"] for each in reports] == list(range(2, 25, 2))
    assert [each["step"] for each in reports if "rhat" in each] == [2, 10, 20, 24]
    assert set(reports[1]) == {"step", "global_acceptance_rate"}
    assert seen == [((module.CHAINS, D), 0.25, 10, 64)] * 4


def line(case, lowest):
    rates = [0.6, lowest, 0.7, 0.8]
    reports = [
        {"step": 10 * i, **dict.fromkeys(FIGURES.values(), 0.5), "global_acceptance_rate": rate}
        for i, rate in enumerate(rates, 1)
    ]
    del reports[1]["rhat"]
    return {"case": case, "figures": {"reports": reports}}


def test_the_summary_says_where_acceptance_was_lowest():
    text = summary([line("d = 16", 0.31), line("d = 16", 0.4), line("d = 64", 0.2)])
    assert "d = 16: the global acceptance of any seed is lowest at step 20, 0.31, and" in text
    assert "d = 64: the global acceptance of any seed is lowest at step 20, 0.20, and" in text
    assert "0.800 at the end" in text
    # The second report has no diagnosis: at half it is the earlier one of its neighbours.
    columns = text.splitlines()[1].index("step")
    steps = [row[columns : columns + 4] for row in text.splitlines() if row.startswith("d = 64 ")]
    assert [int(step) for step in steps] == [10, 10, 10, 40]


def test_the_experiment_keeps_its_cells_and_draws_them(tmp_path, monkeypatch, capsys):
    asked = []

    def follow(case, *, seed):
        asked.append((case.name, case.rows, seed))
        return line(case.name, 0.3)["figures"]["reports"]

    monkeypatch.setattr(module, "follow", follow)
    for _ in range(2):
        module.reproduce_acceptance(seeds=2, seed=5, quiet=True, out=tmp_path, quick=True)
    rows = module.QUICK["rows"]
    names = [case.name for case in module.CASES]
    assert names == ["d = 16", "d = 64", "d = 16, base flow"]
    assert asked == [(name, rows, seed) for name in names for seed in (5, 6)]
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert "all of them kept" in capsys.readouterr().out
