"""The bound on a fit's memory holds for what is compiled, and is compared with the machine."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import tiltflow.memory
from tiltflow.data.errors import InputError
from tiltflow.data.machine import Machine
from tiltflow.memory import check_memory, check_memory_of_draws, memory_bound
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.flows import trainable
from tiltflow.models.gaussian_mixture import mixture_template
from tiltflow.training.balanced import Balanced
from tiltflow.training.bases import untaught_proposal
from tiltflow.training.loop import Fixed, Schedule, initial_state, of_a_chunk, run_chunk

SIZES = {"chains": 1024, "energy_width": 128, "energy_depth": 3}


def test_the_compiled_chunk_takes_less_than_its_share():
    chains, width, depth = 4096, 64, 2
    base = mixture_template(2, 1)
    flow = untaught_proposal(jax.random.key(0), base)
    source = Balanced(chains=chains, local_steps=1)
    energy = MLPEnergy(1, width=width, depth=depth, key=jax.random.key(1))
    parameters, static = eqx.partition(energy, eqx.is_inexact_array)
    state = initial_state(parameters, source.init(jax.random.key(2), base, flow), Schedule())
    fixed = Fixed(
        source, base, static, trainable(flow)[1], of_a_chunk(Schedule()), jnp.zeros((9, 1))
    )
    rates = jnp.ones(Schedule().chunk)
    compiled = run_chunk.lower((fixed, rates, rates, jax.random.key(3)), state).compile()
    taken = compiled.compiled.memory_analysis().temp_size_in_bytes
    share = memory_bound(9, 1, chains=chains, energy_width=width, energy_depth=depth)["chains"]
    assert share / 30 < taken < share


def test_what_is_raised_is_what_the_bound_says():
    small = memory_bound(1000, 4, **SIZES)
    for name, more in (
        ("rows", memory_bound(100_000, 4, **SIZES)),
        ("chains", memory_bound(1000, 4, **SIZES | {"chains": 100_000})),
        ("energy_width", memory_bound(1000, 4, **SIZES | {"energy_width": 4096})),
    ):
        assert max(more, key=lambda part: more[part] - small[part]) in (name, "chains")
        assert more[name] > 20 * small[name]


def test_too_much_is_refused_and_what_is_not_free_now_warned_of(monkeypatch):
    for machine in (None, Machine(16e9, 15e9)):
        monkeypatch.setattr(tiltflow.memory, "find_machine", lambda machine=machine: machine)
        check_memory(10_000, 8, **SIZES)
    with pytest.raises(
        InputError, match=r"fit \(rows .*\) may take up to .* GB, the machine has 16.0 GB; lower ch"
    ):
        check_memory(10_000, 8, **SIZES | {"chains": 1_000_000})
    with pytest.raises(InputError, match="lower rows, which is 20000000"):
        check_memory(20_000_000, 8, **SIZES)
    with pytest.raises(InputError, match="lower energy_width, which is 16384"):
        check_memory(10_000, 8, **SIZES | {"energy_width": 16_384, "chains": 2})
    monkeypatch.setattr(tiltflow.memory, "find_machine", lambda: Machine(16e9, 1e9))
    with pytest.warns(RuntimeWarning, match=r"1.0 GB are free; if it is killed, lower"):
        check_memory(10_000, 8, **SIZES)


def test_draws_that_the_machine_cannot_hold_are_refused(monkeypatch):
    monkeypatch.setattr(
        tiltflow.memory, "find_machine", lambda: Machine(16_000_000_000, 12_800_000_000)
    )
    check_memory_of_draws(10_000_000, 20)
    with pytest.warns(
        RuntimeWarning, match=r"12.8 GB are free; .* at most 20000000.* another seed"
    ):
        check_memory_of_draws(20_000_001, 10)
    with pytest.raises(InputError, match=r"1000000000 draws may take up to 640.0 GB, the machine"):
        check_memory_of_draws(1_000_000_000, 10)
