"""What is not survived is seen as what it is: crashes, hangs, memory, code that was run."""

import importlib

import pytest

from tiltflow.data.errors import InputError
from tiltflow.experiments import bench_fuzz as module
from tiltflow.experiments.bench_fuzz import Reader, bench_fuzz, try_to_read
from tiltflow.experiments.fuzz_inputs import KINDS, Kind, mangled, whole
from tiltflow.experiments.mangled_files import CANARY, pickled

ATTEMPTS = """
import ctypes, os, pickle, time
from pathlib import Path

def attempt(kind, folder):
    if not (folder / "damaged").exists():
        return "read", ""
    if kind == "crash":
        print("the last words", file=__import__("sys").stderr, flush=True)
        os.abort()
    if kind == "hang":
        time.sleep(60)
    if kind == "memory":
        try:
            bytearray(2**29)
        except MemoryError:
            return "exception", "MemoryError"
    if kind == "pickle":
        pickle.loads((folder / "damaged").read_bytes())
    return "read", ""
"""


@pytest.fixture
def reader(tmp_path, monkeypatch):
    (tmp_path / "attempts_of_a_test.py").write_text(ATTEMPTS)
    monkeypatch.syspath_prepend(tmp_path)
    attempts = importlib.import_module("attempts_of_a_test")
    with Reader(2.0, 2**28, attempts.attempt, lambda kind: {"whole": b""}) as reader:
        yield reader


def test_every_way_to_die_is_told_from_the_others(tmp_path, reader):
    """And the next input is read all the same."""
    (tmp_path / "damaged").write_bytes(pickled())
    found = {}
    for kind in ("crash", "hang", "memory", "pickle", "sound"):
        outcome = reader.read(kind, tmp_path)
        found[kind] = outcome.outcome
        if kind == "crash":
            assert "the last words" in outcome.said
    assert found == {
        "crash": "crashed",
        "hang": "hung",
        "memory": "exception",
        "pickle": "ran code",
        "sound": "read",
    }
    assert not CANARY.exists()


def test_outcomes_of_reading(tmp_path, monkeypatch):
    def refuse(folder):
        raise InputError(f"{folder}/x: is damaged")

    def refuse_without_a_name(folder):
        raise InputError("is damaged")

    def fail(folder):
        raise ZeroDivisionError("by zero")

    def panic(folder):
        raise type("PanicException", (BaseException,), {})("panicked")

    for read, outcome in (
        (refuse, "refused"),
        (refuse_without_a_name, "unnamed"),
        (fail, "exception"),
        (panic, "exception"),
        (lambda folder: None, "read"),
    ):
        monkeypatch.setitem(KINDS, "kind", Kind(dict, lambda generator, files: files, read))
        assert try_to_read("kind", tmp_path)[0] == outcome


def test_failures_are_told_and_kept(tmp_path, monkeypatch, capsys):
    def read(self, kind, folder):
        sound = (folder / "metrics.jsonl").read_bytes() == mangled("run", 3, 0)["metrics.jsonl"]
        return module.Found("read" if sound else "hung", "why", 0.5)

    monkeypatch.setattr(Reader, "read", read)
    kept = tmp_path / "fuzz"
    assert bench_fuzz(seed=3, quiet=True, inputs=2, kinds=("run",), kept=kept) == 1
    said = capsys.readouterr().out
    assert "hung: run, seed 3, number 1: why" in said
    assert "survived 1 of 2 mangled inputs, seed 3" in said
    assert [path.name for path in kept.iterdir()] == ["run-3-1"]
    for name, content in mangled("run", 3, 1).items():
        assert (kept / "run-3-1" / name).read_bytes() == content


@pytest.mark.parametrize("kind", [".csv", ".npz", ".h5", ".parquet", "run", "cells", "images"])
def test_damage_is_the_same_for_the_same_seed(kind):
    assert mangled(kind, 0, 5) == mangled(kind, 0, 5)
    made = [mangled(kind, 0, number) for number in range(30)]
    assert sum(files != whole(kind) for files in made) >= 25
    assert len({str(files) for files in made}) >= 15
