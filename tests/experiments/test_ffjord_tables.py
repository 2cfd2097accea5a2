"""The tables of continuous flows: what is found, who is entered, and how it is judged."""

import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.flow_tables import Splits
from tiltflow.experiments import ffjord_tables
from tiltflow.experiments.ffjord_tables import (
    BALANCED,
    Budget,
    capped,
    choose_methods,
    find_tables,
    published,
    summary,
    verdict,
)
from tiltflow.experiments.table_scores import paired_difference, standard_error


def lines_of(scores):
    """Lines of one seed, from the scores of every table and method."""
    return [
        {
            "case": table,
            "method": method,
            "seed": 0,
            "figures": {
                "scores": list(values),
                "log_likelihood": float(np.mean(values)),
                "stderr": standard_error(np.asarray(values)),
                "seconds": 1.0,
                "log_z_stderr": 0.0,
                "rows": 9,
                "columns": 2,
            },
        }
        for table, methods in scores.items()
        for method, values in methods.items()
    ]


def test_differences_are_paired_and_have_the_error_of_log_z():
    noise = np.random.default_rng(0).normal(size=1000)
    gap, error = paired_difference(noise + 0.1, noise, log_z_stderr=0.03)
    assert gap == pytest.approx(0.1)
    assert error == pytest.approx(0.03, rel=1e-6)


def test_the_verdict_counts_tables_and_names_the_winner():
    noise = np.random.default_rng(0).normal(size=200)
    lines = lines_of(
        {
            "one": {BALANCED: noise, "ffjord": noise - 1, "gaussian": noise - 2},
            "two": {BALANCED: noise, "ffjord": noise + 1, "gaussian": noise + 0.5},
        }
    )
    words = verdict(lines)
    assert "on 1 of 2 tables, bar 2: missed" in words
    assert "two: -1.000" in words and "behind ffjord" in words
    assert "met" in verdict(lines[:3])
    # Within the error bars of the best is enough; noise of its own, one standard error behind.
    other = np.random.default_rng(1).normal(size=200)
    near = noise + other - other.mean() + other.std() / 200**0.5
    assert "met" in verdict(lines_of({"one": {BALANCED: noise, "ffjord": near}}))
    assert "1.000 ± 0.000" in summary(lines, Budget(9, 1, None))


def test_the_balanced_model_is_always_run_and_names_are_checked():
    assert choose_methods(("mixture",)) == (BALANCED, "mixture")
    assert len(choose_methods(None)) == 8
    with pytest.raises(InputError, match="--methods: 'glow' is not known"):
        choose_methods(("glow",))


def test_standard_files_come_before_stand_ins(tmp_path, monkeypatch):
    monkeypatch.setattr(ffjord_tables, "FOLDER", tmp_path / "tabular")
    (tmp_path / "tabular").mkdir()
    with pytest.raises(InputError, match="TILTFLOW_DATA"):
        find_tables()
    (tmp_path / "uci").mkdir()
    (tmp_path / "uci" / "bike_centred.csv.gz").touch()
    standard, found = find_tables()
    assert not standard and list(found) == ["bike"]
    (tmp_path / "miniboone").mkdir()
    standard, found = find_tables()
    assert standard and list(found) == ["MINIBOONE"]
    assert "-10.43 ± 0.04" in published(["MINIBOONE"])


def test_rows_are_capped_and_test_rows_do_not_follow_the_seed():
    rows = np.arange(40.0)[:, None]
    splits = Splits(rows, rows, rows)
    one, two = (capped(splits, Budget(10, 5, 7), seed) for seed in (0, 1))
    assert [len(part) for part in one] == [10, 5, 7]
    assert (one.train != two.train).any()
    np.testing.assert_array_equal(one.test, two.test)
