"""EBFlow's experiments: divergences against closed forms, and a small run of each."""

import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import Normal

from tiltflow.data.noised_toys import NOISE, NoisedCurve
from tiltflow.experiments import bench_ebflow, ebflow_2d
from tiltflow.experiments.ebflow_2d import divergences


def test_divergences_of_gaussians_are_exact():
    """Of N(0, s^2) and N(m, t^2) in each coordinate, and none of a density and itself."""
    toy = NoisedCurve(jnp.zeros((1, 2)), jnp.zeros(2))
    rows = NOISE * np.random.default_rng(0).normal(size=(20_000, 2))
    kl, fisher = divergences(toy, Normal(jnp.zeros(2), jnp.full(2, NOISE)), rows)
    assert kl == pytest.approx(0, abs=1e-4)
    assert fisher == pytest.approx(0, abs=1e-4)
    shift, scale = np.array([0.1, -0.2]), 0.5
    kl, fisher = divergences(toy, Normal(jnp.asarray(shift), jnp.full(2, scale)), rows)
    ratio = NOISE**2 / scale**2
    expected = (ratio - 1 - np.log(ratio)) + 0.5 * (shift**2).sum() / scale**2
    assert kl == pytest.approx(expected, rel=2e-3)
    # Scores -x / s^2 and -(x - m) / t^2.
    slope = 1 / scale**2 - 1 / NOISE**2
    expected = 0.5 * (2 * slope**2 * NOISE**2 + (shift**2).sum() / scale**4)
    assert fisher == pytest.approx(expected, rel=2e-3)


def test_a_small_run_of_the_plane(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ebflow_2d, "TOYS", {"sine": ebflow_2d.sine})
    for name, value in {
        "ROWS": 600,
        "BLOCKS": 1,
        "WIDTH": 4,
        "CHUNK": 20,
        "QUICK_STEPS": 40,
    }.items():
        monkeypatch.setattr(ebflow_2d, name, value)
    ebflow_2d.reproduce_ebflow_2d(
        seeds=1, seed=0, quiet=True, out=tmp_path, methods=("denoising",), quick=True
    )
    assert "denoising" in capsys.readouterr().out
    assert (tmp_path / "results.jsonl").read_text().count("fisher") == 1


def test_a_small_benchmark(monkeypatch, capsys):
    monkeypatch.setattr(bench_ebflow, "SIZES", {8: (2, 1)})
    losses = {name: bench_ebflow.LOSSES[name] for name in ("likelihood", "finite differences")}
    monkeypatch.setattr(bench_ebflow, "LOSSES", losses)
    bench_ebflow.bench_ebflow(seed=0, quiet=True)
    assert "finite differences" in capsys.readouterr().out
