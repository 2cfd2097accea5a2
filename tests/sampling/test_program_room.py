"""Compiled programs are dropped before the process has no memory maps left, and not earlier."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow import BalancedEBM
from tiltflow.data.errors import InputError
from tiltflow.sampling import program_room
from tiltflow.sampling.program_room import make_room_for_programs


def _system(folder, taken, allowed):
    (folder / "sys" / "vm").mkdir(parents=True)
    (folder / "self").mkdir()
    (folder / "sys" / "vm" / "max_map_count").write_text(f"{allowed}\n")
    (folder / "self" / "maps").write_text("7f00-7f01 r-xp 00000000 00:00 0\n" * taken)
    return folder


def _counted():
    """A program, and the list that grows by one whenever it is compiled."""
    compiled = []

    def add_one(x):
        compiled.append(True)
        return x + 1

    return jax.jit(add_one), compiled


@pytest.mark.parametrize(("taken", "dropped"), [(51, True), (50, False), (0, False)])
def test_programs_are_dropped_when_over_half_of_the_maps_are_taken(tmp_path, taken, dropped):
    program, compiled = _counted()
    program(jnp.ones(3))
    assert make_room_for_programs(_system(tmp_path, taken, 100)) is dropped
    assert program(jnp.ones(3)).sum() == 6
    assert len(compiled) == (2 if dropped else 1)


def test_a_fit_makes_room_before_it_starts(monkeypatch):
    monkeypatch.setattr(program_room, "SHARE", 0.0)
    program, compiled = _counted()
    program(jnp.ones(3))
    with pytest.raises(InputError):
        BalancedEBM().fit(np.full((9, 2), np.nan))
    program(jnp.ones(3))
    assert len(compiled) == 2


@pytest.mark.parametrize("text", ["unlimited", ""])
def test_a_system_that_does_not_say_is_left_alone(tmp_path, text):
    assert make_room_for_programs(tmp_path) is False
    system = _system(tmp_path / "odd", 100, 1)
    (system / "sys" / "vm" / "max_map_count").write_text(text)
    assert make_room_for_programs(system) is False


def test_the_maps_of_this_process_are_within_what_is_allowed():
    assert make_room_for_programs() is False
