"""The scikit-learn door: one small fit, looked at from every side."""

import json
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest

import tiltflow
from tiltflow import BalancedEBM
from tiltflow.data.errors import InputError
from tiltflow.data.machine import Machine
from tiltflow.data.preprocessing import to_model_units
from tiltflow.memory import DRAW_BYTES
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.bases import mixture_of_flows_on

SMALL = {"max_steps": 100, "chains": 128, "energy_width": 16, "energy_depth": 2, "local_steps": 3}


def two_clusters(rows: int, seed: int = 0) -> np.ndarray:
    """Weights .7 and .3, far apart, in units far from standardised: 1e4 ± and 0.001 ±."""
    generator = np.random.default_rng(seed)
    right = generator.random(rows) < 0.3
    z = generator.normal(size=(rows, 2)) + np.where(right, 6.0, 0.0)[:, None]
    return np.array([1e4, 0.001]) + z * np.array([10.0, 1e-4])


@pytest.fixture(scope="module")
def data():
    return two_clusters(1500)


@pytest.fixture(scope="module")
def fitted(data):
    reports = []
    estimator = BalancedEBM(base="gaussian", preprocessing="standardise", random_state=0, **SMALL)
    frame = pl.DataFrame(data, schema=["mass", "length"])
    return estimator.fit(frame, on_report=reports.append), reports


def test_density_integrates_to_one_in_the_users_units(fitted, data):
    estimator, _ = fitted
    low, high = data.min(axis=0), data.max(axis=0)
    low, high = low - 0.6 * (high - low), high + 0.6 * (high - low)
    cells = 200
    axes = [a + (b - a) * (np.arange(cells) + 0.5) / cells for a, b in zip(low, high)]
    points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    mass = np.exp(estimator.score_samples(points)).sum() * np.prod((high - low) / cells)
    # log Z has a standard error; five of them and the grid's own error.
    assert abs(mass - 1) < 5 * estimator.log_normalizer_stderr_ + 0.01


def test_attributes_and_reports(fitted):
    estimator, reports = fitted
    assert list(estimator.feature_names_in_) == ["mass", "length"]
    assert estimator.n_features_in_ == 2
    assert estimator.log_normalizer_stderr_ > 0
    assert estimator.base_.startswith("gaussian")
    assert {"proposal", "base", "energy", "settle"} <= {report["stage"] for report in reports}
    energy = [report for report in reports if report["stage"] == "energy"]
    assert np.isfinite(energy[-1]["held_out_log_likelihood"])


def test_mode_weights_by_labels_and_by_basins(fitted, data):
    """Both see the two clusters, with the same shares, near the data's own."""
    estimator, _ = fitted
    share = (data[:, 0] > 1e4 + 30).mean()
    by_label = estimator.mode_weights(lambda rows: np.where(rows[:, 0] > 1e4 + 30, "far", "near"))
    assert by_label.labels.tolist() == ["far", "near"] and by_label.centers is None
    by_basin = estimator.mode_weights()
    assert by_basin.weights.shape == (2,) and by_basin.intervals.shape == (2, 2)
    assert by_basin.weights[0] > by_basin.weights[1]
    # A fit as short as this leaves a bridge between the clusters, which the two cut differently.
    np.testing.assert_allclose(by_basin.weights, by_label.weights[::-1], atol=0.01)
    np.testing.assert_allclose(by_basin.centers[1], [1e4 + 60, 0.001 + 6e-4], rtol=0.05, atol=1e-4)
    assert by_label.weights[0] == pytest.approx(share, abs=0.05)
    low, high = by_label.intervals[0]
    assert low < by_label.weights[0] < high
    wider = by_label.population_intervals[0]
    assert wider[0] < low and high < wider[1]
    error = np.sqrt(share * (1 - share) / estimator.independent_rows_)
    assert estimator.independent_rows_ == len(data) - round(0.15 * len(data))
    assert 1.9 * error < np.diff(wider) / 2 < 2.3 * error + np.diff([low, high]) / 2
    with pytest.raises(InputError, match="label_fn"):
        estimator.mode_weights(lambda rows: np.zeros(3))


def test_a_smoothed_density_is_of_the_model_and_the_same_every_time(fitted, data):
    estimator, _ = fitted
    rows = np.stack([data[1], data[0], data.max(axis=0) + 10 * data.std(axis=0)])
    smoothed = estimator.smoothed_log_density(rows)
    np.testing.assert_array_equal(estimator.smoothed_log_density(rows), smoothed)
    assert smoothed.shape == (3,) and smoothed[2] < smoothed[:2].min() - 10
    # A scale of next to nothing gives the density back, as far as 8192 draws tell it.
    near = estimator.smoothed_log_density(data[:200], scale=0.1).mean()
    assert near == pytest.approx(estimator.score_samples(data[:200]).mean(), abs=0.3)
    with pytest.raises(InputError, match=r"scale: found 0\.0; give a number above 0"):
        estimator.smoothed_log_density(rows, scale=0.0)


