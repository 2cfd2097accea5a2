"""Room for compiled programs: they are dropped before a process has no memory maps left.

Linux lets a process have 65 530 memory maps (`vm.max_map_count`), and every compiled program keeps
some: a fit about 4500, anew for tables of another width. A process that fits one table after
another would end in the compiler, without an exception.
"""

from pathlib import Path

import jax

SHARE = 0.5
"""Of the maps that are allowed; a fit takes about a fourteenth of them."""


def make_room_for_programs(proc: Path = Path("/proc")) -> bool:
    """Drop all compiled programs where over half of the maps are taken; say whether.

    What is dropped is compiled again when it is called. Call it between fits, not in a loop.
    """
    try:
        allowed = int((proc / "sys" / "vm" / "max_map_count").read_text())
        with (proc / "self" / "maps").open("rb") as maps:
            taken = sum(1 for _ in maps)
    except (OSError, ValueError):  # not Linux
        return False
    if taken <= SHARE * allowed:
        return False
    jax.clear_caches()
    return True
