"""Cells are run once, kept at once, told apart by their settings, and read back as they were."""

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from tiltflow.experiments.cells import (
    FILE,
    Cell,
    expected_time,
    find_line,
    fingerprint,
    read_cells,
    run_cells,
)
from tiltflow.sampling import program_room

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@dataclass(frozen=True)
class Settings:
    steps: int = 100
    make: object = math.sqrt


def make_cells(ran, *, settings=Settings(), seeds=(0, 1), guess=100.0):
    def run(method, seed):
        def run(cell, lines):
            ran.append((method, seed, len(lines)))
            return {"kl": math.inf if method == "b" else 0.5, "weights": [math.nan, 1.0]}

        return run

    return [
        Cell("plane", "rings", method, "shared", seed, "steps", settings, guess, run(method, seed))
        for seed in seeds
        for method in ("a", "b")
    ]


def test_a_rerun_runs_nothing_and_gives_the_same(tmp_path, capsys):
    ran = []
    first = run_cells(make_cells(ran), tmp_path, quiet=True)
    assert ran == [("a", 0, 0), ("b", 0, 1), ("a", 1, 2), ("b", 1, 3)]
    again = run_cells(make_cells(ran), tmp_path, quiet=True)
    assert len(ran) == 4
    assert repr(again) == repr(first)
    assert again[1]["figures"]["kl"] == math.inf and math.isnan(again[0]["figures"]["weights"][0])
    assert "all of them kept" in capsys.readouterr().out
    for text in (tmp_path / FILE).read_text().splitlines():
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_every_cell_finds_room_for_its_programs(tmp_path, monkeypatch):
    monkeypatch.setattr(program_room, "SHARE", 0.0)
    compiled = []

    @jax.jit
    def add_one(x):
        compiled.append(True)
        return x + 1

    def run(cell, lines):
        return {"sum": float(add_one(jnp.ones(3)).sum())}

    cells = [replace(cell, run=run) for cell in make_cells([])]
    run_cells(cells, tmp_path, quiet=True)
    assert len(compiled) == len(cells)


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path):
    ran = []
    cells = make_cells(ran)
    stopped = [*cells[:2], replace(make_cells(ran)[2], run=lambda cell, lines: 1 / 0), cells[3]]
    with pytest.raises(ZeroDivisionError):
        run_cells(stopped, tmp_path, quiet=True)
    # A line that was being written when the machine went down.
    with (tmp_path / FILE).open("a") as file:
        file.write('{"experiment": "plane", "ca')
    run_cells(cells, tmp_path, quiet=True)
    assert [each[:2] for each in ran] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert len(read_cells(tmp_path)) == 4


def test_lines_that_are_no_cells_are_run_again(tmp_path):
    ran = []
    cells = make_cells(ran)
    run_cells(cells, tmp_path, quiet=True)
    path = tmp_path / FILE
    lines = path.read_bytes().splitlines()
    first = json.loads(lines[0])
    damages = [
        lines[0].replace(b"rings", b"r\xffngs"),
        b"[1, 2]",
        json.dumps({name: it for name, it in first.items() if name != "seed"}).encode(),
        json.dumps(first | {"cell_seconds": "1"}).encode(),
        json.dumps(first | {"cell_seconds": 10**400}).encode(),
        json.dumps(first | {"figures": None}).encode(),
        b'{"a": ' * 100_000,
        json.dumps(first | {"figures": {}})
        .encode()
        .replace(b"{}", b'{"a":' * 300 + b"1" + b"}" * 300),
    ]
    path.write_bytes(b"\n".join([*damages, *lines[1:]]))
    assert "the other 1 take" in expected_time(cells, read_cells(tmp_path))
    assert path.read_bytes().splitlines() == lines[1:]
    run_cells(cells, tmp_path, quiet=True)
    assert len(ran) == 5


def test_other_settings_are_other_cells(tmp_path):
    ran = []
    run_cells(make_cells(ran), tmp_path, quiet=True)
    run_cells(make_cells(ran, settings=Settings(steps=200)), tmp_path, quiet=True)
    assert len(ran) == 8
    assert len(read_cells(tmp_path)) == 8


def test_the_expected_time_is_measured_where_it_can_be(tmp_path):
    ran = []
    cells = make_cells(ran)
    assert "4 cells, 0 of them kept; the other 4 take about 7 min" in expected_time(cells, [])
    lines = [cell.about | {"cell_seconds": 10.0, "figures": {}} for cell in cells[:2]]
    text = expected_time(cells, lines)
    assert "the other 2 take about 20 s (by the times of cells like them: 2; guessed: 0)" in text
    other = make_cells(ran, settings=Settings(steps=200))
    assert "guessed: 4" in expected_time(other, lines)
    assert find_line(lines, {"method": "c"}) is None


def test_fingerprints_are_those_of_any_process():
    """By names, not by addresses; and a digest by hand, which another process would give too."""
    assert fingerprint(Settings()) == fingerprint(Settings()) != fingerprint(Settings(steps=1))
    assert fingerprint(Settings(make=math.exp)) != fingerprint(Settings())
    assert (
        fingerprint({"a": (1, 2.5, None)})
        == hashlib.sha256(b'{"a": [1, 2.5, null]}').hexdigest()[:16]
    )
    with pytest.raises(TypeError, match="object"):
        fingerprint(object())


def test_cells_that_are_kept_with_the_results_are_whole():
    found = list(RESULTS.glob("cells/*/" + FILE))
    assert found
    for path in found:
        for line in path.read_text(encoding="utf-8").splitlines():
            cell = json.loads(line)
            assert cell["experiment"] == path.parent.name
            assert isinstance(cell["figures"], dict) and cell["cell_seconds"] >= 0
