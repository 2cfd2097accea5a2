"""A contest gives everyone the same cost, keeps what it ran, and prints what one should know."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.targets import Rings
from tiltflow.experiments import contest as module
from tiltflow.experiments import trial as one
from tiltflow.experiments.cells import read_cells
from tiltflow.experiments.contenders import Shared, choose, contenders
from tiltflow.experiments.contest import equal_steps, run_contest, steps_in
from tiltflow.experiments.contest_table import COLUMNS, summary, table_rows
from tiltflow.experiments.judged import broken
from tiltflow.experiments.problem import make_problem
from tiltflow.experiments.trial import Case, Prepared, Trial
from tiltflow.training.loop import Schedule, TrainingFailed

SHARED = Shared(chains=100, local_steps=4)
ALL = contenders(2, SHARED)
FEW = {("balanced", "shared"), ("pcd", "shared"), ("flow", "on a mixture")}
KNOWN = tuple(each for each in ALL if (each.name, each.setting) in FEW or each.name == "floor")
SCHEDULE = Schedule(steps=400, chunk=50)
CASE = Case("rings", "d = 2", Rings, SCHEDULE, rows=1000)


def by_name(name):
    return next(each for each in KNOWN if each.name == name)


def test_equal_evaluations_are_whole_chunks():
    # Balanced: 4 local steps, a refreshed chain and a proposal, 2 negatives a chain, 900 rows; PCD
    # without the proposal and its negative.
    evaluations = 400 * (100 * 8 + 900)
    assert equal_steps(by_name("balanced"), SCHEDULE, evaluations, 900) == 400
    assert equal_steps(by_name("pcd"), SCHEDULE, evaluations, 900) == 450
    assert equal_steps(by_name("floor"), SCHEDULE, evaluations, 900) == 400
    assert equal_steps(by_name("pcd"), SCHEDULE, 1, 900) == 50


def test_equal_seconds_count_what_is_needed_beside_the_steps():
    figures = {"seconds": 30.0, "steps": 500, "steps_per_second": 25.0}
    # 10 s beside 20 s of steps: in 50 s there is room for 40 s of them.
    assert steps_in(50.0, figures, 50) == 1000
    assert steps_in(29.0, figures, 50) is None
    assert steps_in(5.0, figures, 50) == 50
    assert steps_in(50.0, figures | {"steps_per_second": math.nan}, 50) is None


@pytest.fixture
def trials(monkeypatch):
    """Trials that train nothing: PCD is four times as fast; the names of all that were run."""
    ran = []
    problem = make_problem(Rings(), rows=1000, seed=0)
    monkeypatch.setattr(module, "prepare", lambda case, seed: Prepared(problem, None, None))

    def run_trial(contender, prepared, schedule, *, seed, judging, watch=None):
        ran.append((contender.name, seed, schedule.steps))
        speed = 40.0 if contender.name == "pcd" else 10.0
        judged = broken(problem, "nothing was trained")._replace(kl=0.1 * seed, status="failed")
        told = {
            "steps": schedule.steps,
            "evaluations": schedule.steps * module.evaluations_of(contender, schedule, 900),
            "steps_per_second": speed,
            "seconds": schedule.steps / speed,
            "stopped": "energy_gap was 1e9 at step 3" if contender.name == "pcd" else None,
        }
        nothing = dict.fromkeys(("chains_rhat", "chains_ess", "acceptance_rate"), math.nan)
        return Trial(None, {**judged._asdict(), **nothing, **told})

    monkeypatch.setattr(module, "run_trial", run_trial)
    return ran


def run(out, entered=KNOWN, seeds=2):
    return run_contest(CASE, entered, reference=KNOWN[0], seeds=seeds, seed=1, out=out, quiet=True)


def test_everyone_runs_at_both_costs_and_a_rerun_at_none(trials, tmp_path):
    lines = run(tmp_path)
    # 400 steps of the reference take 40 s, in which PCD makes 1600.
    one = [("balanced", 400), ("pcd", 450), ("pcd", 1600), ("flow", 400), ("floor", 400)]
    # Seconds are for the first seed.
    two = [each for each in one if each != ("pcd", 1600)]
    assert trials == [(n, s, steps) for s, known in ((1, one), (2, two)) for n, steps in known]
    budgets = [line["budget"] for line in lines[:5]]
    assert budgets == ["evaluations", "evaluations", "seconds", "evaluations", "evaluations"]
    again = run(tmp_path)
    assert len(trials) == 9 and len(read_cells(tmp_path)) == 9
    assert table_rows(again) == table_rows(lines)
    run(tmp_path, choose(KNOWN, ("pcd",)))
    assert len(trials) == 9
    slower = replace(KNOWN[1], learning_rate=1e-4)
    run(tmp_path, (slower,))
    assert [name for name, *_ in trials[9:]] == ["pcd", "pcd"]


def test_who_is_run_for_one_seed_for_three_and_for_all(trials, tmp_path):
    further = next(each for each in ALL if each.setting == "restarts")
    run(tmp_path, (*KNOWN[:2], further), seeds=4)
    of_seed = [[(n, steps) for n, seed, steps in trials if seed == it] for it in (1, 2, 3, 4)]
    shared = [("balanced", 400), ("pcd", 450)]
    assert of_seed == [[*shared, ("pcd", 1600), ("pcd", 450)], shared, shared, shared[:1]]


def test_who_is_near_is_run_for_every_seed_in_every_row(trials, tmp_path):
    near = tuple(each for each in ALL if each.name == "flow_contrastive")
    lines = run(tmp_path, (KNOWN[0], *near), seeds=5)
    rows = [(line["setting"], line["budget"]) for line in lines if line["method"] != "balanced"]
    of_a_seed = [("shared", "evaluations"), ("shared", "seconds"), ("authors'", "evaluations")]
    assert rows == 5 * of_a_seed


def test_the_table_has_a_row_for_each_cost_and_tells_what_went_wrong(trials, tmp_path):
    lines = run(tmp_path)
    rows = table_rows(lines)
    assert [row[:3] for row in rows[:3]] == [
        ["balanced", "shared", "evaluations"],
        ["pcd", "shared", "evaluations"],
        ["pcd", "shared", "seconds"],
    ]
    assert rows[0][COLUMNS.index("KL(truth || model)")] == "0.150 ± 0.071"
    assert rows[0][COLUMNS.index("R-hat")] == "-"
    assert rows[2][COLUMNS.index("evaluations")] == "2 400 000"
    text = summary("rings", lines)
    assert "pcd, shared, seconds: 1 of 1 trainings ran away, as: energy_gap" in text
    assert "floor, exact negatives, evaluations: 2 of 2 seeds failed" in text


def test_unknown_methods_are_refused_and_known_ones_keep_their_order():
    assert [each.name for each in choose(KNOWN, ("floor", "pcd"))] == ["pcd", "floor"]
    assert choose(KNOWN, None) == KNOWN
    with pytest.raises(InputError, match="'hopeful' is not known; use some of balanced, pcd"):
        choose(KNOWN, ("pcd", "hopeful"))


def test_a_training_that_fails_is_a_row_of_the_table(monkeypatch):
    problem = make_problem(Rings(), rows=200, seed=0)

    def train(*arguments):
        raise TrainingFailed("training ran away from its first state")

    monkeypatch.setattr(one, "_train", train)
    prepared = Prepared(problem, None, lambda kind: (None, 5.0))
    trial = one.run_trial(by_name("pcd"), prepared, SCHEDULE, seed=0)
    assert trial.model is None and trial.figures["status"] == "broken"
    assert trial.figures["seconds"] < 1 and np.isnan(trial.figures["kl"])
    assert "first state" in trial.figures["stopped"]
    # Who needs the flow pays for it.
    trial = one.run_trial(by_name("balanced"), prepared, SCHEDULE, seed=0)
    assert trial.figures["seconds"] > 5
