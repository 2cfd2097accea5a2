"""Every module whose functions one may call is on a page of the reference, and every page is right.

A module that is left out serves other modules alone: `INTERNAL` says what for.
"""

import re
from pathlib import Path

import pytest

import tiltflow

PAGES = Path(__file__).parent.parent / "docs" / "reference"
PACKAGE = Path(tiltflow.__file__).parent
FOLDERS = ("data", "models", "sampling", "evaluation", "training")
INTERNAL = {
    "data.arrays": "reads a format for `data.tables`",
    "data.delimited": "reads a format for `data.tables`",
    "data.idx": "reads the images of the experiments",
    "data.machine": "asks the system for its memory",
    "data.matching": "a part of `data.schema`",
    "data.packed": "reads a format for `data.tables`",
    "data.panics": "mends what a library prints",
    "data.scanning": "a stage of fits that read in batches",
    "data.settings": "checks of numbers that settings are",
    "data.shuffled": "a stage of fits that read in batches",
    "data.table_kinds": "names the formats of `data.tables`",
    "data.text_columns": "reads a format for `data.tables`",
    "data.stand_in_tables": "tables of one experiment",
    "data.written_dates": "a part of `data.categories`",
    "sampling.program_room": "watches the compiler's memory",
    "sampling.quick_jit": "a setting of the compiler",
    "training.ahead": "compiles in the background",
    "training.directions": "random vectors for two objectives",
    "training.identity": "a part of checkpoints",
    "training.langevin": "a move shared by two sources",
    "training.run_folder": "a part of checkpoints",
    "training.steps": "an optimiser shared by all training",
    "training.stopping": "signals, for the shell",
}


def documented() -> set[str]:
    """What stands behind ":::" on the pages, without the name of the package."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(PAGES.glob("*.md")))
    return {name.removeprefix("tiltflow.") for name in re.findall(r"^::: (\S+)$", text, flags=re.M)}


def modules() -> set[str]:
    """All modules of the folders, as "folder.module"."""
    return {
        f"{folder}.{path.stem}"
        for folder in FOLDERS
        for path in (PACKAGE / folder).glob("*.py")
        if path.stem != "__init__"
    }


def test_every_module_is_on_a_page_or_internal():
    on_pages = {".".join(name.split(".")[:2]) for name in documented()}
    assert modules() - on_pages == INTERNAL.keys()


@pytest.mark.parametrize("name", sorted(documented()))
def test_what_a_page_names_is_there(name):
    path = PACKAGE.joinpath(*name.split("."))
    if path.with_suffix(".py").is_file():
        return
    source = path.parent.with_suffix(".py").read_text(encoding="utf-8")
    assert re.search(rf"^(class|def) {path.name}\b", source, flags=re.M)


def test_every_page_is_in_the_navigation():
    navigation = (PAGES.parent.parent / "mkdocs.yml").read_text(encoding="utf-8")
    for path in PAGES.glob("*.md"):
        assert f"reference/{path.name}" in navigation
