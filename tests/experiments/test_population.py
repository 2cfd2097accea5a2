"""The interval of a population's share is judged over tables of fresh rows."""

from types import SimpleNamespace

import numpy as np
import pytest

from tiltflow.evaluation.mode_weights import WeightEstimate, with_intervals
from tiltflow.experiments import population
from tiltflow.experiments.population import CASES, fit_table, reproduce_population, summary


class Fitted:
    """An estimator whose density has the shares of its rows, known by 10 000 draws."""

    def __init__(self, *, random_state, **settings):
        assert settings == population.SETTINGS
        self.verdict_ = SimpleNamespace(status="trusted")

    def fit(self, rows):
        self.rows = rows
        return self

    def mode_weights(self, label_fn):
        labels, counts = np.unique(label_fn(self.rows), return_counts=True)
        draws = np.full(len(labels), 1e4)
        estimate = WeightEstimate(labels, counts / len(self.rows), draws, 1e4)
        return with_intervals(estimate, rows=float(len(self.rows)))


def test_a_table_is_fitted_and_its_shares_have_both_intervals(monkeypatch):
    monkeypatch.setattr(population, "BalancedEBM", Fitted)
    first, second = (np.array(fit_table(CASES[0], seed)["shares"]) for seed in (0, 1))
    assert first.shape == (2, 6) and first[:, 0].sum() == pytest.approx(1)
    assert not np.array_equal(first, second)
    of_rows, weight, low, high, wider_low, wider_high = first.T
    np.testing.assert_allclose(of_rows, [2 / 3, 1 / 3], atol=0.08)
    np.testing.assert_array_equal(weight, of_rows)
    assert np.all((wider_low < low) & (low < weight) & (weight < high) & (high < wider_high))


def test_summary_by_hand():
    """Two tables; the population's interval holds 2/3 in both, the density's in none."""
    near, far = [0.69, 0.7, 0.69, 0.71, 0.6, 0.8], [0.31, 0.3, 0.29, 0.31, 0.2, 0.4]
    lines = [{"figures": {"shares": [near, far], "verdict": "trusted"}}] * 2
    text = summary(CASES[0], lines)
    (first,) = [line.split() for line in text.splitlines() if "0.67" in line]
    assert first == ["0.67", "1.000", "0.000", "0.2000", "0.0000", "0.0000", "0.0000"]
    assert "verdicts: 2 trusted" in text


def test_kept_tables_are_not_fitted_again(monkeypatch, capsys, tmp_path):
    calls = []

    def fit(case, seed):
        calls.append((case.name, seed))
        modes = 2 if case is CASES[0] else 4
        return {"shares": [[1 / modes] * 6] * modes, "verdict": "trusted"}

    monkeypatch.setattr(population, "fit_table", fit)
    for _ in range(2):
        reproduce_population(seeds=2, seed=3, quiet=True, out=tmp_path, quick=True)
    assert [seed for _, seed in calls] == [300, 301, 400, 401, 120, 121, 160, 161]
    assert capsys.readouterr().out.count("4 tables") == 4
