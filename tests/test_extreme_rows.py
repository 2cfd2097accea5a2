"""The most and least likely rows: found among all, each once, stored with their places."""

from pathlib import Path

import numpy as np
import pytest

import tiltflow
from tiltflow.data.errors import InputError
from tiltflow.extreme_rows import ExtremeRows, extreme_arrays, find_extremes, read_extremes
from tiltflow.report import fit_evidence

STORED = Path(__file__).parent / "stored_models" / "format_3_flow"


def test_extremes_are_found_among_all_and_each_is_there_once():
    rows = np.stack([np.arange(50.0), np.zeros(50)], axis=1)[::-1]
    numbers = np.arange(100, 150)
    repeated, theirs = np.tile(rows, (3, 1)), np.concatenate([numbers + 50, numbers, numbers])
    sizes = []

    def score(points):
        sizes.append(len(points))
        return -points[:, 0]

    found = find_extremes(score, repeated, theirs, 20)
    assert sizes == [20, 20, 20] and found.scored == 50
    assert found.rows[:, 0].tolist() == [0, 1, 2, 3, 4, 45, 46, 47, 48, 49]
    np.testing.assert_array_equal(found.log_prob, -found.rows[:, 0])
    # The row of 49 stands first, at 100, and again at 150.
    assert found.numbers.tolist() == [149, 148, 147, 146, 145, 104, 103, 102, 101, 100]
    few = find_extremes(score, rows[:3], None, 20)
    assert few.rows[:, 0].tolist() == [47, 49] and few.numbers is None


def test_rows_that_are_no_numbers_to_the_density_come_last():
    rows = np.arange(12.0)[:, None]
    scores = np.where(rows[:, 0] == 5, np.nan, rows[:, 0])
    found = find_extremes(lambda _: scores, rows, np.arange(12), 12)
    assert found.numbers.tolist() == [11, 10, 9, 8, 7, 3, 2, 1, 0, 5]


EXTREMES = ExtremeRows(np.ones((4, 2)), np.arange(4.0), np.arange(4), 99)


def test_extremes_are_stored_where_their_places_are_known():
    again = read_extremes(extreme_arrays(EXTREMES), 2, "run")
    for one, other in zip(again, EXTREMES):
        np.testing.assert_array_equal(one, other)
    assert extreme_arrays(None) == {} == extreme_arrays(EXTREMES._replace(numbers=None))
    assert read_extremes({}, 2, "run") is None


@pytest.mark.parametrize("name", ["rows", "log_prob", "numbers", "scored"])
@pytest.mark.parametrize("array", [None, np.zeros((3, 3)), np.array("a")])
def test_damaged_extremes_are_named(name, array):
    arrays = extreme_arrays(EXTREMES)
    del arrays[f"extreme_{name}"]
    if array is not None:
        arrays[f"extreme_{name}"] = array
    with pytest.raises(InputError, match=r"run: array 'extreme_.* fit the model anew"):
        read_extremes(arrays, 2, "run")


def test_a_model_without_them_has_those_of_the_rows_it_keeps(monkeypatch):
    estimator = tiltflow.load(STORED)
    for name in ("diagnose_chains", "_weights", "_log_z"):
        monkeypatch.setattr(fit_evidence, name, lambda *_: (np.ones(2),) * 3)
    extremes = fit_evidence.gather(estimator, estimator._kept_rows).extremes
    assert extremes.numbers is None and len(extremes.rows) == 10
    scores = estimator.score_samples(estimator._kept_rows)
    np.testing.assert_allclose(extremes.log_prob[[0, -1]], [scores.max(), scores.min()], rtol=1e-5)
