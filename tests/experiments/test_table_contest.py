"""How methods on tables are judged: paired differences, who is best, and who is behind whom."""

import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.experiments.table_contest import (
    BALANCED,
    behind_one,
    choose_methods,
    comparison_table,
    figures_of,
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
    words = verdict(lines, share=0.75)
    assert "on 1 of 2 tables, bar 2: missed" in words
    assert "two: -1.000" in words and "behind ffjord" in words
    assert "met" in verdict(lines, share=0.5)
    assert "1.000 ± 0.000" in comparison_table(lines)
    words = behind_one(lines, "gaussian")
    assert "on 1 of 2 tables" in words and "two: -0.500" in words


def test_within_the_error_bars_of_the_best_is_enough():
    # Noise of its own, one standard error behind; and then three.
    noise, other = (np.random.default_rng(seed).normal(size=200) for seed in (0, 1))
    error = other.std() / 200**0.5
    for behind, met in ((1, "met"), (3, "missed")):
        rival = noise + other - other.mean() + behind * error
        assert verdict(lines_of({"one": {BALANCED: noise, "ffjord": rival}}), share=1.0).count(met)


def test_a_mean_that_is_not_finite_is_no_win_and_no_lost_table():
    """Whichever method comes first; and a balanced model without one is behind."""
    noise = np.random.default_rng(0).normal(size=200)
    failed = np.where(np.arange(200) < 9, np.nan, noise + 1)
    lines = lines_of({"one": {BALANCED: noise, "ffjord": failed, "gaussian": noise - 1}})
    for line in lines:
        line["figures"] |= figures_of(np.asarray(line["figures"]["scores"]))
    assert "on 1 of 1 tables, bar 1: met" in verdict(lines, share=1.0)
    assert "on 0 of 1 tables" in behind_one(lines, "ffjord")
    (row,) = [line for line in comparison_table(lines).splitlines() if "ffjord" in line]
    assert row.split()[1:3] == ["-inf", "inf"]
    # Cells of an earlier version hold the mean as it was.
    lines[1]["figures"]["log_likelihood"] = float("nan")
    assert "on 1 of 1 tables, bar 1: met" in verdict(lines, share=1.0)
    lines[0]["figures"] |= figures_of(failed)
    assert "one: the balanced EBM has no finite log-likelihood" in verdict(lines, share=1.0)


def test_the_balanced_model_is_always_run_and_names_are_checked():
    known = (BALANCED, "mixture", "flow")
    assert choose_methods(("mixture",), known) == (BALANCED, "mixture")
    assert choose_methods(None, known) == known
    with pytest.raises(InputError, match="--methods: 'glow' is not known"):
        choose_methods(("glow",), known)
