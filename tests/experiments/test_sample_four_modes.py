"""Four modes from even starts: the target's geometry, weights judged right, a lost mode seen."""

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.mixtures import GaussianMixture
from tiltflow.evaluation.verdict import Verdict
from tiltflow.experiments import sample_four_modes as module
from tiltflow.experiments.sample_four_modes import (
    BAR,
    WEIGHTS,
    four_corners,
    peak_mebibytes,
    reproduce_sample_four_modes_256,
    run_seed,
)
from tiltflow.sampler import SampleResult


def test_the_modes_stand_where_the_source_puts_them():
    target = four_corners(16)
    means = np.asarray(target.means)
    np.testing.assert_allclose(np.abs(means), 0.591 * math.sqrt(2 * math.log(16)), rtol=1e-6)
    assert np.sign(means[:, [0, 7, 8, 15]]).astype(int).tolist() == [
        [-1, -1, -1, -1],
        [1, 1, 1, 1],
        [-1, -1, 1, 1],
        [1, 1, -1, -1],
    ]
    np.testing.assert_allclose(target.weights, WEIGHTS, rtol=1e-6)
    assert np.asarray(target.scale_trils == jnp.eye(16)).all()


def exact_result(target, weights, log_z=0.01):
    """What a perfect sampler of a target with these weights would return."""
    other = GaussianMixture(target.means, target.scale_trils, np.array(weights))
    chains = np.asarray(other.sample(jax.random.key(0), 32 * 256)).reshape(32, 256, -1)
    draws = np.asarray(other.sample(jax.random.key(1), 8192))
    verdict = Verdict("trusted", (), {"global_acceptance_rate": 1.0})
    found: dict[str, Any] = dict.fromkeys(SampleResult._fields) | {
        "chains": chains,
        "proposals": draws,
        "proposal_log_weights": np.zeros(len(draws)),
        "log_z": log_z,
        "log_z_stderr": 0.02,
        "verdict": verdict,
    }
    return SampleResult(**found)


def figures_of(monkeypatch, weights):
    """`run_seed` on 64 dimensions with a sampler that finds these weights."""
    called = []

    def sample(log_density, starts, **about):
        called.append((log_density, starts, about))
        return exact_result(target, weights)

    target = four_corners(64)
    monkeypatch.setattr(module, "sample", sample)
    figures = run_seed(jax.random.key(0), target, chains=128, samples=1000)
    return figures, called[0]


def test_exact_draws_have_no_more_than_their_noise_as_error(monkeypatch):
    figures, (log_density, starts, about) = figures_of(monkeypatch, WEIGHTS)
    assert figures["largest_error"] < BAR
    for (low, high), truth in zip(figures["intervals"], WEIGHTS):
        assert low - 0.01 < truth < high + 0.01
    assert figures["log_z"] == 0.01 and figures["verdict"] == "trusted"
    # The starts know the modes and not the weights.
    labels = np.asarray(jax.vmap(four_corners(64).label)(starts))
    assert np.bincount(labels).tolist() == [32] * 4
    assert float(log_density(starts[0])) == float(four_corners(64).log_prob(starts[0]))
    assert about["num_samples"] == 1000


@pytest.mark.parametrize(
    "weights", [(0.25,) * 4, (0.3, 0.4, 0.2, 0.1)], ids=["the starts' own", "two exchanged"]
)
def test_wrong_weights_miss_the_bar(monkeypatch, weights):
    figures, _ = figures_of(monkeypatch, weights)
    assert figures["largest_error"] > 4 * BAR


def test_a_mode_that_was_never_seen_is_as_wrong_as_its_weight(monkeypatch):
    figures, _ = figures_of(monkeypatch, (0.5, 0.3, 0.2, 0.0))
    assert figures["weights"][3] == 0 and figures["intervals"][3] == [0, 0]
    assert figures["largest_error"] == pytest.approx(0.1, abs=BAR)


def test_the_experiment_keeps_every_seed_and_prints_its_doubts(tmp_path, monkeypatch, capsys):
    figures, _ = figures_of(monkeypatch, WEIGHTS)
    doubt = figures | {"reasons": ["A doubt."], "largest_error": 0.25}
    monkeypatch.setattr(module, "run_seed", lambda key, target: doubt)
    reproduce_sample_four_modes_256(seeds=2, seed=3, quiet=True, out=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "seeds.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [3, 4]
    printed = capsys.readouterr().out
    assert "largest error of any weight 0.2500; the bar is 0.02" in printed
    assert "seed 4: A doubt." in printed


def test_memory_is_of_a_sensible_size():
    assert 50 < peak_mebibytes() < 100_000
