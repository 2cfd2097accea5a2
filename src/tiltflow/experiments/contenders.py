"""Who is compared: every method in the shared setting, and in its authors' own where it is known.

Shared are chains, local steps and step size, the network, the rows, the learning rate. The list is
in the order of the table, and a further method is a further line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.experiments.exact_negatives import GridNegatives
from tiltflow.models.energies import Energy, MLPEnergy
from tiltflow.training.balanced import Balanced
from tiltflow.training.methods import Objective, Source
from tiltflow.training.persistent import Persistent

REFERENCE = "balanced"
"""The method whose evaluations and seconds the others are given."""


@dataclass(frozen=True)
class Shared:
    """What all methods have in common where they have it at all."""

    chains: int = 1024
    local_steps: int = 10
    step_size: float = 0.01


def mlp_energy(dimension: int, key: PRNGKeyArray) -> Energy:
    """The network that all methods train."""
    return MLPEnergy(dimension, key=key)


@dataclass(frozen=True)
class Contender:
    """One row of the comparison: a method in a setting, and what it is given.

    `method` is None for the flow alone, by maximum likelihood. `base` is what the energy tilts.
    `flow`: the method is given the flow that was fitted to the rows. `held_out`: its best state on
    held-out rows is kept, for which its flow must know log Z. `polished`: its last layer is solved
    for in the end. `same_steps`: it takes as many steps as the reference, whatever they cost.
    """

    name: str
    setting: str
    method: Source | Objective | None
    base: Literal["gaussian", "flow"] = "gaussian"
    flow: bool = False
    held_out: bool = False
    polished: bool = False
    same_steps: bool = False
    learning_rate: float | None = None
    energy: Callable[[int, PRNGKeyArray], Energy] = mlp_energy


def contenders(dimension: int, shared: Shared) -> tuple[Contender, ...]:
    """All of them, the reference first and the floor last."""
    chains, local_steps, step_size = shared.chains, shared.local_steps, shared.step_size
    balanced = Balanced(chains=chains, local_steps=local_steps)
    return (
        Contender(REFERENCE, "shared", balanced, flow=True, held_out=True, polished=True),
        Contender("pcd", "shared", Persistent(chains, local_steps, step_size)),
        # Further rivals go here, a line each.
        Contender("flow", "likelihood", None),
        floor(dimension, shared),
    )


def floor(dimension: int, shared: Shared) -> Contender:
    """The statistical floor: exact negatives in the plane, four times the chains above."""
    if dimension == 2:
        exact = GridNegatives(draws=shared.chains)
        return Contender("floor", "exact negatives", exact, polished=True, same_steps=True)
    many = Balanced(chains=4 * shared.chains, local_steps=shared.local_steps)
    return Contender(
        "floor",
        "4 x chains",
        many,
        flow=True,
        held_out=True,
        polished=True,
        same_steps=True,
    )


def choose(known: tuple[Contender, ...], methods: tuple[str, ...] | None) -> tuple[Contender, ...]:
    """Those of the methods called, in all of their settings; all if None.

    Raises:
        InputError: a name is not known.
    """
    names = list(dict.fromkeys(each.name for each in known))
    for name in methods or ():
        if name not in names:
            raise InputError(f"--methods: '{name}' is not known; use some of {', '.join(names)}")
    return tuple(each for each in known if methods is None or each.name in methods)
