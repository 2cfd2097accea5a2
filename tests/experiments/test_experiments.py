"""Experiments and benchmarks are found by the functions that files define, without an import."""

import subprocess
import sys

import pytest

from tiltflow.data.errors import InputError
from tiltflow.experiments import ALONE, HERE, bench, find_functions, reproduce


def test_a_file_more_is_an_experiment_more(tmp_path):
    (tmp_path / "zones.py").write_text(
        "import a_module_that_is_not_there\n\n"
        "def helper(): ...\n\n"
        "def reproduce_four_zones(\n    *, seeds): ...\n\n"
        "def reproduce_zones_16(*, seeds): ...\n"
    )
    (tmp_path / "notes.txt").write_text("def reproduce_nothing(): ...\n")
    assert find_functions(tmp_path, "reproduce") == {
        "four-zones": ("zones", "reproduce_four_zones"),
        "zones-16": ("zones", "reproduce_zones_16"),
    }
    assert find_functions(tmp_path, "bench") == {}


def test_the_experiments_of_the_readme_are_found():
    found = find_functions(HERE, "reproduce")
    readme = (HERE.parents[2] / "README.md").read_text(encoding="utf-8")
    named = [line.split()[2] for line in readme.splitlines() if "tiltflow reproduce " in line[:32]]
    assert named
    assert set(named) <= found.keys()


def test_what_a_run_of_all_leaves_out_is_there():
    assert set(ALONE) < find_functions(HERE, "bench").keys()


def test_a_run_of_all_benchmarks_takes_the_others(monkeypatch):
    ran = []
    monkeypatch.setattr(
        "tiltflow.experiments.import_module",
        lambda module: type(
            "Any", (), {"__getattr__": lambda _, name: lambda **_: ran.append(name)}
        )(),
    )
    bench(None, seed=0, quiet=True)
    assert ran == ["bench_adjoints", "bench_ebflow", "bench_negatives", "bench_start", "bench_step"]


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(InputError, match=r"no such experiment.*four-zones.*two-modes"):
        reproduce("no", seeds=1, seed=0, quiet=True, out=tmp_path)


def test_to_find_them_imports_nothing_heavy():
    code = (
        "import sys; from tiltflow.experiments import HERE, find_functions; "
        "find_functions(HERE, 'reproduce'); raise SystemExit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