def test_a_good_fit_has_a_verdict_with_its_figures(fitted):
    verdict = fitted[0].verdict_
    assert verdict.status in {"trusted", "doubtful"}
    assert {"rhat", "ess_bulk", "pareto_k", "log_z_disagreement"} <= verdict.figures.keys()
    assert (verdict.status == "trusted") == (not verdict.reasons)


def test_score_is_the_mean(fitted, data):
    estimator, _ = fitted
    assert estimator.score(data) == pytest.approx(estimator.score_samples(data).mean())
    far = data[:1] + 1e3 * np.array([10.0, 1e-4])
    assert estimator.score_samples(far)[0] < estimator.score(data) - 50


def test_samples_carry_the_weights_of_the_density(fitted, data):
    """The chains' share of the right cluster against the same share by quadrature-free IS: the
    samples and the density must agree within five standard errors at n = 2000."""
    estimator, _ = fitted
    samples = estimator.sample(2000, key=1)
    assert samples.shape == (2000, 2)
    middle = 1e4 + 30.0
    share = (samples[:, 0] > middle).mean()
    low, high = data.min(axis=0), data.max(axis=0)
    low, high = low - 0.6 * (high - low), high + 0.6 * (high - low)
    axes = [a + (b - a) * (np.arange(200) + 0.5) / 200 for a, b in zip(low, high)]
    points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    mass = np.exp(estimator.score_samples(points))
    expected = mass[points[:, 0] > middle].sum() / mass.sum()
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 2000)


def test_rows_too_far_out_for_float32_have_no_density(monkeypatch):
    """Of a flow as base, where the energy's activations overflow before the base's square does."""
    stored = tiltflow.load(Path(__file__).parent / "stored_models" / "format_3_flow")
    rows = np.array([[1e300, 0.0], [0.0, -1e30], [1e18, 1e18], [0.0, 0.0]])
    scores = stored.score_samples(rows)
    assert (scores[:2] == -np.inf).all() and scores[2] < -1e20 and np.isfinite(scores[3])
    assert stored.score(rows) == -np.inf
    assert (stored.decision_function(rows)[:2] == -np.inf).all()
    assert stored.predict(rows).tolist() == [-1, -1, -1, 1]
    stored._kept_rows = 1e-10 * stored._kept_rows
    assert stored.smoothed_log_density(rows)[0] == -np.inf
    stored._kept_rows = rows
    stored.set_offset()
    assert np.isfinite(stored.offset_)
    # Nearer to the data nothing is hidden.
    monkeypatch.setattr(
        tiltflow.frozen, "batched_log_density", lambda _, z: np.full(len(z), np.nan)
    )
    assert np.isnan(stored.score_samples(rows)).tolist() == [False, False, False, True]


def test_same_key_same_samples(fitted):
    estimator, _ = fitted
    assert np.array_equal(estimator.sample(7, key=3), estimator.sample(7, key=3))
    assert not np.array_equal(estimator.sample(7, key=3), estimator.sample(7, key=4))


def test_save_and_load_give_the_same_numbers(fitted, data, tmp_path):
    estimator, _ = fitted
    estimator.save(tmp_path / "run")
    again = tiltflow.load(tmp_path / "run")
    assert np.array_equal(again.score_samples(data), estimator.score_samples(data))
    assert np.array_equal(again.sample(5, key=0), estimator.sample(5, key=0))
    assert again.held_out_log_likelihood_ == estimator.held_out_log_likelihood_
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_earlier_energies_are_saved(fitted, tmp_path):
    estimator, _ = fitted
    estimator.save(tmp_path)
    again = tiltflow.load(tmp_path)
    assert len(again._frozen.earlier) == len(estimator._frozen.earlier) == 1


def test_where_the_flow_is_refused_chains_climb_the_ladder(fitted, data, tmp_path):
    """A flow beside one of the modes, of which almost no draw is accepted.

    The weight of the other mode is right within .05 (512 draws: 2.5 standard errors), and the
    verdict still doubts the flow.
    """
    estimator, _ = fitted
    estimator.save(tmp_path)
    again = tiltflow.load(tmp_path)
    assert not again._frozen.climbs
    z, _ = to_model_units(again._bijection, data)
    right = data[:, 0] > 1e4 + 30
    beside = z[~right].mean(0) - 4 * z[~right].std(0)
    wrong = GaussianMixture(np.ones(1), beside[None], np.diag(z[~right].var(0))[None] / 4)
    again._frozen = again._frozen._replace(flow=wrong)

    def share():
        return (again.sample(512, key=0)[:, 0] > 1e4 + 30).mean()

    assert share() < right.mean() - 0.1
    again._judge()
    assert again._frozen.climbs and again.verdict_.status != "trusted"
    assert share() == pytest.approx(right.mean(), abs=0.05)
    (_, weight) = again.mode_weights(lambda x: x[:, 0] > 1e4 + 30).weights
    assert weight == pytest.approx(right.mean(), abs=0.05)


