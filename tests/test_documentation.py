"""Every Python block of the README, the site and its notebooks runs, and every command parses.

The blocks of a page run in order, in one namespace and one folder, with warnings as errors. Pages
may load the model that start.md saves. A block whose fence says "not run here" must need a package
that the development environment lacks; it is only compiled. (`make docs` runs the notebooks once
more, in kernels, for their outputs.)
"""

import ast
import json
import math
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import pytest
import tyro

from tiltflow.cli import COMMANDS
from tiltflow.evaluation.verdict import CRITERIA
from tiltflow.experiments import HERE, find_functions

matplotlib.use("agg")

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
START = "docs/start.md"
NOT_RUN = "not run here"


class Block(NamedTuple):
    """One block of code: what its fence says, the line that it starts at, and the code."""

    fence: str
    line: int
    code: str


def blocks_of(path: Path) -> list[Block]:
    """All fenced blocks, with what stands behind the language; the code cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        return [Block("python", 0, "".join(cell["source"])) for cell in cells]
    found = re.finditer(r"^```(\S.*)\n([\s\S]*?)^```$", text, flags=re.M)
    return [Block(it[1], text[: it.start(2)].count("\n"), it[2]) for it in found]


def python_of(path: Path) -> list[Block]:
    """The Python blocks."""
    return [block for block in blocks_of(path) if block.fence.split()[0] == "python"]


def is_run(block: Block) -> bool:
    """Whether it is to run."""
    return NOT_RUN not in block.fence


def compiled(page: str, block: Block):
    """The code, with the page's name and lines for whoever reads a traceback."""
    return compile("\n" * block.line + block.code, page, "exec")


PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted(DOCS.rglob("*.ipynb"))]
}
WITH_PYTHON = [page for page, path in PAGES.items() if any(map(is_run, python_of(path)))]


def run(page: str) -> None:
    """All blocks of a page, where one is."""
    namespace = {"__name__": "page"}
    for block in filter(is_run, python_of(PAGES[page])):
        exec(compiled(page, block), namespace)
    plt.close("all")


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """The folder in which the blocks of start.md ran, its model with it."""
    folder = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(START)
    return folder


def test_the_blocks_of_the_start_run(started):
    assert {"config.json", "model.safetensors"} <= {
        path.name for path in (started / "run").iterdir()
    }


@pytest.mark.parametrize("page", [page for page in WITH_PYTHON if page != START])
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    if 'load("run")' in PAGES[page].read_text(encoding="utf-8"):
        (tmp_path / "run").symlink_to(request.getfixturevalue("started") / "run")
    run(page)


def test_python_stands_in_fences():
    """Code that is only indented would not be run."""
    code = r"^    (import |from \w|with |est\b|estimator\b|\w+ = tiltflow\.|tiltflow\.)"
    for page, path in PAGES.items():
        if path.suffix == ".md":
            text = re.sub(r"^```[\s\S]*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M)
            assert not re.findall(code, text, flags=re.M), page


def test_what_is_not_run_needs_what_is_not_there():
    found = [
        (page, block)
        for page, path in PAGES.items()
        for block in python_of(path)
        if not is_run(block)
    ]
    assert found
    for page, block in found:
        compiled(page, block)
        nodes = list(ast.walk(ast.parse(block.code)))
        imported = [
            each.name for node in nodes if isinstance(node, ast.Import) for each in node.names
        ]
        imported += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
        assert any(find_spec(name.split(".")[0]) is None for name in imported), (page, block.line)


def commands() -> list[tuple[str, str]]:
    """Every line of code that calls `tiltflow`, with its page; "..." stands for anything."""
    found = [
        (page, line.strip().removeprefix(".venv/bin/"))
        for page, path in PAGES.items()
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"(    |\.venv/bin/)tiltflow ", line) and "..." not in line
    ]
    return sorted(set(found))


def test_every_command_parses():
    found = commands()
    assert {"fit", "sample", "score", "weights", "report", "watch", "reproduce", "bench"} <= {
        line.split()[1] for _, line in found
    }
    known = {
        "reproduce": find_functions(HERE, "reproduce"),
        "bench": find_functions(HERE, "bench"),
    }
    for page, line in found:
        arguments = shlex.split(line, comments=True)[1:]
        try:
            command = tyro.extras.subcommand_cli_from_dict(COMMANDS, args=arguments)
        except SystemExit:
            pytest.fail(f"{page}: {line}")
        if arguments[0] in known and command.name:
            assert command.name in known[arguments[0]], (page, line)


def test_every_experiment_has_a_table_or_is_said_to_have_none():
    results = "".join(path.read_text() for path in (DOCS / "results").glob("*.md"))
    for name in find_functions(HERE, "reproduce"):
        assert f"tiltflow reproduce {name}" in results, name


def test_the_limits_of_the_verdict_are_those_of_the_code():
    page = PAGES["docs/verdict.md"].read_text(encoding="utf-8")
    for each in CRITERIA:
        side = "above" if each.above else "below"
        possible = math.isfinite(each.failed) and not (
            each.failed > 1 and "acceptance" in each.figure
        )
        failed = f"{side} {each.failed:g}" if possible else "never"
        assert f"| `{each.figure}` | {side} {each.doubtful:g} | {failed} |" in page
        assert re.search(rf"^\*\*.*`{each.figure}`.*\*\*:", page, flags=re.M), each.figure


def test_notebooks_are_kept_without_outputs():
    notebooks = [path for path in PAGES.values() if path.suffix == ".ipynb"]
    assert len(notebooks) >= 4
    for path in notebooks:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs") and cell.get("execution_count") is None, path
