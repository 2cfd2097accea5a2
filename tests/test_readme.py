"""What the README promises in numbers and names, beside the code that has to keep it.

Its blocks of Python run, and its commands parse, in `test_documentation.py`; what it says of fits,
samples and refusals is tested where that code is.
"""

import inspect
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import tiltflow
from tiltflow.cli import COMMANDS
from tiltflow.cli_options import TABLE_KINDS
from tiltflow.data.categories import LEAST_ROWS_PER_LEVEL, MOST_LEVELS
from tiltflow.data.checks import MOST_COLUMNS
from tiltflow.data.public_tables import FILES, SKLEARN
from tiltflow.data.table_kinds import EXTENSIONS
from tiltflow.evaluation.basins import find_modes
from tiltflow.experiments import HERE, find_functions
from tiltflow.fit_rows import KEPT_ROWS
from tiltflow.memory import MOST_CELLS
from tiltflow.sampling.kernels import LocalKernel

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORDS = {"three": 3, "first six": 6}


def said(pattern):
    """The one place of the README that this pattern finds: its group."""
    found = re.findall(pattern, README)
    assert len(found) == 1, pattern
    return found[0]


@pytest.mark.parametrize(
    ("pattern", "number"),
    [
        (r"Text of few levels \(at most (\d+),", MOST_LEVELS),
        (r"above (\d+) million cells", MOST_CELLS / 1e6),
        (r"holds up to (\d+) rows of the table itself", KEPT_ROWS),
        (r"more than ([\d ]+) columns", MOST_COLUMNS),
        (r"reproduce tables +# (\d+) real tables", len(FILES) + len(SKLEARN)),
        (
            r"reproduce outliers +# (\d+) labelled ones",
            sum(each.outliers is not None for each in FILES.values()),
        ),
    ],
)
def test_numbers_are_those_of_the_code(pattern, number):
    assert int(said(pattern).replace(" ", "")) == number


def test_a_level_needs_ten_rows_and_a_barrier_is_a_nat():
    assert "with ten rows each" in README and LEAST_ROWS_PER_LEVEL == 10
    assert "no barrier of a nat between them" in README
    assert inspect.signature(find_modes).parameters["barrier"].default == 1.0


def test_the_checks_that_do_not_pass_are_as_many_as_it_says():
    path = Path(__file__).with_name("test_estimator_checks.py")
    expected = re.search(r"^EXPECTED = \{\n(.*?)^\}", path.read_text(), flags=re.M | re.S)
    number = WORDS[said(r"checks of estimators but (\w+),")]
    assert expected and len(re.findall(r'^    "check_', expected[1], flags=re.M)) == number


def test_kinds_of_tables_are_those_that_are_read_and_written():
    listed = re.findall(r"`(\.[a-z0-9.]+)`", said(r"Tables go by their extension: (.*?)\. `fit"))
    assert listed == list(EXTENSIONS) == TABLE_KINDS.split()


def test_every_command_of_the_table_is_one():
    rows = re.findall(r"^\| `(\w+)` \|", README, flags=re.M)
    assert len(rows) == 6
    assert set(rows) <= COMMANDS.keys()


def test_every_argument_of_the_estimator_has_a_default_and_is_described():
    parameters = inspect.signature(tiltflow.BalancedEBM).parameters
    described = inspect.getdoc(tiltflow.BalancedEBM)
    for name, each in parameters.items():
        assert each.default is not inspect.Parameter.empty, name
        assert described and re.search(rf"^    {name}: ", described, flags=re.M), name


def test_attributes_that_it_explains_are_described():
    described = inspect.getdoc(tiltflow.BalancedEBM) or ""
    named = set(re.findall(r"`([a-z][a-z_]*_)`", README))
    assert {"log_normalizer_", "verdict_", "n_iter_", "stopped_"} <= named
    for name in named:
        assert re.search(rf"^    {name}: ", described, flags=re.M), name


def test_local_kernels_are_those_of_the_sampler():
    named = re.findall(r'"(\w+)"', said(r"local moves \(MALA; .*? takes (.*?)\), fits"))
    assert {"mala", *named} == set(get_args(LocalKernel))


def test_the_first_experiments_compare_methods_and_may_be_quick():
    named = re.findall(r"^\.venv/bin/tiltflow reproduce ([\w-]+)", README, flags=re.M)
    known = find_functions(HERE, "reproduce")
    for name in named[: WORDS[said(r"The (first \w+) train every method")]]:
        module, function = known[name]
        run = getattr(import_module(f"tiltflow.experiments.{module}"), function)
        assert {"methods", "quick"} <= inspect.signature(run).parameters.keys(), name


def test_experiments_and_benchmarks_that_it_names_are_there():
    for kind in ("reproduce", "bench"):
        named = re.findall(rf"^\.venv/bin/tiltflow {kind} ([\w-]+)", README, flags=re.M)
        assert named and set(named) <= find_functions(HERE, kind).keys()


def test_targets_of_make_are_there():
    named = set(re.findall(r"(?:^|`)make (\w+)", README, flags=re.M))
    assert {"demo", "test", "docs", "install"} <= named
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in named:
        assert re.search(rf"^{name}:", makefile, flags=re.M), name


def test_python_extras_and_licence_are_those_of_the_project():
    assert PROJECT["requires-python"] == ">=" + said(r"Python (3\.\d+) or newer")
    for extra in re.findall(r"tiltflow\[(\w+)\]", README):
        assert extra in PROJECT["optional-dependencies"]
    assert PROJECT["license"] in README
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_files_that_it_links_to_are_there():
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert len(links) > 10
    for link in links:
        assert (ROOT / link).exists(), link


def test_nothing_is_ever_unpickled():
    """No pickle is imported, but where files are damaged on purpose, and NumPy's never allowed."""
    for path in Path(tiltflow.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.stem != "mangled_files":
            assert not re.search(r"^\s*(import|from) (pickle|cloudpickle|dill|joblib)", text, re.M)
        assert "allow_pickle=True" not in text, path
    assert inspect.signature(np.load).parameters["allow_pickle"].default is False
