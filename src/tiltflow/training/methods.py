"""What a method of training is: a source of negatives, or an objective of its own.

A source answers where the negatives of the likelihood step come from; an objective replaces that
step (score matching, noise contrast). Both keep a state, in which whatever else they teach (a
flow, a log Z) lives, and both are asked once a step, by `energy_gradient`.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.models.energies import Energy
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import LogDensity
from tiltflow.training.likelihood import Negatives, likelihood_gradient

Figures = dict[str, Float[Array, ""]]


@runtime_checkable
class Source(Protocol):
    """Where negatives come from."""

    def init(self, key: PRNGKeyArray, base: AbstractDistribution, flow: Any) -> Any:
        """The state before the first step; `flow` is None where the method has none."""
        ...

    def evaluations(self, batch_size: int) -> int:
        """How many gradients of the energy one step takes, in points and in its parameters."""
        ...

    def draw(
        self,
        key: PRNGKeyArray,
        model: TiltedEBM,
        flow_static: PyTree,
        state: Any,
        batch: Float[Array, "b d"],
        rate: Float[Array, ""],
    ) -> tuple[Negatives, Any, Figures]:
        """Negatives of `model`, the next state and figures to watch.

        `batch` are the rows of this step; `rate` scales the learning rate of what is taught here.
        """
        ...


@runtime_checkable
class Objective(Protocol):
    """Another loss of the energy than the likelihood."""

    def init(self, key: PRNGKeyArray, base: AbstractDistribution, flow: Any) -> Any:
        """The state before the first step; `flow` is None where the method has none."""
        ...

    def evaluations(self, batch_size: int) -> int:
        """How many gradients of the energy one step takes, in points and in its parameters."""
        ...

    def gradient(
        self,
        key: PRNGKeyArray,
        model: TiltedEBM,
        flow_static: PyTree,
        state: Any,
        batch: Float[Array, "b d"],
        rate: Float[Array, ""],
    ) -> tuple[PyTree, Any, Figures]:
        """The loss's gradient in the energy of `model`, the next state and figures to watch."""
        ...


def energy_gradient(
    method: Source | Objective,
    key: PRNGKeyArray,
    model: TiltedEBM,
    flow_static: PyTree,
    state: Any,
    batch: Float[Array, "b d"],
    rate: Float[Array, ""],
) -> tuple[PyTree, Any, Figures]:
    """The gradient in the energy of `model` by which the method would have it step."""
    if isinstance(method, Objective):
        return method.gradient(key, model, flow_static, state, batch, rate)
    negatives, state, figures = method.draw(key, model, flow_static, state, batch, rate)
    gap, gradient = likelihood_gradient(model.energy, batch, negatives)
    return gradient, state, {**figures, "energy_gap": gap}


def score_matching_gradient(
    loss: Callable[[PRNGKeyArray, LogDensity, Array], Float[Array, ""]],
    key: PRNGKeyArray,
    model: TiltedEBM,
    batch: Float[Array, "b d"],
) -> tuple[PyTree, Figures]:
    """The gradient in the energy of `model` of a loss of its log-density on `batch`."""

    def of(energy: Energy) -> Float[Array, ""]:
        return loss(key, TiltedEBM(model.base, energy).log_density, batch)

    value, gradient = eqx.filter_value_and_grad(of)(model.energy)
    return gradient, {"score_matching_loss": value}
