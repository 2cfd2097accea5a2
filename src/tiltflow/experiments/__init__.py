"""Experiments by name: each prints its table and writes its figure; none is imported before."""

import inspect
from importlib import import_module
from pathlib import Path

from tiltflow.data.errors import InputError

EXPERIMENTS = {
    "two-modes": ("plane", "reproduce_two_modes"),
    "eight-gaussians": ("plane", "reproduce_eight_gaussians"),
    "rings": ("plane", "reproduce_rings"),
    "four-zones": ("four_zones", "reproduce_four_zones"),
    "mixtures": ("mixtures", "reproduce_mixtures"),
    "jarzynski-mixture": ("jarzynski_mixture", "reproduce_jarzynski_mixture"),
    "acceptance": ("acceptance", "reproduce_acceptance"),
    "four-modes-16": ("four_modes", "reproduce_four_modes_16"),
    "four-modes-64": ("four_modes", "reproduce_four_modes_64"),
    "four-modes-128": ("four_modes", "reproduce_four_modes_128"),
    "warped-modes-64": ("four_modes", "reproduce_warped_modes_64"),
    "tables": ("tables", "reproduce_tables"),
    "outliers": ("outliers", "reproduce_outliers"),
    "verdicts": ("verdicts", "reproduce_verdicts"),
    "coverage": ("coverage", "reproduce_coverage"),
    "phi-four": ("phi_four", "reproduce_phi_four"),
    "sample-four-modes-256": ("sample_four_modes", "reproduce_sample_four_modes"),
    "ffjord-tables": ("ffjord_tables", "reproduce_ffjord_tables"),
    "ffjord-vae": ("ffjord_vae", "reproduce_ffjord_vae"),
    "ebflow-2d": ("ebflow_2d", "reproduce_ebflow_2d"),
    "ffjord-2d": ("ffjord_2d", "reproduce_ffjord_2d"),
    "ebflow-images": ("ebflow_images", "reproduce_ebflow_images"),
}
BENCHMARKS = {
    "step": ("bench_step", "bench_step"),
    "negatives": ("bench_negatives", "bench_negatives"),
    "ebflow": ("bench_ebflow", "bench_ebflow"),
}

# Not part of a run of all benchmarks: they need packages that tiltflow does not, or ten minutes.
PEERS = {
    "kills": ("bench_kills", "bench_kills"),
    "flowmc": ("bench_flowmc", "bench_flowmc"),
    "ffjord": ("bench_ffjord", "bench_ffjord"),
}


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
    run = _find(name, EXPERIMENTS, "experiment")
    asked = {"methods": methods} if methods is not None else {}
    asked |= {"quick": True} if quick else {}
    for option in asked.keys() - inspect.signature(run).parameters.keys():
        what = {"methods": "compares no methods", "quick": "has no smaller budget"}[option]
        raise InputError(f"--{option}: {name} {what}; leave the option out")
    out.mkdir(parents=True, exist_ok=True)
    run(seeds=seeds, seed=seed, quiet=quiet, out=out, **asked)


def bench(name: str | None, *, seed: int, quiet: bool) -> None:
    """Run the benchmark called `name`, or all that need no other package if None.

    Raises:
        InputError: the name is not known.
    """
    for each in [name] if name else BENCHMARKS:
        _find(each, BENCHMARKS | PEERS, "benchmark")(seed=seed, quiet=quiet)


def _find(name: str, known: dict[str, tuple[str, str]], what: str):
    if name not in known:
        raise InputError(f"{name}: no such {what}; the known ones are {', '.join(known)}")
    module, function = known[name]
    return getattr(import_module(f"tiltflow.experiments.{module}"), function)
