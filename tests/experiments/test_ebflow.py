"""EBFlow's experiments: figures against closed forms, bars, and a small run of each."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import Normal

from tiltflow.data.errors import InputError
from tiltflow.data.noised_toys import NOISE, NoisedCurve
from tiltflow.experiments import (
    bench_ebflow,
    ebflow_2d,
    ebflow_images,
    ebflow_pictures,
    grey_images,
    reproduce,
)
from tiltflow.experiments.cells import read_cells
from tiltflow.experiments.ebflow_2d import ENTRANTS, WHOLE, bars_met, judge
from tiltflow.experiments.flow_entrants import LIKELIHOOD, first_of_each


def test_divergences_of_gaussians_are_exact():
    """Of N(0, s^2) and N(m, t^2) in each coordinate, and none of a density and itself."""
    toy = NoisedCurve(jnp.zeros((1, 2)), jnp.zeros(2))
    rows = NOISE * np.random.default_rng(0).normal(size=(20_000, 2))
    same = judge(toy, Normal(jnp.zeros(2), jnp.full(2, NOISE)), rows)
    assert same["kl"] == pytest.approx(0, abs=1e-4)
    assert same["fisher"] == pytest.approx(0, abs=1e-4)
    # Of a Gaussian in the plane e^-10 lies beyond the level that deep.
    assert same["mass_elsewhere"] == pytest.approx(np.exp(-10), abs=1e-3)
    shift, scale = np.array([0.1, -0.2]), 0.5
    told = judge(toy, Normal(jnp.asarray(shift), jnp.full(2, scale)), rows)
    ratio = NOISE**2 / scale**2
    expected = (ratio - 1 - np.log(ratio)) + 0.5 * (shift**2).sum() / scale**2
    assert told["kl"] == pytest.approx(expected, rel=2e-3)
    # Scores -x / s^2 and -(x - m) / t^2.
    slope = 1 / scale**2 - 1 / NOISE**2
    expected = 0.5 * (2 * slope**2 * NOISE**2 + (shift**2).sum() / scale**4)
    assert told["fisher"] == pytest.approx(expected, rel=2e-3)


def test_mass_where_the_truth_has_none_is_told():
    """A density as narrow but a unit of 3 away has all of its mass elsewhere but for its edge."""
    toy = NoisedCurve(jnp.zeros((1, 2)), jnp.zeros(2))
    rows = NOISE * np.random.default_rng(0).normal(size=(5000, 2))
    far = judge(toy, Normal(jnp.array([3.0, 0.0]), jnp.full(2, NOISE)), rows)
    assert far["mass_elsewhere"] > 0.99


def test_every_stage_has_its_share_of_the_steps():
    """Whole chunks, one at least, and the last stage is at the noise of the data."""
    for entrant in ENTRANTS:
        for settings in (WHOLE, replace(WHOLE, steps=250)):
            stages = settings.stages(entrant)
            assert stages[-1][0] == 1.0
            assert all(steps > 0 and steps % settings.chunk == 0 for _, steps in stages)
        assert sum(steps for _, steps in WHOLE.stages(entrant)) == pytest.approx(
            WHOLE.steps, abs=2 * WHOLE.chunk
        )


def line(method, kl, case="sine", setting="", seed=0):
    names = {"case": case, "method": method, "setting": setting, "seed": seed, "budget": "6"}
    return names | {"figures": {"kl": kl}}


def test_bars_are_against_the_likelihood_of_the_same_seed():
    lines = [
        line(LIKELIHOOD, 0.02),
        line(LIKELIHOOD, 0.04, seed=1),
        line("denoising", 0.05),
        line("denoising", 0.09, seed=1),
        line("sliced", 0.09, setting="1 slice"),
        line("sliced", 0.01, case="swirl"),
    ]
    assert bars_met(lines) == [
        "sine, denoising: KL 0.0400 above likelihood, bar 0.05: met",
        "sine, sliced (1 slice): KL 0.0700 above likelihood, bar 0.05: missed",
    ]


def test_a_quick_run_has_every_loss_once():
    first = first_of_each(ENTRANTS)
    assert len({each.name for each in first}) == len(first) == 5
    assert not any(each.setting == "1 slice" for each in first)


def test_an_unknown_method_is_refused(tmp_path):
    for name in ("ebflow-2d", "ebflow-images"):
        with pytest.raises(InputError, match="'score' is not known; use some of likelihood"):
            reproduce(name, seeds=1, seed=0, quiet=True, out=tmp_path, methods=("score",))


def test_a_small_run_of_the_plane_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ebflow_2d, "TOYS", {"sine": ebflow_2d.sine})
    small = replace(WHOLE, rows=600, held_out=500, steps=40, chunk=20, blocks=1, width=4)
    monkeypatch.setattr(ebflow_2d, "QUICK", small)
    for expected in ("guessed: 1", "1 cells, all of them kept"):
        ebflow_2d.reproduce_ebflow_2d(
            seeds=1, seed=0, quiet=True, out=tmp_path, methods=(LIKELIHOOD,), quick=True
        )
        printed = capsys.readouterr().out
        assert expected in printed and "mass elsewhere" in printed
    assert (tmp_path / "cells.jsonl").read_text().count("fisher") == 1
    assert (tmp_path / "sine.png").stat().st_size < 300_000


def test_a_small_run_of_images_is_kept(tmp_path, image_folder, monkeypatch, capsys):
    """Uniform bytes have eight bits a pixel, which an untrained flow is not far from."""
    small = ebflow_images.Settings("mnist", "fully connected", 200, 50, 100, steps=4, chunk=2)
    monkeypatch.setattr(ebflow_images, "QUICK", (small,))
    monkeypatch.setattr(ebflow_pictures, "LANGEVIN_STEPS", 3)
    out = tmp_path / "out"
    out.mkdir()
    for expected in ("guessed: 1", "1 cells, all of them kept"):
        ebflow_images.reproduce_ebflow_images(
            seeds=1, seed=0, quiet=True, out=out, methods=("denoising",), quick=True
        )
        printed = capsys.readouterr().out
        assert expected in printed and "bits/dim" in printed
        assert "no step was skipped" in printed
    cell = read_cells(out)[0]
    assert 7.5 < cell["figures"]["bits_per_dimension"] < 10
    assert cell["setting"] == "noise 1 of logits / 0.5" and "at the last step" in printed
    assert cell["figures"]["last_held_out_nll"] >= cell["figures"]["held_out_nll"]
    assert cell["figures"]["milliseconds"] > 0
    pictures = ebflow_pictures.read_pictures(out, cell)
    assert all(each.shape == (ebflow_pictures.SHOWN, 4, 4) for each in pictures)
    np.testing.assert_array_equal(pictures.inpainted[:, :2], pictures.half[:, :2])
    assert (out / "mnist_fully_connected.png").stat().st_size < 300_000


def test_missing_images_are_named(image_folder, monkeypatch):
    many = ebflow_images.Settings("mnist", "fully connected", rows=400, test=100)
    with pytest.raises(InputError, match=r"train-images.*has 300 images for 2400"):
        ebflow_images.load_images(many, seed=0)
    monkeypatch.setattr(grey_images, "FOLDER", image_folder / "nowhere")
    with pytest.raises(InputError, match="TILTFLOW_DATA"):
        ebflow_images.load_images(many, seed=0)


def test_a_small_benchmark(monkeypatch, capsys):
    monkeypatch.setattr(bench_ebflow, "BATCHES", (4,))
    monkeypatch.setattr(bench_ebflow, "SIZES", {8: (2, 1), 16: (2, 1)})
    losses = {name: bench_ebflow.LOSSES[name] for name in ("likelihood", "denoising")}
    monkeypatch.setattr(bench_ebflow, "LOSSES", losses)
    bench_ebflow.bench_ebflow(seed=0, quiet=True)
    printed = capsys.readouterr().out
    assert "bar 10 x: " in printed and "grows as d^" in printed


def test_growth_is_fitted_in_logarithms():
    assert bench_ebflow.growth({d: 3.0 * d**2.5 for d in (64, 256, 1024)}) == pytest.approx(2.5)


def test_the_published_steps_need_no_other_code():
    """Every entry of the table makes its flow: shapes alone, for a GPU is what they are for."""
    for settings in ebflow_images.PUBLISHED:
        flow = jax.eval_shape(lambda s=settings: s.flow(jax.random.key(0), (28, 28)).layers[0].bias)
        assert flow.size in (1, 784)
