"""Who is compared where one energy flow is trained by every loss (Chao et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltflow.experiments.cells import Line
from tiltflow.training.flow_losses import FlowLoss

LIKELIHOOD = "likelihood"
"""The loss that the others are measured by."""


@dataclass(frozen=True)
class Entrant:
    """One row of the comparison: a loss, the setting in which it stands there, and its cost.

    `cost` is in energies at a row, forwards and backwards in all parameters: what a guess of the
    time goes by. `levels` are those of the rows' noise, in units of the last, each with its share
    of the steps.
    """

    name: str
    setting: str
    loss: FlowLoss
    cost: float
    levels: tuple[tuple[float, float], ...] = ((1.0, 1.0),)


def first_of_each(entrants: Sequence[Entrant]) -> tuple[Entrant, ...]:
    """Every loss once, in the setting that comes first."""
    first = {each.name: each for each in reversed(entrants)}
    return tuple(each for each in entrants if first[each.name] is each)


def excess(lines: Sequence[Line], line: Line, figure: str) -> float:
    """By how much a figure of `line` exceeds the likelihood's on the same case and seed.

    Not a number where that was not run.
    """
    names = {name: line[name] for name in ("case", "seed", "budget")}
    for other in lines:
        if other["method"] == LIKELIHOOD and names.items() <= other.items():
            return line["figures"][figure] - other["figures"][figure]
    return float("nan")
