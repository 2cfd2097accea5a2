"""The memory that this process may have: the smallest limit counts, whoever set it."""

import resource

import numpy as np
import pytest

import tiltflow.data.machine
from tiltflow.data.errors import InputError
from tiltflow.data.machine import Machine, check_room, find_machine


def test_the_smallest_limit_counts(tmp_path):
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  600 kB\n")
    assert find_machine(proc, cgroups) == Machine(1_024_000, 614_400)
    (proc / "self" / "cgroup").write_text("0::/user/job\n")
    job = cgroups / "user" / "job"
    job.mkdir(parents=True)
    (cgroups / "user" / "memory.max").write_text("900000\n")
    (cgroups / "user" / "memory.current").write_text("500000\n")
    (job / "memory.max").write_text("max\n")
    assert find_machine(proc, cgroups) == Machine(900_000, 400_000)
    old = cgroups / "memory" / "user"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("800000\n")
    assert find_machine(proc, cgroups) == Machine(800_000, 400_000)


def test_without_proc_the_system_is_asked(tmp_path):
    machine = find_machine(tmp_path, tmp_path)
    assert machine is not None
    assert machine.total > 1e8
    assert np.isfinite(machine.available)


def test_a_limit_of_addresses_counts(monkeypatch):
    unlimited = find_machine()
    assert unlimited is not None
    taken = 10**9
    limit = (taken + 5000, resource.RLIM_INFINITY)
    monkeypatch.setattr(tiltflow.data.machine.resource, "getrlimit", lambda _: limit)
    machine = find_machine()
    assert machine is not None
    assert machine.total == min(unlimited.total, taken + 5000)
    assert machine.available < taken + 5000


def test_what_is_larger_than_what_is_free_is_refused(monkeypatch):
    monkeypatch.setattr(
        tiltflow.data.machine, "find_machine", lambda: Machine(9 * 10**9, 2 * 10**9)
    )
    check_room(2 * 10**9, "x.csv")
    with pytest.raises(InputError, match=r"x\.csv: its content takes 3\.0 GB, and 2\.0 GB"):
        check_room(3 * 10**9, "x.csv")
    monkeypatch.setattr(tiltflow.data.machine, "find_machine", lambda: None)
    check_room(10**15, "x.csv")
