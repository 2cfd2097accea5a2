"""The command line as a user runs it, from files to files, in processes of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

SMALL = ["--max-steps", "100", "--chains", "128", "--energy-width", "16", "--local-steps", "3"]


def tiltflow(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    command = [str(Path(sys.executable).with_name("tiltflow")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder fitted to a table with a class column, a count, and two modes 3 : 1."""
    folder = tmp_path_factory.mktemp("fit")
    generator = np.random.default_rng(0)
    right = generator.random(1200) < 0.25
    frame = pl.DataFrame(
        {
            "width": generator.normal(np.where(right, 8.0, 0.0)) + 100.0,
            "count": generator.poisson(30, 1200),
            "kind": np.where(right, "b", "a"),
        }
    )
    frame.write_csv(folder / "data.csv")
    out = folder / "run"
    result = tiltflow(
        "fit", str(folder / "data.csv"), "--out", str(out), "--label-column", "kind",
        "--preprocessing", "standardise", "--base", "mixture", "--quiet", *SMALL,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return folder, out, result


def test_fit_writes_the_folder_and_a_summary(run):
    _, out, result = run
    names = {path.name for path in out.iterdir()}
    assert names == {"config.json", "model.safetensors", "metrics.jsonl", "report.html"}
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    energy = [line for line in metrics if line["stage"] == "energy"]
    for name in (
        "held_out_log_likelihood",
        "log_z",
        "local_acceptance_rate",
        "global_acceptance_rate",
        "importance_ess",
        "steps_per_second",
    ):
        assert isinstance(energy[-1][name], float), name
    assert "held-out log-likelihood" in result.stdout
    assert result.stderr == ""


def test_score_matches_columns_by_name(run):
    folder, out, _ = run
    frame = pl.read_csv(folder / "data.csv")
    frame.select("count", "kind", "width").write_csv(folder / "shuffled.csv")
    for name in ("data", "shuffled"):
        table, scores = folder / f"{name}.csv", folder / f"{name}_scores.parquet"
        result = tiltflow("score", str(out), str(table), "--out", str(scores))
        assert result.returncode == 0, result.stderr
    first = pl.read_parquet(folder / "data_scores.parquet")
    second = pl.read_parquet(folder / "shuffled_scores.parquet")
    assert first.columns == ["log_prob"] and len(first) == 1200
    assert first.equals(second)


def test_samples_have_the_modes_and_the_grid(run):
    """Share of the right mode within five standard errors at n = 1000, which are 0.068."""
    folder, out, _ = run
    file = folder / "draws.csv"
    result = tiltflow("sample", str(out), "--num-samples", "1000", "--out", str(file))
    assert result.returncode == 0, result.stderr
    draws = pl.read_csv(file)
    assert draws.columns == ["width", "count"]
    assert (draws["count"] % 1 == 0).all()
    data = pl.read_csv(folder / "data.csv")
    assert (draws["width"] > 104).mean() == pytest.approx((data["width"] > 104).mean(), abs=0.068)


def test_report_is_made_again(run):
    _, out, _ = run
    (out / "report.html").unlink()
    assert tiltflow("report", str(out)).returncode == 0
    assert "width" in (out / "report.html").read_text()


def test_quick_demo(tmp_path):
    result = tiltflow("demo", "--quick", "--quiet", "--out", str(tmp_path / "demo"))
    assert result.returncode == 0, result.stderr
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {
        "figure.png",
        "metrics.jsonl",
        "report.html",
    }
    rows = [line for line in result.stdout.splitlines() if line.startswith(("PCD", "balanced"))]
    assert len(rows) == 2


def test_unknown_experiments_are_listed(tmp_path):
    result = tiltflow("reproduce", "moons", "--out", str(tmp_path / "out"))
    assert result.returncode == 2
    assert "two-modes" in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
