"""How long one waits before anything is done: imports, and the shell's help.

Each is a process of its own, with compiled modules on the disk: the median of some, less that of a
bare interpreter in the second column.
"""

import statistics
import subprocess
import sys
import time

from tiltflow.report.table import format_table

SHELL = "import sys; from tiltflow.cli import main; sys.exit(main({}))"
STARTS = {
    "python": "pass",
    "import tiltflow": "import tiltflow",
    "from tiltflow import BalancedEBM": "from tiltflow import BalancedEBM",
    "tiltflow --help": SHELL.format(["--help"]),
    "tiltflow fit --help": SHELL.format(["fit", "--help"]),
}
BARS = {"import tiltflow": 1.5, "tiltflow --help": 0.5}
"""Seconds."""


def bench_start(*, seed: int, quiet: bool, turns: int = 7) -> dict[str, float]:
    """Print the table, and return the median seconds of every start. `seed` changes nothing."""
    seconds: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(turns + 1):
        for name, code in STARTS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - started)
    # The first turn writes and reads what later ones find.
    medians = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    rows = [
        [
            name,
            f"{median:.3f}",
            f"{median - medians['python']:.3f}",
            f"{max(seconds[name][1:]):.3f}",
            f"{BARS[name]:.1f}" if name in BARS else "",
        ]
        for name, median in medians.items()
    ]
    print(f"median of {turns} processes")
    print(format_table(["start", "seconds", "less python's", "longest", "bar"], rows))
    return medians
