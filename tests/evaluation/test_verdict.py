"""The verdict: every criterion speaks where it should, and the worst of them decides."""

import json

import pytest

from tiltflow.evaluation.verdict import CRITERIA, judge, read_verdict

GOOD = {
    "nan_share": 0.0,
    "inf_share": 0.0,
    "rhat": 1.005,
    "ess_bulk": 9000.0,
    "ess_tail": 8000.0,
    "pareto_k": 0.3,
    "chain_pareto_k": 0.4,
    "importance_ess": 0.8,
    "global_acceptance_rate": 0.7,
    "local_acceptance_rate": 0.57,
    "local_acceptance_rate_high": 0.57,
    "stuck_share": 0.0,
    "log_z_disagreement": 1.0,
    "weight_disagreement": 2.0,
    "start_disagreement": 2.0,
    "log_z_stderr": 0.001,
    "bracket_excess": 0.0,
    "bracket_width": 0.01,
}


def test_good_figures_are_trusted():
    verdict = judge(GOOD)
    assert verdict.status == "trusted" and verdict.reasons == () and verdict.figures == GOOD
    assert GOOD.keys() == {criterion.figure for criterion in CRITERIA}


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda criterion: criterion.figure)
def test_one_bad_figure_is_enough(criterion):
    for limit, status in ((criterion.doubtful, "doubtful"), (criterion.failed, "failed")):
        beyond = limit * (1.001 if criterion.above else 0.999) or 1e-9
        if beyond == limit:  # an infinite limit cannot be passed
            continue
        verdict = judge(GOOD | {criterion.figure: beyond})
        assert verdict.status == status
        (reason,) = verdict.reasons
        assert reason[0].isupper() or reason[0].isdigit() or reason.startswith("log Z")
        assert reason.endswith(".") and "{" not in reason


def test_a_figure_that_is_no_number_fails():
    assert judge(GOOD | {"rhat": float("nan")}).status == "failed"
    assert judge(GOOD | {"rhat": float("inf")}).status == "failed"


def test_the_worst_decides_and_every_reason_is_given():
    verdict = judge(GOOD | {"rhat": 2.0, "ess_bulk": 300.0})
    assert verdict.status == "failed" and len(verdict.reasons) == 2
    assert "2.000" in verdict.reasons[0]


def test_training_that_ran_away_is_a_doubt():
    verdict = judge(GOOD, "energy_gap was 1e9 at step 3")
    assert verdict.status == "doubtful" and "energy_gap" in verdict.reasons[0]


def test_a_verdict_survives_json():
    verdict = judge(GOOD | {"rhat": float("inf")}, "why")
    assert read_verdict(json.loads(json.dumps(verdict._asdict()))) == verdict
    with pytest.raises(ValueError, match="fine"):
        read_verdict({"status": "fine", "reasons": [], "figures": {}})
