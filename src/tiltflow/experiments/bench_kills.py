"""Fits killed at random moments (SIGKILL), gone on with, and compared with one that was let be.

Every kill is of the process that goes on after the last one, until a fit ends before its kill
comes; then its files are compared and the next fit begins. So a kill has been survived when the fit
that it hit ends with the bits of the one that was let be.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tiltflow.data.tables import write_table
from tiltflow.training.checkpoints import read_checkpoint
from tiltflow.training.run_folder import checkpoint_files

KILLS = 30
SECONDS = 1.0
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

        survived, hit, fit = 0, 0, 0
        lost: list[int] = []
        fallen: dict[str, int] = {}
        for _ in range(kills):
            while not _run(folder, f"run{fit}", options, generator.uniform(0, 1.5 * longest)):
                survived += hit * _same(folder / "reference", folder / f"run{fit}")
                hit, fit = 0, fit + 1
            hit += 1
            stage = ["nothing", *_stages(folder / f"run{fit}")][-1]
            fallen[stage] = fallen.get(stage, 0) + 1
            lost.append(_lost_reports(folder / f"run{fit}"))
            if not quiet:
                print(f"killed in fit {fit}, after {stage}, {lost[-1]} reports lost", flush=True)
        _run(folder, f"run{fit}", options)
        survived += hit * _same(folder / "reference", folder / f"run{fit}")
    stages = ", ".join(f"{stage} {count}" for stage, count in sorted(fallen.items()))
    print(f"survived {survived} of {kills} kills, in {fit + 1} fits; last report: {stages}")
    print(f"reports of chunks lost by a kill: {np.median(lost):g} (median), {max(lost)} at most")
    return survived


def _run(folder: Path, name: str, options: str, kill_after: float | None = None) -> bool:
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
    try:
        said = process.communicate(timeout=kill_after)[1]
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


def _content(run: Path) -> tuple[bytes, list[dict]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    reports = [json.loads(line) for line in lines]
    for report in reports:
        report.pop("steps_per_second", None)
    return (run / "model.safetensors").read_bytes(), reports
