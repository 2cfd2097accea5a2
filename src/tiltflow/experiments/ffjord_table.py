"""The table of `ffjord_2d.py`, and in words which of its bars are met."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tiltflow.experiments.cells import Line
from tiltflow.experiments.failures import failures
from tiltflow.experiments.ffjord_fit import TOLERANCE
from tiltflow.report.table import format_table, mean_and_std

EXPERIMENT = "ffjord-2d"
FFJORD, RNODE, MATCHING = "FFJORD", "RNODE", "flow-matching"
COUPLING, AFFINE, ENERGY_FLOW = "coupling", "affine-coupling", "energy-flow"
KL_BAR, CALLS_BAR, BETTER_BAR = 0.03, 100, 5
RNODE_CALLS_BAR, RNODE_LOSS_BAR = 25, 0.01
FIGURES = {
    "KL": "kl",
    "held-out NLL": "nll",
    "acceptance": "acceptance",
    "effective share": "effective_share",
    "calls, training": "calls_training",
    f"calls, {TOLERANCE:g}": "calls",
    "parameters": "parameters",
    "steps": "steps",
    "seconds": "seconds",
}
COUNTS = ("parameters", "steps")


def summary(lines: Sequence[Line]) -> str:
    """A row for every density and method: mean and deviation over the seeds."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["case"], line["method"]), []).append(line["figures"])
    rows = []
    for names, group in groups.items():
        columns = [_cell(name, [each.get(name) for each in group]) for name in FIGURES.values()]
        rows.append([*names, str(len(group)), *columns])
    table = format_table(["density", "method", "seeds", *FIGURES], rows)
    masses = [line["figures"]["mass"] for line in lines]
    worst = max((abs(mass - 1) for mass in masses if np.isfinite(mass)), default=np.nan)
    return (
        f"{EXPERIMENT}: KL(truth || model) and NLL in nats, in the data's units; calls of the "
        "field on the way to the base,\nby the last training steps, and by the density at "
        "that tolerance; a gradient goes through each of them once more\n"
        f"{table}\nmodels' mass on the grid: 1 within {worst:.1e}\n{failures(lines)}"
    )


def _cell(name: str, values: Sequence[float | int | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{known[0]}" if name in COUNTS else mean_and_std(known)


def bars_met(lines: Sequence[Line]) -> list[str]:
    """What was reached on average, beside what should be; nothing of what was not run."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["method"], line["case"]), []).append(line["figures"])
    toys = list(dict.fromkeys(toy for _, toy in groups))

    def mean(method: str, toy: str, name: str) -> float:
        return float(np.mean([each[name] for each in groups[method, toy]]))

    def kl(method: str, toy: str) -> float:
        return mean(method, toy, "kl")

    def all_of(*methods: str) -> list[str]:
        return [toy for toy in toys if all((method, toy) in groups for method in methods)]

    told = []
    if own := all_of(FFJORD):
        reached = [toy for toy in own if kl(FFJORD, toy) <= KL_BAR]
        told.append(_bar(f"{FFJORD}: KL at most {KL_BAR}", reached, own, len(own)))
        cheap = [toy for toy in own if mean(FFJORD, toy, "calls_training") <= CALLS_BAR]
        words = f"{FFJORD}: at most {CALLS_BAR} calls by the last training steps"
        told.append(_bar(words, cheap, own, len(own)))
    for rival in (COUPLING, AFFINE):
        if both := all_of(FFJORD, rival):
            better = [toy for toy in both if kl(FFJORD, toy) < kl(rival, toy)]
            told.append(_bar(f"{FFJORD}: KL below {rival}'s", better, both, BETTER_BAR))
    if own := all_of(RNODE):
        cheap = [
            toy
            for toy in own
            # Rounded: a mean of equal numbers in float32 is not quite that number.
            if round(mean(RNODE, toy, "calls_training"), 2) <= RNODE_CALLS_BAR
            and abs(mean(RNODE, toy, "kl_own_steps") - kl(RNODE, toy)) <= RNODE_LOSS_BAR
        ]
        words = f"{RNODE}: at most {RNODE_CALLS_BAR} calls, which change KL by {RNODE_LOSS_BAR}"
        told.append(_bar(words, cheap, own, len(own)))
    if both := all_of(FFJORD, RNODE):
        near = [toy for toy in both if kl(RNODE, toy) <= kl(FFJORD, toy) + RNODE_LOSS_BAR]
        words = f"{RNODE}: KL at most {RNODE_LOSS_BAR} above {FFJORD}'s"
        told.append(_bar(words, near, both, len(both)))
    return told


def _bar(words: str, reached: Sequence[str], of: Sequence[str], needed: int) -> str:
    missed = [toy for toy in of if toy not in reached]
    verdict = "met" if len(reached) >= needed else "missed"
    but = f", not on {', '.join(missed)}" if missed else ""
    return f"{words}: on {len(reached)} of {len(of)} densities{but}: {verdict}"
