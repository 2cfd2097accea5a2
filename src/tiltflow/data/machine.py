"""The memory that this process may have: that of the machine, its control group and its limits."""

import os
from pathlib import Path
from typing import NamedTuple

from tiltflow.data.errors import InputError

try:
    import resource
except ImportError:  # Windows
    resource = None


class Machine(NamedTuple):
    """Bytes that this process may have at most, and that are free for it now."""

    total: int
    available: int


def find_machine(
    proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")
) -> Machine | None:
    """The machine's memory, or the part of it that this process's group may have."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        sizes = {name: 1024 * int(rest.split()[0]) for name, _, rest in _split(lines)}
        machine = Machine(sizes["MemTotal"], sizes["MemAvailable"])
    except (OSError, KeyError, ValueError, IndexError):
        try:
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):
            return None
        machine = Machine(total, total)
    for folder in _groups(proc, cgroups):
        for most, now in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = _number(folder / most)
            if limit is not None:
                free = limit - (_number(folder / now) or 0)
                machine = Machine(min(machine.total, limit), min(machine.available, free))
    return _within_limit(machine, proc)


def _within_limit(machine: Machine, proc: Path) -> Machine:
    """What is left of the addresses that this process may have (`ulimit -v`)."""
    if resource is None:
        return machine
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    try:
        taken = int((proc / "self" / "statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        taken = 0
    if limit == resource.RLIM_INFINITY:
        return machine
    return Machine(min(machine.total, limit), min(machine.available, limit - taken))


def check_room(size: int, source: str, what: str = "its content") -> None:
    """Raise `InputError` where `size` bytes are more than what is free: before they are taken."""
    machine = find_machine()
    if machine is not None and size > machine.available:
        raise InputError(
            f"{source}: {what} takes {size / 1e9:.1f} GB, and {machine.available / 1e9:.1f} GB of "
            "memory are free; give fewer rows, or check that the file is what it should be"
        )


def _split(lines: list[str]) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in lines if ":" in line]


def _groups(proc: Path, cgroups: Path) -> list[Path]:
    """The control groups of this process and those above them, of both versions."""
    found = [cgroups, cgroups / "memory"]
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, _, name = line.rpartition(":")
        parts = [part for part in name.split("/") if part not in ("", "..")]
        for count in range(1, len(parts) + 1):
            found += [root.joinpath(*parts[:count]) for root in (cgroups, cgroups / "memory")]
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no limit
        return None
