"""Fits of tables that count as large: the bound on cells is lowered, and the sample with it."""

import signal

import numpy as np
import polars
import pytest
from scipy.stats import norm

import tiltflow.data.streams
import tiltflow.fit_rows
import tiltflow.memory
from tiltflow import BalancedEBM, load
from tiltflow.cli import main
from tiltflow.data.errors import InputError
from tiltflow.data.schema import to_numbers
from tiltflow.estimator_files import describe
from tiltflow.training.checkpoints import Checkpoints
from tiltflow.training.stopping import Stopped, StopRequest

OPTIONS = {
    "preprocessing": "standardise",
    "base": "gaussian",
    "chains": 64,
    "energy_width": 16,
    "energy_depth": 1,
    "local_steps": 2,
    "learning_rate": 0.01,
    "random_state": 1,
}


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch):
    monkeypatch.setattr(tiltflow.memory, "MOST_CELLS", 1000)
    monkeypatch.setattr(tiltflow.memory, "SAMPLE_ROWS", 800)
    monkeypatch.setattr(tiltflow.fit_rows, "SAMPLE_ROWS", 800)
    monkeypatch.setattr(tiltflow.fit_rows, "HELD_OUT_ROWS", 400)
    monkeypatch.setattr(tiltflow.data.streams, "BATCH_ROWS", 700)


def two_modes(n, seed=0):
    """Modes of .75 and .25."""
    generator = np.random.default_rng(seed)
    centre = np.where(generator.random(n) < 0.25, 4.0, 0.0)
    return polars.DataFrame({"x": generator.normal(centre, 0.7)})


def true_log_density(frame):
    x = frame["x"].to_numpy()
    density = 0.75 * norm.pdf(x, 0.0, 0.7) + 0.25 * norm.pdf(x, 4.0, 0.7)
    return np.log(density)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    frame = two_modes(6000)
    path = tmp_path_factory.mktemp("large") / "table.parquet"
    frame.write_parquet(path)
    return frame, path


def fit(X, run, resume=False, stage=None):
    stop, reports = StopRequest(), []

    def on_report(report):
        reports.append(report)
        if report["stage"] == stage:
            stop.number = signal.SIGTERM

    estimator = BalancedEBM(**OPTIONS, max_steps=200)
    with Checkpoints(run, seconds=1000, resume=resume, stop=stop) as checkpoints:
        return estimator.fit(X, on_report=on_report, checkpoints=checkpoints)


def content(estimator):
    config, arrays = describe(estimator)
    for report in config["metrics"]:
        report.pop("steps_per_second", None)
    return config, {name: array.tobytes() for name, array in arrays.items()}


def test_a_large_table_is_learnt_and_gone_on_with(table, tmp_path, capsys):
    frame, path = table
    run, scores = tmp_path / "whole", tmp_path / "scores.npy"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    options[-1] = f"--seed={OPTIONS['random_state']}"
    assert main(["fit", str(path), "--out", str(run), "--max-steps=200", *options]) in (0, 1)
    said = capsys.readouterr()
    assert "6000 rows are too many to hold: they are read in batches" in said.err
    assert "rows                     6000" in said.out
    whole = load(run)
    test = two_modes(4000, seed=1)
    short = float((true_log_density(test) - whole.score_samples(test)).mean())
    gaussian = norm.logpdf(test["x"], test["x"].mean(), test["x"].std()).mean()
    assert -0.01 < short < 0.5 * (true_log_density(test).mean() - gaussian)

    # A frame is the same table as the file, and a fit that was stopped ends with the same bits.
    with pytest.raises(Stopped):
        fit(path, tmp_path / "parts", stage="energy")
    assert content(fit(frame, tmp_path / "parts", True)) == content(whole)
    left = sorted(each.name for each in (tmp_path / "parts" / "checkpoints").iterdir())
    assert "lock" in left and all(name[0].isdigit() for name in left if name != "lock")
    with (
        pytest.raises(InputError, match=r"was begun otherwise \(the data\)"),
        Checkpoints(tmp_path / "parts", resume=True) as checkpoints,
    ):
        BalancedEBM(**OPTIONS, max_steps=200).fit(frame.reverse(), checkpoints=checkpoints)

    # Scores in batches are those of the whole.
    assert main(["score", str(run), str(path), "--out", str(scores)]) == 0
    assert "over 6000 rows" in capsys.readouterr().out
    at_once = whole._log_prob(to_numbers(whole.schema_, frame))
    np.testing.assert_allclose(np.load(scores)[:, 0], at_once, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(whole.score_samples(frame.lazy()), np.load(scores)[:, 0])
