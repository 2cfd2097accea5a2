"""Cells of a table that are kept as soon as they are finished, so that a run can be stopped.

Every finished cell is one line of `cells.jsonl` in the experiment's folder: what it is (experiment,
case, method, setting, seed, budget), a fingerprint of everything that decides its figures, how long
it took, and the figures. A rerun skips what it finds; changed settings have another fingerprint, so
that their cells are run, and the old lines stay. Figures that are not finite are kept as "nan",
"inf" and "-inf", of which JSON has no numbers.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tiltflow.report.files import append_json_lines, json_lines, keep_lines
from tiltflow.sampling.program_room import make_room_for_programs

FILE = "cells.jsonl"
ABOUT = ("experiment", "case", "method", "setting", "seed", "budget")

Line = dict[str, Any]
"""What a cell is, "fingerprint", "cell_seconds" and its "figures"."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell to be run: `run` takes it and the lines of those before it, and returns figures.

    `settings` are all that decides the figures and is not said by the names. `guess` is how many
    seconds it takes where no cell like it is kept.
    """

    experiment: str
    case: str
    method: str
    setting: str
    seed: int
    budget: str
    settings: Any
    guess: float
    run: Callable[["Cell", Sequence[Line]], dict[str, Any]]

    @property
    def about(self) -> Line:
        """Its names and its fingerprint: what tells it from all other cells."""
        names = {name: getattr(self, name) for name in ABOUT}
        return names | {"fingerprint": fingerprint([names, self.settings])}


def run_cells(cells: Sequence[Cell], out: Path, *, quiet: bool) -> list[Line]:
    """The lines of all cells in order; those that `out` does not hold are run and kept.

    The expected time is printed first.
    """
    kept = read_cells(out)
    print(expected_time(cells, kept), flush=True)
    lines: list[Line] = []
    for cell in tqdm(cells, desc="cells", disable=quiet):
        about = cell.about
        line = find_line(kept, about)
        if line is None:
            make_room_for_programs()
            started = time.perf_counter()
            figures = cell.run(cell, lines)
            line = about | {"cell_seconds": time.perf_counter() - started, "figures": figures}
            append_json_lines(out / FILE, [_spelled(line)])
        lines.append(line)
    return lines


def read_cells(out: Path) -> list[Line]:
    """The lines that are kept; others, as one that was cut off, are removed from the file."""
    path = out / FILE
    if not path.exists():
        return []
    whole = []
    for text, line in json_lines(path.read_bytes()):
        with contextlib.suppress(RecursionError):
            if _is_cell(line):
                whole.append((text, _read(line)))
    keep_lines(path, (text for text, _ in whole))
    return [line for _, line in whole]


def _is_cell(line: Line) -> bool:
    seconds = line.get("cell_seconds")
    named = {*ABOUT, "fingerprint"} <= line.keys()
    timed = isinstance(seconds, (int, float)) and 0 <= seconds < 1e12
    return named and timed and isinstance(line.get("figures"), dict)


def find_line(lines: Iterable[Line], about: Line) -> Line | None:
    """The last line with all of these names, or None."""
    return next((line for line in reversed(list(lines)) if about.items() <= line.items()), None)


def expected_time(cells: Sequence[Cell], kept: Sequence[Line]) -> str:
    """In words: how long the cells that are not kept will take, and where that is known from."""
    missing = [cell for cell in cells if find_line(kept, cell.about) is None]
    if not missing:
        return f"{len(cells)} cells, all of them kept"
    measured = [_measured(cell, kept) for cell in missing]
    seconds = sum(cell.guess if it is None else it for cell, it in zip(missing, measured))
    guesses = measured.count(None)
    return (
        f"{len(cells)} cells, {len(cells) - len(missing)} of them kept; the other {len(missing)} "
        f"take about {_words(seconds)} (by the times of cells like them: "
        f"{len(missing) - guesses}; guessed: {guesses})"
    )


def _measured(cell: Cell, kept: Sequence[Line]) -> float | None:
    """The mean time of kept cells that differ by no more than the seed."""
    names = {name: getattr(cell, name) for name in ABOUT if name != "seed"}
    alike = [
        line["cell_seconds"]
        for line in kept
        if names.items() <= line.items()
        and line["fingerprint"] == fingerprint([names | {"seed": line["seed"]}, cell.settings])
    ]
    return sum(alike) / len(alike) if alike else None


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def fingerprint(settings: Any) -> str:
    """Sixteen hexadecimal digits of dataclasses, tuples, dictionaries, functions and numbers.

    The same in every process: functions and classes count by their names.
    """
    text = json.dumps(_described(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _described(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {it.name: getattr(value, it.name) for it in dataclasses.fields(value)}
        return [type(value).__qualname__, _described(fields)]
    if isinstance(value, dict):
        return {str(key): _described(it) for key, it in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(it) for it in value]
    if isinstance(value, partial):
        return _described([value.func, value.args, value.keywords])
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    raise TypeError(f"a {type(value).__name__} has no fingerprint")


def _spelled(value: Any) -> Any:
    """Numbers that are not finite by their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _spelled(it) for key, it in value.items()}
    return [_spelled(it) for it in value] if isinstance(value, list) else value


def _read(value: Any) -> Any:
    if value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, dict):
        return {key: _read(it) for key, it in value.items()}
    return [_read(it) for it in value] if isinstance(value, list) else value
