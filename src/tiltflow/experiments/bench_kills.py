"""Fits killed at random moments (SIGKILL), gone on with, and compared with one that was let be.

Every kill is of the process that goes on after the last one, until a fit ends before its kill
comes; then its files are compared and the next fit begins. So a kill has been survived when the fit
that it hit ends with the bits of the one that was let be.

The start of a process, the verdict and the report take longer than the training of so small a fit.
So every other kill waits for a report of the energy's training, which one is drawn, and comes at a
random moment of the chunk of steps after it; the others come at a random moment of the process.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tiltflow.data.table_writing import write_table
from tiltflow.report.table import format_table
from tiltflow.training.checkpoints import read_checkpoint
from tiltflow.training.run_folder import checkpoint_files, is_finished

KILLS = 30
SECONDS = 1.0
CHUNK_SECONDS = 0.2
"""A chunk of steps of the fit takes about so long."""
OPTIONS = (
    "--base=gaussian --preprocessing=standardise --chains=64 --energy-width=8 "
    f"--energy-depth=1 --local-steps=2 --checkpoint-seconds={SECONDS} --quiet"
)
COMMAND = (sys.executable, "-c", "import sys; from tiltflow.cli import main; sys.exit(main())")
ENVIRONMENT = {
    # Compiled programs are kept from process to process, so that more kills fall on training.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
}


def bench_kills(*, seed: int, quiet: bool, kills: int = KILLS, options: str = OPTIONS) -> int:
    """Print how many of `kills` kills were survived, and return it."""
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = generator.normal(np.where(generator.random(1200) < 0.25, 8.0, 0.0))
        write_table(folder / "table.csv", {"a": rows})
        _run(folder, "reference", options)
        started = time.perf_counter()
        _run(folder, "timed", options)
        longest = time.perf_counter() - started
        print(f"one fit takes {longest:.1f} s, a checkpoint is due every {SECONDS} s", flush=True)
        of_energy = _stages(folder / "reference").count("energy")

        survived, hit, fit = 0, 0, 0
        lost: list[int] = []
        fallen: dict[str, int] = {}
        for number in range(kills):
            while True:
                run = folder / f"run{fit}"
                before = _stages(run)
                when = _when(generator, number, longest, before.count("energy"), of_energy)
                if _run(folder, run.name, options, when):
                    break
                survived += hit * _same(folder / "reference", run)
                hit, fit = 0, fit + 1
            hit += 1
            place = _place(before, _stages(run))
            fallen[place] = fallen.get(place, 0) + 1
            lost.append(_lost_reports(run))
            if not quiet:
                print(f"killed in fit {fit}, {place}, {lost[-1]} reports lost", flush=True)
        _run(folder, f"run{fit}", options)
        survived += hit * _same(folder / "reference", folder / f"run{fit}")
    print(f"survived {survived} of {kills} kills, in {fit + 1} fits")
    print(format_table(["killed", "times"], [[it, str(n)] for it, n in sorted(fallen.items())]))
    print(f"reports of chunks lost by a kill: {np.median(lost):g} (median), {max(lost)} at most")
    return survived


class When(NamedTuple):
    """A kill so many seconds after so many reports of the energy are written."""

    seconds: float
    reports: int = 0


def _when(
    generator: np.random.Generator, number: int, longest: float, written: int, of_energy: int
) -> When | None:
    """The moment of a kill; None where the fit that it shall hit is beyond the energy."""
    if number % 2 == 0:
        return When(generator.uniform(0, 1.5 * longest))
    if written >= of_energy:
        return None
    report = int(generator.integers(written, of_energy)) + 1
    return When(generator.uniform(0, CHUNK_SECONDS), report)


def _place(before: list[str], after: list[str]) -> str:
    """Where a process was killed, by the reports before it began and those after its end."""
    if len(after) > len(before):
        return f"in the process that reported {after[-1]}"
    return f"before it went on after {after[-1] if after else 'nothing'}"


def _run(folder: Path, name: str, options: str, when: When | None = None) -> bool:
    """Begin or go on with a fit; whether it was killed."""
    arguments = ["fit", str(folder / "table.csv"), "--out", str(folder / name), "--resume"]
    environment = os.environ | ENVIRONMENT | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    process = subprocess.Popen(
        [*COMMAND, *arguments, *options.split()],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while when and process.poll() is None:
        if _stages(folder / name).count("energy") >= when.reports:
            break
        time.sleep(0.002)
    try:
        said = process.communicate(timeout=when.seconds if when else None)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        said = process.communicate()[1]
        if said:
            print(said, end="", flush=True)
        return True
    # 1 is the verdict's: a fit that is not to be trusted is a fit all the same.
    if process.returncode not in (0, 1):
        raise RuntimeError(f"the fit ended with {process.returncode}: {said}")
    if said:
        print(said, end="", flush=True)
    return False


def _stages(run: Path) -> list[str]:
    """The stages of all reports that are written; the last line may be half a line."""
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    stages = (line.partition('"stage": "')[2].partition('"')[0] for line in lines)
    return [stage for stage in stages if stage]


def _lost_reports(run: Path) -> int:
    """How many reports of chunks were written that the newest checkpoint does not know of."""
    if is_finished(run):
        return 0
    files = checkpoint_files(run)
    stages = read_checkpoint(files[-1])[1] if files else {}
    known = 0
    for record, _ in stages.values():
        known += len(record["reports"] if "reports" in record else record.get("at", [[]])[-1])
    written = [stage for stage in _stages(run) if stage not in ("settle", "polish")]
    return max(0, len(written) - known)


def _same(reference: Path, run: Path) -> bool:
    """Whether models and metrics are the same to the bit, but for the speed."""
    return _content(reference) == _content(run)


def _content(run: Path) -> tuple[bytes, list[dict[str, Any]]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    reports = [json.loads(line) for line in lines]
    for report in reports:
        report.pop("steps_per_second", None)
    return (run / "model.safetensors").read_bytes(), reports
