"""The estimator on a table with categories, and with weights of its rows."""

import numpy as np
import polars as pl
import pytest

import tiltflow
from tiltflow import BalancedEBM
from tiltflow.data.errors import InputError

SMALL = {"max_steps": 100, "chains": 128, "energy_width": 16, "energy_depth": 2, "local_steps": 3}
SHARES = {"pine": 0.6, "oak": 0.3, "elm": 0.1}


def forest(rows: int, seed: int = 0) -> pl.DataFrame:
    """Heights about 10, 20 and 30 by kind."""
    generator = np.random.default_rng(seed)
    kind = generator.choice(list(SHARES), size=rows, p=list(SHARES.values()))
    place = np.array([list(SHARES).index(each) for each in kind])
    return pl.DataFrame({"height": 10.0 * (place + 1) + generator.normal(size=rows), "kind": kind})


@pytest.fixture(scope="module")
def fitted():
    estimator = BalancedEBM(
        base="mixture", preprocessing="standardise", contamination=0.1, random_state=0, **SMALL
    )
    return estimator.fit(forest(1200)), forest(1200)


def test_categories_come_back_with_their_shares_and_their_heights(fitted):
    estimator, _ = fitted
    assert estimator.levels_ == {"kind": ("pine", "oak", "elm")}
    draws = estimator.sample(1000, key=0)
    kinds, heights = draws[:, 1], draws[:, 0].astype(float)
    for place, (kind, share) in enumerate(SHARES.items()):
        # 1000 draws and 1200 rows: three standard errors are at most .063.
        assert (kinds == kind).mean() == pytest.approx(share, abs=0.08)
        assert np.median(heights[kinds == kind]) == pytest.approx(10 * (place + 1), abs=1)


def test_missing_kinds_follow_the_height(fitted):
    estimator, _ = fitted
    holes = pl.DataFrame(
        {"height": [10.0, 20.0, 30.0], "kind": [None] * 3}, schema_overrides={"kind": pl.String}
    )
    assert estimator.impute(holes, key=0)[:, 1].tolist() == ["pine", "oak", "elm"]


def test_labels_may_use_the_levels(fitted):
    estimator, _ = fitted
    found = estimator.mode_weights(lambda rows: rows[:, 1])
    assert found.labels.tolist() == ["elm", "oak", "pine"]
    np.testing.assert_allclose(found.weights, [0.1, 0.3, 0.6], atol=0.06)


def test_a_kind_of_the_wrong_height_is_an_outlier(fitted):
    estimator, frame = fitted
    strange = pl.DataFrame({"height": [30.0], "kind": ["pine"]})
    assert estimator.predict(strange).tolist() == [-1]
    assert estimator.decision_function(strange)[0] < -5
    # All 1200 rows are kept, and the quantile is theirs.
    assert (estimator.predict(frame) == -1).mean() == pytest.approx(0.1, abs=0.001)
    np.testing.assert_allclose(
        estimator.decision_function(frame), estimator.score_samples(frame) - estimator.offset_
    )
    with pytest.raises(InputError, match="holds 'yew', a level that the fit has not seen"):
        estimator.predict(pl.DataFrame({"height": [30.0], "kind": ["yew"]}))


def test_levels_are_saved(fitted, tmp_path):
    estimator, frame = fitted
    estimator.save(tmp_path)
    again = tiltflow.load(tmp_path)
    assert again.levels_ == estimator.levels_ and again.contamination == 0.1
    np.testing.assert_array_equal(again.predict(frame), estimator.predict(frame))
    np.testing.assert_array_equal(again.sample(5, key=0), estimator.sample(5, key=0))


def test_weights_change_the_shares_of_the_modes():
    """Two clusters, 3:1 in rows and 1:1 by weight; the unweighted share would be off by .25."""
    generator = np.random.default_rng(0)
    right = np.arange(1200) >= 900
    X = generator.normal(size=(1200, 2)) + np.where(right, 8.0, 0.0)[:, None]
    estimator = BalancedEBM(base="mixture", preprocessing="standardise", random_state=0, **SMALL)
    estimator.fit(X, sample_weight=np.where(right, 3.0, 1.0))
    _, share = estimator.mode_weights(lambda rows: rows[:, 0] > 4).weights
    assert share == pytest.approx(0.5, abs=0.06)
