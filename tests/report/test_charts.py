"""What charts are drawn from is JSON, short, and holds the numbers that it should."""

import json

import numpy as np
import pytest

from tiltflow.report.charts import MOST_POINTS, number, pairs_chart, training_chart
from tiltflow.report.contours import MARGIN, PairContours, all_pair_contours, robust_limits

ROW = {"stage": "energy", "total_steps": 40, "log_z": -1.0, "global_acceptance_rate": 0.8}


def _row(step, **changes):
    return ROW | {"step": step} | changes


def test_training_has_the_energy_stage_and_gaps_where_a_value_is_missing():
    rows = [
        {"stage": "proposal", "step": 9},
        _row(10, gain=0.1, held_out_log_likelihood=-2.0),
        {"stage": "energy", "event": "rollback", "step": 10},
        _row(20, gain=-0.1, log_z=float("nan"), held_out_log_likelihood=None),
    ]
    chart = training_chart(rows)
    assert chart["x"] == [10, 20]
    series = {each["name"]: each["y"] for panel in chart["panels"] for each in panel["series"]}
    assert series["held out"] == [-2, None]
    assert series["log Z"] == [-1, None]
    assert series["global"] == [0.8, 0.8]
    assert series["local"] == [None, None]
    assert chart["panels"][0]["mark"] == {"x": 10, "y": -2, "text": "last gain at step 10"}
    json.dumps(chart, allow_nan=False)


@pytest.mark.parametrize("rows", [[], [{"stage": "energy"}], [_row(5, held_out_log_likelihood={})]])
def test_training_of_ugly_metrics_is_json(rows):
    chart = training_chart(rows)
    assert len(chart["panels"]) == 4 and chart["panels"][0]["mark"] is None
    json.dumps(chart, allow_nan=False)


def test_pairs_hold_values_to_what_a_reader_sees():
    rows = np.random.default_rng(0).standard_normal((3000, 3))
    rows[:, 1] = 1_612_000_000 + 1e4 * rows[:, 1]
    rows[:, 2] *= 1e-7
    rows[0, 0] = np.nan
    limits = np.array([robust_limits(column) for column in rows.T])
    chart = pairs_chart(rows, rows[:5], ["a", "b", "c"], limits, {})
    for j, column in enumerate(chart["columns"]):
        assert len(column["data"]) == MOST_POINTS and len(column["samples"]) == 5
        extent = column["high"] - column["low"]
        known = np.array([x for x in column["samples"] if x is not None])
        assert np.abs(known - rows[:5, j][np.isfinite(rows[:5, j])]).max() < 1e-5 * extent
    assert chart["columns"][0]["data"][0] is None
    assert len(json.dumps(chart, allow_nan=False)) < 120_000


def test_contours_come_back_from_thousandths():
    line = np.array([[-1.0, 10.0], [1.0, 30.0], [0.0, 20.0]])
    limits = np.array([[-2.0, 2.0], [0.0, 40.0]])
    contours = {(0, 1): PairContours((0.5,), ((line,),))}
    chart = pairs_chart(np.zeros((2, 2)), np.zeros((2, 2)), ["a", "b"], limits, contours)
    flat = np.array(chart["contours"]["0,1"][0][0]).reshape(-1, 2) / 1000
    assert chart["grid"] == [-MARGIN, 1 + MARGIN]
    extent = limits[:, 1] - limits[:, 0]
    back = limits[:, 0] + (-MARGIN + flat * (1 + 2 * MARGIN)) * extent
    np.testing.assert_allclose(back, line, atol=1e-3 * extent.max())
    assert chart["contours_name"] == "contours that hold 50 % of the mass"


def test_sixteen_columns_take_less_than_a_megabyte():
    draws = np.random.default_rng(0).standard_normal((8, 300, 16))
    rows = draws.reshape(-1, 16)
    limits = np.array([robust_limits(column) for column in rows.T])
    contours = all_pair_contours(draws, limits)
    names = [f"column {j}" for j in range(16)]
    chart = pairs_chart(rows, rows, names, limits, contours)
    assert len(json.dumps(chart, separators=(",", ":"))) < 1_000_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3), (np.float32(0.5), 0.5), (1 / 3, 0.3333333), (1e300, 1e300), (2.0, 2)]
    + [(bad, None) for bad in (None, "1", True, float("nan"), np.inf, [1], 10**400)],
)
def test_numbers_are_short_and_what_is_none_is_null(value, expected):
    assert number(value) == expected