def test_a_mixture_of_flows_is_saved_with_the_model(fitted, data, tmp_path):
    fitted[0].save(tmp_path / "first")
    estimator = tiltflow.load(tmp_path / "first")
    means = np.array([[0.0, 0.0], [1.0, 2.0]])
    mixture = GaussianMixture(np.array([0.7, 0.3]), means, np.stack([np.eye(2)] * 2))
    flow = mixture_of_flows_on(jax.random.key(5), mixture)
    model = TiltedEBM(flow, estimator._frozen.model.energy)
    estimator._frozen = estimator._frozen._replace(flow=flow, model=model)
    estimator.save(tmp_path / "second")
    again = tiltflow.load(tmp_path / "second")
    np.testing.assert_array_equal(again.score_samples(data), estimator.score_samples(data))
    np.testing.assert_array_equal(again.sample(8, key=0), estimator.sample(8, key=0))


def test_report_is_written_before_and_after_loading(fitted, tmp_path):
    estimator, _ = fitted
    estimator.save(tmp_path)
    tiltflow.load(tmp_path).report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "mass" in page and "data:image/png" in page and "http://" not in page
    assert "Weights of modes" in page and "annealed, from above" in page
    estimator.report(tmp_path / "labels.html", lambda rows: rows[:, 0] > rows[:, 0].mean())
    assert "Weights of labels" in (tmp_path / "labels.html").read_text()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is not there"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (
            lambda folder: (folder / "config.json").write_text('{"format_version": 99}'),
            "format version 99",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 40),
            "is not what config.json was written with",
        ),
        (lambda folder: _edit(folder, columns=["a", "b", "c"], types={}), "shape"),
        (lambda folder: _edit(folder, proposal_components=None), "damaged"),
    ],
)
def test_damaged_models_are_refused(fitted, tmp_path, damage, words):
    estimator, _ = fitted
    estimator.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=words):
        tiltflow.load(tmp_path)


def _edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base": "spline"}, "base"),
        ({"preprocessing": "log"}, "preprocessing"),
        ({"chains": 1}, "chains"),
        ({"max_steps": 0}, "max_steps"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"validation_fraction": 1.5}, "validation_fraction"),
    ],
)
def test_wrong_arguments_are_named(data, change, words):
    with pytest.raises(InputError, match=words):
        BalancedEBM(**change).fit(data)


def test_bad_tables_are_value_errors(data):
    bad = data.copy()
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match="x1"):
        BalancedEBM().fit(bad)
    with pytest.raises(ValueError, match="constant"):
        BalancedEBM().fit(np.column_stack([data, np.ones(len(data))]))


def test_scoring_another_width_is_refused(fitted):
    estimator, _ = fitted
    with pytest.raises(InputError, match="expecting 2 features"):
        estimator.score_samples(np.zeros((3, 5)))


def test_one_column_and_a_grid():
    """One integer column: dequantised, fitted, and given back as integers."""
    column = np.random.default_rng(0).poisson(20, size=(800, 1)).astype(float)
    estimator = BalancedEBM(preprocessing="standardise", random_state=0, **SMALL).fit(column)
    assert estimator.quanta_[0] == 1
    samples = estimator.sample(200, key=0)
    assert np.array_equal(samples, np.round(samples))
    grid = np.arange(-0.5, 60, 0.05)[:, None]
    assert np.exp(estimator.score_samples(grid)).sum() * 0.05 == pytest.approx(1, abs=0.02)


def test_repeated_values_on_no_grid_are_warned_of_by_column():
    """Seen before anything is trained: whitening two equal columns then fails."""
    column = np.random.default_rng(0).normal(size=400)
    column[:100] = column[0]
    X = np.column_stack([column, column])
    with (
        pytest.raises(InputError),
        pytest.warns(UserWarning, match=r"column 'x\d': 25% of the rows repeat a value") as caught,
    ):
        BalancedEBM(preprocessing="whiten").fit(X)
    assert ["'x0'" in str(caught[0].message), "'x1'" in str(caught[1].message)] == [True, True]


def test_draws_take_less_memory_than_their_bound(monkeypatch, fitted):
    """Measured as NumPy counts it; chains are left out, which are never more than 1024 rows."""
    estimator, _ = fitted
    rows = 300_000
    monkeypatch.setattr(
        tiltflow.frozen, "draw_rows", lambda key, frozen, chains: np.ones((chains, 2))
    )
    tracemalloc.start()
    estimator.sample(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    bound = DRAW_BYTES * 2 * rows
    assert bound / 8 < peak < bound


def test_too_many_draws_are_refused_before_any_is_made(monkeypatch, fitted):
    estimator, _ = fitted
    machine = Machine(16_000_000_000, 12_800_000_000)
    monkeypatch.setattr(tiltflow.memory, "find_machine", lambda: machine)
    for draw in (
        lambda: estimator.sample(10**12),
        lambda: estimator.sample_given(np.array([[1e4, np.nan]]), 10**12),
    ):
        with pytest.raises(InputError, match="memory: 1000000000000 draws may take up to"):
            draw()
