"""Log-odds by phases: right on a single site, wrong for mutants, finite outside a phase."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.lattice import PhiFourChain
from tiltflow.experiments import phi_four as module
from tiltflow.experiments.phi_four import (
    FIELDS,
    PHASES,
    PhaseDensity,
    log_odds,
    phase_starts,
    reproduce_phi_four,
    run_field,
)
from tiltflow.training.adaptive_sweeps import WarmUpSettings

SETTINGS = WarmUpSettings(
    exploration_chunks=1, mixture_chunks=1, flow_chunks=1, flow_steps=0, chunk=20, reservoir=4096
)


@pytest.fixture(scope="module")
def figures():
    """One site, whose phases reach the hard edge between them; its flow is cheap to compile."""
    chain = PhiFourChain(0.1, 1, 0.1, inverse_temperature=1.0)
    with pytest.MonkeyPatch.context() as patch:
        # Newton's method is for bands, of which one site has none.
        patch.setattr(module, "minima", lambda chain: np.array([[-1.0], [1.0]]))
        return run_field(jax.random.key(0), chain, chains=64, samples=2048, settings=SETTINGS)


def test_log_odds_are_right_within_their_error(figures):
    assert figures["exact"] > 1
    assert 0 < figures["stderr"] < 0.05
    assert abs(figures["error"]) < 4.5 * figures["stderr"]


@pytest.mark.parametrize(
    "mutant",
    [
        lambda negative, positive: log_odds(positive, negative),
        lambda negative, positive: log_odds(negative, negative),
        lambda negative, positive: (log_odds(negative, positive)[0] / 2, 0.0),
    ],
    ids=["phases exchanged", "one phase twice", "half the odds"],
)
def test_wrong_odds_are_caught(figures, mutant):
    estimate, _ = mutant(*(figures[name] for name in PHASES))
    assert abs(estimate - figures["exact"]) > 10 * figures["stderr"]


def test_errors_add_up_in_quadrature():
    negative, positive = {"log_z": 3.0, "log_z_stderr": 0.3}, {"log_z": 1.0, "log_z_stderr": 0.4}
    assert log_odds(negative, positive) == pytest.approx((2.0, 0.5))


@pytest.mark.parametrize("phase", [0, 1])
def test_a_phase_is_the_density_inside_and_nothing_outside(phase):
    chain = PhiFourChain(0.05)
    density = PhaseDensity(chain, phase)
    inside = phase_starts(jax.random.key(0), chain, phase, 16)
    wall = jnp.where(jnp.arange(100) < 50, 1.0, -1.0)
    # So far away that the square of the square is not a float.
    outside = jnp.stack([-inside[0], wall, -inside[0] * 1e30, wall * 1e30])
    both = jax.vmap(jax.value_and_grad(density))
    value, gradient = both(inside)
    expected = jax.vmap(jax.value_and_grad(chain.log_density))(inside)
    np.testing.assert_array_equal(value, expected[0])
    np.testing.assert_array_equal(gradient, expected[1])
    value, gradient = both(outside)
    assert (np.asarray(value) == -np.inf).all()
    assert not np.asarray(gradient).any()


def test_fields_and_phases_are_one_to_the_compiler():
    structures = {
        jax.tree.structure(PhaseDensity(PhiFourChain(field), phase))
        for field in FIELDS
        for phase in (0, 1)
    }
    assert len(structures) == 1


def test_the_experiment_keeps_every_field_and_prints_its_doubts(tmp_path, monkeypatch, capsys):
    keys = []

    def run_field(key, chain):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        run = {"log_z": 0.0, "log_z_stderr": 0.1, "verdict": "trusted", "reasons": []}
        doubt = run | {"verdict": "doubtful", "reasons": ["A doubt."]}
        about = {"exact": 1.0, "estimate": 1.25, "stderr": 0.1, "error": 0.25, "seconds": 2.0}
        return {"field": float(chain.field), "negative": run, "positive": doubt} | about

    monkeypatch.setattr(module, "run_field", run_field)
    reproduce_phi_four(seeds=2, seed=3, quiet=True, out=tmp_path)
    assert len(set(keys)) == 2 * len(FIELDS)
    lines = [json.loads(line) for line in (tmp_path / "fields.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [3] * 5 + [4] * 5
    printed = capsys.readouterr().out
    assert "largest error 0.2500 nats; the bar is 0.1" in printed
    assert "seed 4, field 0.100, positive phase: A doubt." in printed
