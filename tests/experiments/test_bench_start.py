"""The benchmark of starts: it times whole processes, and fails where one of them does."""

import subprocess

import pytest

from tiltflow.experiments import bench_start as module
from tiltflow.experiments.bench_start import STARTS, bench_start


def test_every_start_has_a_row(monkeypatch, capsys):
    monkeypatch.setattr(
        module, "STARTS", {name: STARTS[name] for name in ("python", "tiltflow --help")}
    )
    medians = bench_start(seed=0, quiet=True, turns=1)
    assert 0 < medians["python"] < medians["tiltflow --help"]
    rows = capsys.readouterr().out.splitlines()
    assert [row.split("  ")[0] for row in rows[3:]] == ["python", "tiltflow --help"]


def test_a_start_that_fails_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "STARTS", {"python": "raise SystemExit(3)"})
    with pytest.raises(subprocess.CalledProcessError):
        bench_start(seed=0, quiet=True, turns=1)
