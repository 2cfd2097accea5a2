"""Kills of fits: where they are aimed, and that a fit that ends otherwise is not survived."""

import json

import numpy as np

from tiltflow.experiments import bench_kills
from tiltflow.experiments.bench_kills import _place, _when


def test_every_other_kill_is_within_the_training_of_the_energy():
    generator = np.random.default_rng(0)
    anywhere = [_when(generator, 0, 20.0, 3, 10) for _ in range(300)]
    assert {when.reports for when in anywhere} == {0}
    assert 25 < max(when.seconds for when in anywhere) < 30
    aimed = [_when(generator, 1, 20.0, 3, 10) for _ in range(300)]
    # Reports that were written before the process began do not say that it trains.
    assert {when.reports for when in aimed} == set(range(4, 11))
    assert max(when.seconds for when in aimed) < 1
    assert _when(generator, 1, 20.0, 10, 10) is None


def test_a_kill_is_where_the_process_was_that_it_hit():
    assert _place([], []) == "before it went on after nothing"
    assert _place(["base"], ["base"]) == "before it went on after base"
    assert _place(["base"], ["base", "energy"]) == "in the process that reported energy"


def test_kills_are_counted_and_other_bits_are_seen(tmp_path, monkeypatch, capsys):
    """Runs that are stand-ins: a kill leaves one report more, and the last run another model."""
    runs = []

    def run(folder, name, options, when=None):
        runs.append(name)
        (folder / name).mkdir(exist_ok=True)
        metrics = folder / name / "metrics.jsonl"
        reports = metrics.read_text() if metrics.exists() else ""
        killed = when is not None and reports.count("energy") < 3
        reports += json.dumps({"stage": "energy"}) + "\n"
        metrics.write_text(reports if killed else (json.dumps({"stage": "energy"}) + "\n") * 4)
        bits = b"other" if name == "run1" else b"same"
        (folder / name / "model.safetensors").write_bytes(bits)
        return killed

    monkeypatch.setattr(bench_kills, "_run", run)
    assert bench_kills.bench_kills(seed=0, quiet=False, kills=5) == 3
    said = capsys.readouterr().out
    assert "survived 3 of 5 kills, in 2 fits" in said
    assert "killed in fit 0, in the process that reported energy" in said
