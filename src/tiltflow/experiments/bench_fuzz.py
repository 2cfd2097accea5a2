"""Damaged files given to every reader: each must be read, or refused in one line that names it.

Reading is done by a process of its own, with a limit on time and on what memory it may take more
than it has; it is started again where it dies. Inputs are those of `fuzz_inputs.py`, the same for
the same seed. An input that is not survived is kept in `fuzz/`, and its kind, seed and number are
printed: `mangled(kind, seed, number)` makes its files again.
"""

import contextlib
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from tiltflow.data.errors import InputError
from tiltflow.experiments.fuzz_inputs import KINDS, mangled, put, whole
from tiltflow.experiments.mangled_files import CANARY, Files
from tiltflow.report.table import format_table

INPUTS = 10_000
SECONDS = 30.0
"""Reading a damaged file takes milliseconds; on a busy machine a second."""
MEMORY = 2**29
"""Bytes of addresses that one reading may take: what a bomb must not exceed."""
KEPT = Path("fuzz")
OUTCOMES = ("read", "refused", "unnamed", "exception", "crashed", "hung", "ran code")
SURVIVED = ("read", "refused")
Attempt = Callable[[str, Path], tuple[str, str]]


class Found(NamedTuple):
    """What became of one input, one of `OUTCOMES`, what was said, and the seconds it took."""

    outcome: str
    said: str
    seconds: float


def bench_fuzz(
    *,
    seed: int,
    quiet: bool,
    inputs: int = INPUTS,
    kinds: tuple[str, ...] = tuple(KINDS),
    kept: Path = KEPT,
) -> int:
    """Print what became of `inputs` damaged inputs, and return how many were survived."""
    counts = {kind: Counter() for kind in kinds}
    slowest = dict.fromkeys(kinds, 0.0)
    numbers = [(kind, i) for i in range(-(-inputs // len(kinds))) for kind in kinds][:inputs]
    numbers.sort(key=lambda each: kinds.index(each[0]))
    with Reader() as reader, tempfile.TemporaryDirectory() as name:
        for kind, number in tqdm(numbers, desc="inputs", disable=quiet):
            folder = Path(name) / f"{kind}-{number}"
            put(folder, mangled(kind, seed, number))
            found = reader.read(kind, folder)
            counts[kind][found.outcome] += 1
            slowest[kind] = max(slowest[kind], found.seconds)
            if found.outcome not in SURVIVED:
                place = kept / f"{kind}-{seed}-{number}"
                # Read again later, from a copy: what was given may have been changed by reading.
                shutil.rmtree(place, ignore_errors=True)
                put(place, mangled(kind, seed, number))
                tqdm.write(f"{found.outcome}: {kind}, seed {seed}, number {number}: {found.said}")
            shutil.rmtree(folder)
    total = sum(counts.values(), Counter())
    rows = [(kind, count, slowest[kind]) for kind, count in counts.items()]
    table = [
        [kind, str(sum(count.values())), *(str(count[it]) for it in OUTCOMES), f"{seconds:.1f}"]
        for kind, count, seconds in (*rows, ("all", total, max(slowest.values())))
    ]
    survived = sum(total[each] for each in SURVIVED)
    print(format_table(["kind", "inputs", *OUTCOMES, "slowest, s"], table))
    print(f"survived {survived} of {len(numbers)} mangled inputs, seed {seed}")
    return survived


class Reader:
    """A process that reads inputs, started where there is none; to be closed, by `with`.

    Args:
        seconds: for one reading, after which the process is killed.
        memory: bytes of addresses that one reading may take.
        attempt: what reads, given kind and folder; `try_to_read` if None.
        whole_of: makes a whole input of a kind.
    """

    def __init__(
        self,
        seconds: float = SECONDS,
        memory: int = MEMORY,
        attempt: Attempt | None = None,
        whole_of: Callable[[str], Files] = whole,
    ):
        self.seconds, self.memory = seconds, memory
        self.attempt, self.whole_of = attempt or try_to_read, whole_of
        self._process: Any = None
        self._pipe: Any = None
        self._whole = tempfile.TemporaryDirectory()
        self._errors = Path(self._whole.name) / "stderr"
        self._warm: set[str] = set()

    def read(self, kind: str, folder: Path) -> Found:
        """Read one input, after a whole one of its kind, without limits, if that is the first."""
        self._start()
        if kind not in self._warm:
            place = Path(self._whole.name) / kind
            if not place.exists():
                put(place, self.whole_of(kind))
            found = self._ask(kind, place, 600.0, None)
            if found.outcome != "read":
                raise RuntimeError(f"a whole {kind} was not read: {found}")
            self._warm.add(kind)
        shutil.rmtree(CANARY, ignore_errors=True)
        found = self._ask(kind, folder, self.seconds, self.memory)
        if CANARY.exists():
            shutil.rmtree(CANARY)
            return found._replace(outcome="ran code")
        return found

    def _ask(self, kind: str, folder: Path, seconds: float, memory: int | None) -> Found:
        self._errors.write_bytes(b"")
        started = time.perf_counter()
        self._pipe.send((kind, str(folder), memory))
        answered = self._pipe.poll(seconds)
        taken = time.perf_counter() - started
        if answered:
            with contextlib.suppress(EOFError, ConnectionResetError):
                outcome, said = self._pipe.recv()
                return Found(outcome, said, taken)
        self._stop()
        said = " ".join(self._errors.read_text(errors="replace").split())[-500:]
        return Found("crashed" if answered else "hung", said, taken)

    def _start(self) -> None:
        if self._process is not None:
            return
        # Not forked: a process that has threads of Polars or JAX may not be.
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        arguments = (other, str(self._errors), self.attempt)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        other.close()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process, self._warm = None, set()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop()
        self._whole.cleanup()


def _serve(pipe: Connection, errors: str, attempt: Attempt) -> None:
    """Answer with the outcome of every input that is asked for."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            kind, folder, memory = pipe.recv()
        except EOFError:
            return
        _limit_memory(memory)
        answer = attempt(kind, Path(folder))
        _limit_memory(None)
        pipe.send(answer)


def try_to_read(kind: str, folder: Path) -> tuple[str, str]:
    """The outcome of reading an input in this process, and what was said."""
    try:
        KINDS[kind].read(folder)
    except InputError as error:
        # A line of an error names the file it is of.
        named = str(folder) in str(error) and "\n" not in str(error)
        return ("refused" if named else "unnamed"), str(error)[:500]
    except BaseException as error:  # a panic of Polars is no Exception
        return "exception", f"{type(error).__name__}: {error}"[:500]
    return "read", ""


def _limit_memory(more: int | None) -> None:
    """Let this process take so many bytes of addresses more than it has, or as many as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = most
    if more is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
