"""Missing cells: drawn given the others, with the right share of the modes that are left."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tiltflow
from tiltflow import BalancedEBM, missing_cells
from tiltflow.data.errors import InputError

SMALL = {"max_steps": 100, "chains": 128, "energy_width": 16, "energy_depth": 2, "local_steps": 3}
COLUMNS = ["mass", "count", "length"]


def table(rows, seed=0):
    """Two clusters, .7 and .3, apart in mass and length; count is whole and near both."""
    generator = np.random.default_rng(seed)
    far = generator.random(rows) < 0.3
    z = generator.normal(size=(rows, 3))
    mass = 1e4 + 10 * (z[:, 0] + 6 * far)
    length = 0.001 + 1e-4 * (0.8 * z[:, 0] + 0.6 * z[:, 2] + 6 * far)
    return np.column_stack([mass, np.round(20 + 3 * z[:, 1]), length]), far


@pytest.fixture(scope="module")
def fitted():
    X, _ = table(1500)
    estimator = BalancedEBM(base="mixture", preprocessing="whiten", random_state=0, **SMALL)
    return estimator.fit(pl.DataFrame(X, schema=COLUMNS)), X


def test_what_is_there_stays_and_what_is_missing_follows_it(fitted):
    estimator, _ = fitted
    truth, far = table(300, seed=1)
    holes = truth.copy()
    holes[:, 2] = np.nan
    holes[0] = truth[0]
    filled = estimator.impute(holes, key=0)
    np.testing.assert_array_equal(filled[:, :2], truth[:, :2])
    np.testing.assert_array_equal(filled[0], truth[0])
    # Given the mass, length has the residual deviation 6e-5, from 1.8e-4 times a cluster's six.
    residual = (filled[1:, 2] - 0.001 - 8e-6 * (truth[1:, 0] - 1e4) - 1.2e-4 * far[1:]) / 1e-4
    assert abs(residual.mean()) < 0.15 and 0.5 < residual.std() < 0.75


def test_with_nothing_given_the_clusters_have_their_shares_and_counts_are_whole(fitted):
    estimator, X = fitted
    draws = estimator.sample_given(np.full((1, 3), np.nan), 512, key=0)
    assert draws.shape == (1, 512, 3)
    share, of_data = ((rows[:, 0] > 1e4 + 30).mean() for rows in (draws[0], X))
    # 512 draws: three standard errors are .06.
    assert share == pytest.approx(of_data, abs=0.08)
    np.testing.assert_array_equal(draws[..., 1], np.round(draws[..., 1]))


def test_a_cell_that_is_given_off_its_grid_stays_there(fitted):
    """The column of counts is whole in the fit; a row may still ask about 20.5."""
    estimator, X = fitted
    holes = X[:2].copy()
    holes[:, 1], holes[:, 2] = 20.5, np.nan
    np.testing.assert_array_equal(estimator.impute(holes, key=0)[:, :2], holes[:, :2])


def test_columns_in_another_order_are_matched_by_name(fitted):
    estimator, X = fitted
    holes = pl.DataFrame(X[:20], schema=COLUMNS).with_columns(count=pl.lit(None, pl.Float64))
    same = estimator.impute(holes, key=0)
    again = estimator.impute(holes.select("length", "count", "mass"), key=0)
    np.testing.assert_array_equal(same, again)
    X = pl.DataFrame(X[:20], schema=COLUMNS)
    turned = X.select("length", "mass", "count")
    np.testing.assert_array_equal(estimator.score_samples(X), estimator.score_samples(turned))


def test_rows_whose_chains_hardly_move_are_told(fitted, monkeypatch):
    estimator, X = fitted
    monkeypatch.setattr(missing_cells, "LEAST_ACCEPTANCE", 1.1)
    holes = X[:3].copy()
    holes[1, 2] = np.nan
    with pytest.warns(UserWarning, match="row 2 is one of 1 rows where hardly any global move"):
        estimator.impute(holes, key=0)


@pytest.fixture(scope="module")
def stored():
    return tiltflow.load(Path(__file__).parent / "stored_models" / "format_3_flow")


def test_whole_rows_run_no_chains_and_change_nothing(stored, monkeypatch):
    """One batch for five rows of 600; what is drawn for them is that of their places."""
    run, sizes = missing_cells._fill_some, []

    def counted(keys, *arguments):
        sizes.append(len(keys))
        return run(keys, *arguments)

    monkeypatch.setattr(missing_cells, "_fill_some", counted)
    whole = stored.sample(600, key=1)
    np.testing.assert_array_equal(stored.impute(whole, key=0), whole)
    assert sizes == []
    few, more = whole.copy(), whole.copy()
    few[100::100, 1] = more[50::50, 1] = np.nan
    filled = stored.impute(few, key=0)
    assert sizes == [5] and np.isfinite(filled).all()
    np.testing.assert_array_equal(filled[np.isfinite(few)], whole[np.isfinite(few)])
    np.testing.assert_allclose(stored.impute(more, key=0)[100::100], filled[100::100], rtol=1e-4)


def test_a_cell_that_is_too_far_out_leaves_no_nan_and_is_told(stored):
    with pytest.warns(UserWarning, match="row 1 is one of 1 rows where hardly any global move"):
        filled = stored.impute(np.array([[1e300, np.nan], [0.0, np.nan]]), key=0)
    assert np.isfinite(filled).all() and filled[0, 0] == 1e300


def test_a_table_of_no_rows_is_refused(stored):
    for draw in (stored.impute, stored.sample_given):
        with pytest.raises(InputError, match="X: found no rows; give rows with missing cells"):
            draw(np.empty((0, 2)))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[np.inf, 20.0, np.nan]], "'mass' is inf"),
        ([["a", 20.0, np.nan]], "not a number"),
        ([[1e4, np.nan]], "X has 2 features, but BalancedEBM is expecting 3"),
    ],
)
def test_what_cannot_be_filled_is_refused(fitted, rows, words):
    with pytest.raises(InputError, match=words):
        fitted[0].impute(np.array(rows, dtype=object))
