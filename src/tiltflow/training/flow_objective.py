"""What the fit of a flow minimises, how it is judged on held-out rows, and why that failed."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.models.checked_flows import log_prob_in_parts
from tiltflow.models.energy_flow import EnergyFlow, check_invertible
from tiltflow.training.flow_losses import FlowLoss, MaximumLikelihood


@runtime_checkable
class FlowObjective(Protocol):
    """What a fit minimises and how it is judged; a frozen dataclass, since it is static."""

    def loss(
        self, key: PRNGKeyArray, flow: Any, batch: Float[Array, "b d"]
    ) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        """The loss, (), the flow with new running statistics, and figures, () each, to report."""
        ...

    def score(self, flow: Any, x: Float[Array, "n d"]) -> Array:
        """The mean log-likelihood of held-out rows, (), without noise."""
        ...

    def diagnose(self, flow: Any, x: Float[Array, "n d"]) -> None:
        """Say by an `InputError` why the rows have no finite likelihood, if that can be said."""
        ...


@dataclass(frozen=True)
class Minimise:
    """A loss of the flow alone (`flow_losses.py`); held-out rows by the flow's own likelihood."""

    of: FlowLoss

    def loss(
        self, key: PRNGKeyArray, flow: Any, batch: Float[Array, "b d"]
    ) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        """Of a batch; nothing else."""
        return self.of(key, flow, batch), (flow, {})

    def score(self, flow: Any, x: Float[Array, "n d"]) -> Array:
        """The mean log-probability of held-out rows."""
        return flow.log_prob(x).mean()

    def diagnose(self, flow: Any, x: Float[Array, "n d"]) -> None:
        """Name a layer that is singular, or the first row whose log-density is not finite."""
        if isinstance(flow, EnergyFlow):
            check_invertible(flow)
        check_finite(np.asarray(log_prob_in_parts(flow, x), float), "the log-density")


LIKELIHOOD = Minimise(MaximumLikelihood())


def why_not_finite(
    objective: FlowObjective, flow: Any, x: Float[Array, "n d"], which: str
) -> str | None:
    """The reason in one line that begins with `which` rows these are; None if there is none."""
    try:
        objective.diagnose(flow, x)
    except InputError as error:
        return f"{which}: {error}"
    return None


def check_finite(values: Float[np.ndarray, " n"], what: str) -> None:
    """Refuse rows where one of the values, `what` of every row, is not finite.

    Raises:
        InputError: the first such row, its value, how many there are, and what to do.
    """
    bad = ~np.isfinite(values)
    if bad.any():
        first = int(bad.argmax())
        raise InputError(
            f"{what} is {values[first]:g} at row {first + 1} ({bad.sum()} of {len(values)} rows); "
            "look for an outlier in that row, lower the learning rate, or start anew"
        )
