"""Experiments by name: each prints its table and writes its figure; none is imported before.

A file of this folder that defines `reproduce_four_zones` holds the experiment four-zones, and one
that defines `bench_step` the benchmark step. They are found by these definitions in the text, for
to import a file waits for JAX.
"""

import inspect
import re
from importlib import import_module
from pathlib import Path

from tiltflow.data.errors import InputError

HERE = Path(__file__).parent

ALONE = ("kills", "fuzz", "stream", "sizes", "flowmc", "ffjord")
"""Benchmarks that a run of all leaves out: other packages, or ten minutes and more."""


def reproduce(
    name: str,
    *,
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None = None,
    quick: bool = False,
) -> None:
    """Run the experiment called `name` over `seeds` seeds from `seed` on.

    `methods` are those to compare, all if None; `quick` asks for a smaller budget.

    Raises:
        InputError: the name is not known, or the experiment has no methods or no quick run.
    """
    run = _import(name, find_functions(HERE, "reproduce"), "experiment")
    asked = {"methods": methods} if methods is not None else {}
    asked |= {"quick": True} if quick else {}
    takes = inspect.signature(run).parameters
    for option in [each for each in asked if each not in takes]:
        what = {"methods": "compares no methods", "quick": "has no smaller budget"}[option]
        raise InputError(f"--{option}: {name} {what}; leave the option out")
    out.mkdir(parents=True, exist_ok=True)
    run(seeds=seeds, seed=seed, quiet=quiet, out=out, **asked)


def bench(name: str | None, *, seed: int, quiet: bool, rows: int | None = None) -> None:
    """Run the benchmark called `name`, or all that need no other package if None.

    `rows` is the size of the table of those that make one.

    Raises:
        InputError: the name is not known, or `rows` is given and the benchmark has none.
    """
    known = find_functions(HERE, "bench")
    for each in [name] if name else [each for each in known if each not in ALONE]:
        run = _import(each, known, "benchmark")
        asked = {} if rows is None else {"rows": rows}
        if asked.keys() - inspect.signature(run).parameters.keys():
            raise InputError(f"--rows: {each} makes no table of rows; leave the option out")
        run(seed=seed, quiet=quiet, **asked)


def find_functions(folder: Path, prefix: str) -> dict[str, tuple[str, str]]:
    """Module and function of every `prefix_some_name` that a file of `folder` defines, by name.

    The name of `prefix_some_name` is some-name.
    """
    found = {}
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        for function, name in re.findall(rf"^def ({prefix}_(\w+))\(", text, flags=re.M):
            found[name.replace("_", "-")] = path.stem, function
    return found


def _import(name: str, known: dict[str, tuple[str, str]], what: str):
    if name not in known:
        raise InputError(f"{name}: no such {what}; the known ones are {', '.join(known)}")
    module, function = known[name]
    return getattr(import_module(f"tiltflow.experiments.{module}"), function)
