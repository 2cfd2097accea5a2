"""Outlier detection: what is fitted and ranked, and how ranks are put together."""

import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.public_tables import PublicTable
from tiltflow.experiments import outliers
from tiltflow.experiments.outliers import FULL, Budget, reproduce_outliers, score, split_rows


def far_rows():
    """Inliers around 0, one row in ten around 8, and a column that only these have."""
    generator = np.random.default_rng(0)
    is_outlier = np.arange(400) % 10 == 0
    rows = generator.normal(size=(400, 3)) + 8 * is_outlier[:, None]
    rows[:, 2] *= is_outlier
    return PublicTable(rows, is_outlier)


def test_novelty_fits_inliers_alone_and_both_rank_the_same_rows():
    table = far_rows()
    novelty, mixed = (split_rows(table, protocol, FULL, 0) for protocol in ("novelty", "mixed"))
    assert len(novelty.fitted) == 252 and len(mixed.fitted) == 280
    assert np.abs(novelty.fitted).max() < 5 < mixed.fitted.max()
    # What does not vary among inliers is no column there.
    assert novelty.fitted.shape[1] == novelty.ranked.shape[1] == 2 and mixed.ranked.shape[1] == 3
    np.testing.assert_array_equal(novelty.ranked, mixed.ranked[:, :2])
    assert novelty.is_outlier.sum() == 12
    capped = split_rows(table, "mixed", Budget(50, 20), 0)
    assert len(capped.fitted) == 50 and len(capped.ranked) == len(capped.is_outlier) == 20


@pytest.mark.parametrize("method", ["isolation_forest", "local_outlier_factor", "mixture"])
def test_inliers_score_higher(method):
    split = split_rows(far_rows(), "novelty", FULL, 0)
    scores = score(method, split.fitted, split.ranked, 0)
    assert scores[~split.is_outlier].min() > scores[split.is_outlier].max()


def test_areas_and_mean_ranks_are_of_the_tables():
    def line(case, method, auc):
        figures = {"auc": auc, "fitted": 9, "columns": 2, "ranked": 5, "outliers": 1}
        return {"case": case, "method": method, "setting": "mixed", "figures": figures}

    lines = [
        line("a", "balanced", 0.9),
        line("a", "mixture", 0.8),
        line("b", "balanced", 0.7),
        line("b", "mixture", 0.7),
        line("c", "balanced", 0.5),
        line("c", "mixture", 0.9),
    ]
    words = outliers.summary(lines)
    ranks = next(row for row in words.splitlines() if row.startswith("mean rank"))
    assert ranks.split()[2:] == ["1.50", "1.50"]
    areas = next(row for row in words.splitlines() if row.startswith("mean area"))
    assert areas.split()[2:] == ["0.700", "0.800"]


def test_without_tables_it_says_which_it_left_out_and_where_it_looked(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(outliers, "FOLDER", tmp_path)
    with pytest.raises(InputError, match="holds no labelled table"):
        reproduce_outliers(seeds=1, seed=0, quiet=True, out=tmp_path)
    assert f"glass: glass.csv not in {tmp_path}, left out" in capsys.readouterr().out
