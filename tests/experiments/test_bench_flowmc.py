"""The comparison with flowMC: its targets, its judgement, and how it calls both samplers."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.evaluation.mode_weights import ModeWeights
from tiltflow.experiments.bench_flowmc import (
    CASES,
    Budget,
    DualMoon,
    Run,
    bench_flowmc,
    initial_positions,
    judge,
    run_flowmc,
)


@pytest.mark.parametrize("name", CASES)
def test_chains_start_evenly_in_all_modes_and_the_density_is_finite_there(name, key):
    case = CASES[name]()
    positions = initial_positions(key, case, 20)
    density, labels = jax.jit(jax.vmap(lambda x: (case.log_density(x), case.label(x))))(positions)
    assert np.isfinite(density).all()
    counts = np.bincount(np.asarray(labels), minlength=len(case.weights))
    assert abs(case.weights.sum() - 1) < 1e-6
    if name == "dual moon, d = 5":  # all start around the origin, as in flowMC's tutorial
        assert counts.min() >= 1
    else:
        np.testing.assert_allclose(counts, 20 / len(counts), atol=3)


def test_moons_are_mirror_images_on_a_shell(key):
    """So each of the four weighs exactly 1/4; the value at one point is worked out by hand."""
    moon = DualMoon()
    x = jax.random.normal(key, (50, 5))
    density, labels = jax.vmap(moon.log_density), jax.vmap(moon.label)
    for signs in ((-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)):
        mirrored = x * jnp.array([*signs, 1.0, 1.0, 1.0])
        np.testing.assert_allclose(density(mirrored), density(x), rtol=1e-5)
        assert np.all(labels(mirrored) != labels(x))
    at = moon.log_density(jnp.array([0.0, 1.9, 0.0, 0.0, 0.0]))
    one = np.log(2) - 3**2 / 0.8**2 / 2
    two = np.logaddexp(-((4.9 / 0.6) ** 2) / 2, -((1.1 / 0.6) ** 2) / 2)
    np.testing.assert_allclose(at, -0.5 + one + two, rtol=1e-5)


def independent_run(key, case, weights=None):
    """2000 independent draws along each of 8 chains, of a mixture with separate modes."""
    mode = jax.random.choice(key, len(case.weights), (2000, 8), p=jnp.asarray(case.weights))
    noise = jax.random.normal(jax.random.fold_in(key, 1), (*mode.shape, case.centers.shape[1]))
    draws = jnp.asarray(case.centers, float)[mode] + case.spread * noise
    return Run(np.asarray(draws), 2.0, 1.0, weights)


def test_independent_draws_are_worth_what_they_are(key):
    case = CASES["two modes, d = 2"]()
    figures = judge(independent_run(key, case), case)
    assert figures[:2] == (2.0, 1.0)
    assert 14_000 < figures.ess_coordinate <= 16_000
    assert 14_000 < figures.ess_mode <= 16_000
    assert figures.weight_error < 4 * np.sqrt(2 / 9 / 16_000)


def test_a_samplers_own_weights_count_where_it_has_them(key):
    case = CASES["two modes, d = 2"]()

    def mode_weights(label_fn):
        labels = label_fn(np.asarray(case.centers, np.float32))
        return ModeWeights(labels, None, np.array([0.5, 0.5]), np.zeros((2, 2)))

    assert abs(judge(independent_run(key, case, mode_weights), case).weight_error - 1 / 6) < 1e-6


@pytest.mark.parametrize("modes", [[0] * 8, [0, 1] * 4], ids=["one mode missed", "no jumps"])
def test_chains_that_never_jump_know_nothing_of_the_weights(key, modes):
    case = CASES["two modes, d = 2"]()
    noise = case.spread * jax.random.normal(key, (2000, 8, 2))
    draws = np.asarray(jnp.asarray(case.centers, float)[jnp.array(modes)] + noise)
    figures = judge(Run(draws, 2.0, 1.0), case)
    assert figures.ess_mode < 1
    assert figures.weight_error > 1 / 7


@pytest.mark.skipif(importlib.util.find_spec("flowMC") is not None, reason="flowMC is installed")
def test_without_flowmc_the_way_to_install_it_is_named(key):
    case = CASES["two modes, d = 2"]()
    with pytest.raises(InputError, match=r"pip install flowMC==0\.6\.4"):
        bench_flowmc(seed=0, quiet=True)
    with pytest.raises(InputError, match="flowMC: not installed"):
        run_flowmc(key, case.log_density, initial_positions(key, case, 4), Budget())


def test_flowmc_is_called_with_the_budget_and_its_chains_become_the_second_axis(key, monkeypatch):
    """A stand-in returns the starts, shifted by 100 at each step."""
    calls = []

    def bundle(key, chains, dimension, log_density, *lengths, batch_size):
        calls.append((chains, dimension, *lengths, batch_size))
        assert log_density(jnp.zeros(dimension), {}).shape == ()
        return lengths

    class Sampler:
        def __init__(self, *, resource_strategy_bundles, **_):
            local, total, _, loops, _ = resource_strategy_bundles
            self.steps = (local + total) * loops

        def sample(self, initial_positions, data):
            steps = 100.0 * jnp.arange(self.steps)[None, :, None]
            draws = initial_positions[:, None, :] + steps
            self.resources = {"positions_production": SimpleNamespace(data=draws)}

    names = ("flowMC", "flowMC.Sampler", "flowMC.resource_strategy_bundle.RQSpline_MALA")
    for name in names:
        module = ModuleType(name)
        module.__spec__ = importlib.util.spec_from_loader(name, loader=None)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys.modules[names[1]], "Sampler", Sampler, raising=False)
    monkeypatch.setattr(sys.modules[names[2]], "RQSpline_MALA_Bundle", bundle, raising=False)
    parent = ModuleType("flowMC.resource_strategy_bundle")
    monkeypatch.setitem(sys.modules, parent.__name__, parent)

    case = CASES["four modes, d = 16"]()
    positions = initial_positions(key, case, 6)
    run = run_flowmc(key, case.log_density, positions, Budget(production_loops=2))
    assert calls == [(6, 16, 10, 10, 20, 2, 10, 2000)] * 2
    assert run.draws.shape == (40, 6, 16)
    np.testing.assert_allclose(run.draws[3], positions + 300.0)
    assert run.seconds_first >= 0 and run.seconds_warm >= 0
