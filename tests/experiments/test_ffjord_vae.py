"""FFJORD in an autoencoder: a small run, its table, and what makes its cells others."""

from functools import partial

import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.experiments import ffjord_vae
from tiltflow.experiments.cells import read_cells
from tiltflow.experiments.ffjord_vae import Budget, reproduce_ffjord_vae
from tiltflow.models.integration import Integration
from tiltflow.models.posteriors import ContinuousPosterior

SMALL = Budget(train=200, held_out=50, test=100, steps=4, chunk=2, batch_size=20)
FEW = Integration(steps=2)


@pytest.fixture
def small(image_folder, monkeypatch):
    """Uniform bytes for MNIST, and networks of a few numbers."""
    ffjord = partial(ContinuousPosterior, flows=1, widths=(4,), rank=1, integration=FEW)
    monkeypatch.setattr(ffjord_vae, "FOLDER", image_folder)
    monkeypatch.setattr(ffjord_vae, "QUICK", SMALL)
    monkeypatch.setattr(ffjord_vae, "LATENT", 2)
    monkeypatch.setattr(ffjord_vae, "WIDTH", 8)
    monkeypatch.setitem(ffjord_vae.POSTERIORS, "ffjord", ffjord)


def run(out, capsys, *methods):
    reproduce_ffjord_vae(seeds=1, seed=0, quiet=True, out=out, methods=methods, quick=True)
    return capsys.readouterr().out


def test_a_small_run_is_kept(tmp_path, small, capsys):
    """Fair coins for pixels have log 2 nats each, which a new decoder is not far from."""
    out = tmp_path / "out"
    out.mkdir()
    printed = run(out, capsys, "gaussian", "ffjord")
    assert "guessed: 2" in printed and "no step was skipped, every density is finite" in printed
    figures = {cell["method"]: cell["figures"] for cell in read_cells(out)}
    for name, calls in (("gaussian", 0), ("ffjord", 13)):
        assert 0 < figures[name]["negative_bound"] - 16 * np.log(2) < 3
        assert figures[name]["evaluations"] == figures[name]["test_evaluations"] == calls
        assert figures[name]["steps"] == 4 and figures[name]["failed_rows"] == 0
    (row,) = [line for line in printed.splitlines() if line.startswith("ffjord ")]
    assert "82.82" in row
    again = run(out, capsys, "gaussian", "ffjord")
    assert "all of them kept" in again
    assert again.splitlines()[1:] == printed.splitlines()[1:]


@pytest.mark.parametrize(
    "change",
    [
        {"LATENT": 3},
        {"WIDTH": 9},
        {"POSTERIORS": {"ffjord": partial(ContinuousPosterior, rank=2, integration=FEW)}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_are_other_cells(tmp_path, small, monkeypatch, capsys, change):
    """Without a training: every run is counted."""
    runs = []
    figures = dict.fromkeys(("negative_bound", "stderr", "evaluations", "test_evaluations"), 1.0)

    def counted(name, budget, *images, seed):
        runs.append(name)
        return figures | {"seconds": 1.0}

    monkeypatch.setattr(ffjord_vae, "run", counted)
    for _ in range(2):
        run(tmp_path, capsys, "ffjord")
    assert runs == ["ffjord"]
    for name, value in change.items():
        monkeypatch.setattr(ffjord_vae, name, value)
    run(tmp_path, capsys, "ffjord")
    assert runs == ["ffjord"] * 2


def test_what_is_missing_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ffjord_vae, "FOLDER", tmp_path / "nowhere")
    with pytest.raises(InputError, match="TILTFLOW_DATA"):
        run(tmp_path, capsys, "gaussian")
    with pytest.raises(InputError, match="'glow' is not known; use some of gaussian, planar"):
        run(tmp_path, capsys, "glow")
