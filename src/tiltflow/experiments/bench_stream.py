"""A table of 10 million rows, made on the spot, fitted and scored in 4 GiB of memory.

Nine columns of bent modes and one of text whose levels follow the modes, so that the true density
of every row is known. The table is written, fitted and scored by the shell commands, each in a
process of its own, whose peak of resident memory the system reports.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from tiltflow.data.errors import InputError
from tiltflow.report.table import format_table

ROWS = 10_000_000
TEST_ROWS = 100_000
BATCH = 100_000
LIMIT = 4.0
"""GiB of resident memory."""
OPTIONS = "--preprocessing=standardise --base=mixture --checkpoint-seconds=60 --quiet"

WIDTH, HALF = 9, 4
WEIGHTS = np.array([0.5, 0.3, 0.2])
CENTRES = np.array([-3.0, 0.0, 4.0])
LEVELS = np.array(["low", "middle", "high"])
OF_MODE = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
"""The probability of every level in every mode."""


def bench_stream(
    *,
    seed: int,
    quiet: bool,
    rows: int | None = None,
    options: str = OPTIONS,
    most_cells: int | None = None,
) -> float:
    """Print peaks of memory, seconds and log-likelihoods; return the fit's peak in GiB.

    `most_cells` lowers the size from which on tables are streamed, for small trials.
    """
    rows = ROWS if rows is None else rows
    if rows < 1000:
        raise InputError(f"--rows: {rows} is too few; ask for 1000 or more")
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        started = time.perf_counter()
        write_rows(folder / "table.parquet", rows, seed)
        write_rows(folder / "test.parquet", TEST_ROWS, seed + 1)
        seconds = time.perf_counter() - started
        size = (folder / "table.parquet").stat().st_size / 2**30
        print(f"{rows} rows x {WIDTH + 1} columns, {size:.2f} GiB of Parquet: {seconds:.0f} s")

        fit = ["fit", str(folder / "table.parquet"), "--out", str(folder / "run")]
        peak, parts = _watched([*fit, *options.split()], folder / "run", most_cells, quiet)
        print(f"fit: peak of resident memory {peak:.2f} GiB, of {LIMIT:.0f} GiB allowed")
        print(format_table(["part of the fit", "seconds"], [[k, f"{v:.0f}"] for k, v in parts]))

        score = ["score", str(folder / "run"), "--out", str(folder / "scores.npy"), "--quiet"]
        again, _ = _watched([*score, str(folder / "test.parquet")], folder / "run", None, quiet)
        scores = np.load(folder / "scores.npy")[:, 0]
        truth = np.concatenate([log_density(*each) for each in draw_rows(TEST_ROWS, seed + 1)])
        config = json.loads((folder / "run" / "config.json").read_text())
        print(f"score: peak of resident memory {again:.2f} GiB")
    print(f"base: {config['base']}; steps of the energy kept: {config['best_step']}")
    print(
        f"held-out log-likelihood: {config['held_out_log_likelihood']:.4f} "
        f"± {config['held_out_log_likelihood_stderr']:.4f} nats per row"
    )
    print(f"on {TEST_ROWS} rows of their own: {scores.mean():.4f}, the truth {truth.mean():.4f}")
    loss = truth - scores
    print(f"lost against the truth: {loss.mean():.4f} ± {loss.std() / len(loss) ** 0.5:.4f} nats")
    print(f"verdict: {config['verdict']['status']}")
    return peak


def write_rows(path: Path, rows: int, seed: int) -> None:
    """Write so many rows as Parquet, never more than one batch of them in memory."""

    def batches(*_: object) -> Iterator[pl.DataFrame]:
        for x, mode_level in draw_rows(rows, seed):
            columns = {f"x{j}": x[:, j] for j in range(WIDTH)}
            yield pl.DataFrame({**columns, "level": LEVELS[mode_level]})

    schema = {**{f"x{j}": pl.Float64 for j in range(WIDTH)}, "level": pl.String}
    register_io_source(batches, schema=schema).sink_parquet(path)


def draw_rows(rows: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of x (n, 9) and of the places of levels (n,)."""
    generator = np.random.default_rng(seed)
    for first in range(0, rows, BATCH):
        n = min(BATCH, rows - first)
        mode = generator.choice(len(WEIGHTS), n, p=WEIGHTS)
        z = generator.normal(size=(n, WIDTH))
        z[:, HALF : 2 * HALF] += _bend(z)
        edges = np.cumsum(OF_MODE, axis=1)[mode]
        level = (generator.random((n, 1)) > edges[:, :-1]).sum(axis=1)
        yield z + CENTRES[mode, None], level


def log_density(x: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Of rows under the truth, nats."""
    joint = []
    for k, centre in enumerate(CENTRES):
        z = x - centre
        z[:, HALF : 2 * HALF] -= _bend(z)
        normal = -0.5 * (z**2).sum(axis=1) - 0.5 * WIDTH * np.log(2 * np.pi)
        joint.append(np.log(WEIGHTS[k] * OF_MODE[k, level]) + normal)
    return np.logaddexp.reduce(joint)


def _bend(z: np.ndarray) -> np.ndarray:
    """What the first coordinates add to the later ones, of volume 1."""
    return 0.5 * (z[:, :HALF] ** 2 - 1)


def _watched(
    arguments: list[str], run: Path, most_cells: int | None, quiet: bool
) -> tuple[float, list[tuple[str, float]]]:
    """Run the command; its peak of resident memory, GiB, and the seconds of each of its parts."""
    bound = f"tiltflow.memory.MOST_CELLS = {most_cells}; " if most_cells else ""
    code = f"import sys, tiltflow.memory; {bound}from tiltflow.cli import main; sys.exit(main())"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
    started = time.perf_counter()
    parts: dict[str, float] = {}
    while True:
        time.sleep(0.5)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        now = time.perf_counter()
        stage = _stage(run)
        if stage not in parts and not quiet:
            print(f"{now - started:.0f} s: {stage}", file=sys.stderr, flush=True)
        parts[stage] = parts.get(stage, 0.0) + now - started - sum(parts.values())
        if ended:
            break
    process.returncode = os.waitstatus_to_exitcode(status)
    # 1 is the verdict's: a fit that is not to be trusted is a fit all the same.
    if process.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(arguments[:2])} ended with {process.returncode}")
    return usage.ru_maxrss / 2**20, list(parts.items())


def _stage(run: Path) -> str:
    """What the fit into `run` is at, as far as its folder tells."""
    if not run.exists():
        return "all rows looked at"
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    stages = [line.partition('"stage": "')[2].partition('"')[0] for line in lines]
    last = next((stage for stage in reversed(stages) if stage), None)
    return last or "rows to the disk, preprocessing, mixture"
