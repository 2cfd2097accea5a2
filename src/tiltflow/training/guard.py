"""The guard: it looks at every step of a chunk and says which quantity ran away first."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LOWEST_LOCAL_ACCEPTANCE_RATE = 0.02
"""A mean over a chunk below this means that the step size cannot follow the energy."""


class TrainingFailed(RuntimeError):
    """Training ran away at once and again, before there was any good state to return to."""


class Runaway(NamedTuple):
    """What went first, at which step of the chunk, and its value there."""

    quantity: str
    step: int
    value: float

    def __str__(self) -> str:
        return f"{self.quantity} was {self.value:.4g} at step {self.step}"


def largest_energy_gap(dimension: int) -> float:
    """The gap, in nats, that no healthy training reaches: it is near zero all along."""
    return 100.0 + 10.0 * dimension


def find_runaway(
    trace: dict[str, Float[np.ndarray, " steps"]], first_step: int, dimension: int
) -> Runaway | None:
    """The earliest step at which something is not finite or out of bounds, if there is one."""
    found: list[Runaway] = []
    for quantity, values in trace.items():
        bad = ~np.isfinite(values)
        if quantity == "energy_gap":
            bad |= np.abs(values) > largest_energy_gap(dimension)
        if bad.any():
            index = int(np.argmax(bad))
            found.append(Runaway(quantity, first_step + index, float(values[index])))
    rates = trace.get("local_acceptance_rate")
    if rates is not None and not found and rates.mean() < LOWEST_LOCAL_ACCEPTANCE_RATE:
        index = int(np.argmax(rates < LOWEST_LOCAL_ACCEPTANCE_RATE))
        found.append(Runaway("local_acceptance_rate", first_step + index, float(rates[index])))
    return min(found, key=lambda runaway: runaway.step, default=None)
