"""Losses by which a flow learns rows: likelihood, its sampled form, and scores.

    MaximumLikelihood          -mean log p(x)
    SampledMaximumLikelihood   mean E(x) - mean E(y),   y drawn from the flow and held fixed
    ScoreMatching              scale * the loss of an objective for -E, + low_energy * mean E(x)

Of an energy flow (`models/energy_flow.py`) the last one needs no determinant, forward or backward,
and the sampled likelihood none either, but one factorisation of each dense layer for the draws: it
has the likelihood's gradient on average, since E[grad E(y)] = -grad log Z. The low-energy term
keeps the data's energies from drifting, which a score does not see (Chao et al. 2023, A2.2). Any
other flow is taken by its log-density, for E.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.models.energy_flow import EnergyFlow
from tiltflow.sampling.chains import LogDensity
from tiltflow.training.denoising_score_matching import DenoisingScoreMatching
from tiltflow.training.finite_difference_score_matching import FiniteDifferenceScoreMatching
from tiltflow.training.sliced_score_matching import SlicedScoreMatching

ScoreObjective = DenoisingScoreMatching | SlicedScoreMatching | FiniteDifferenceScoreMatching


@runtime_checkable
class FlowLoss(Protocol):
    """A hashable description of a loss; `key` is for noise, directions and draws of this step."""

    def __call__(
        self, key: PRNGKeyArray, flow: AbstractDistribution, batch: Float[Array, "b d"]
    ) -> Float[Array, ""]:
        """The loss of the flow on the rows of `batch`."""
        ...


@dataclass(frozen=True)
class MaximumLikelihood:
    """The mean negative log-density, in nats."""

    def __call__(
        self, key: PRNGKeyArray, flow: AbstractDistribution, batch: Float[Array, "b d"]
    ) -> Float[Array, ""]:
        """As `FlowLoss`; the key is not used."""
        return -flow.log_prob(batch).mean()


@dataclass(frozen=True)
class SampledMaximumLikelihood:
    """The energy gap between the rows and as many draws: its gradient is the likelihood's.

    Its value is near zero all along, and no measure of the fit.
    """

    def __call__(
        self, key: PRNGKeyArray, flow: AbstractDistribution, batch: Float[Array, "b d"]
    ) -> Float[Array, ""]:
        """As `FlowLoss`.

        Raises:
            InputError: the flow has no energy: all of its log-density depends on the point.
        """
        if not isinstance(flow, EnergyFlow):
            raise InputError(
                f"loss: SampledMaximumLikelihood needs an EnergyFlow, found {type(flow).__name__}; "
                "take MaximumLikelihood"
            )
        draws = jax.lax.stop_gradient(flow.sample(key, (batch.shape[0],)))
        return jax.vmap(flow.energy)(batch).mean() - jax.vmap(flow.energy)(draws).mean()


@dataclass(frozen=True)
class ScoreMatching:
    """`scale` times the loss of a score-matching objective, and `low_energy` times the mean energy.

    `low_energy` is weighed against the loss as this library writes it: denoising here is sigma^2
    times the published loss, so that the published lambda is lambda sigma^2 here.
    A fit clips gradients at norm one: of data of width s, a loss of derivatives is some d / s^2,
    and wants `scale` s^2, or most of what its rare large terms say is lost to the clipping.
    """

    objective: ScoreObjective
    low_energy: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Raises `InputError` where high energies would be sought, or low scores."""
        if not self.scale > 0:
            raise InputError(f"scale: found {self.scale}; give the square of the data's width")
        if not self.low_energy >= 0:
            raise InputError(f"low_energy: found {self.low_energy}; give 0, or more, say 0.001")

    def __call__(
        self, key: PRNGKeyArray, flow: AbstractDistribution, batch: Float[Array, "b d"]
    ) -> Float[Array, ""]:
        """As `FlowLoss`."""
        log_density = _log_density(flow)
        loss = self.scale * self.objective.loss(key, log_density, batch)
        if self.low_energy > 0:
            loss = loss - self.low_energy * jax.vmap(log_density)(batch).mean()
        return loss


def _log_density(flow: AbstractDistribution) -> LogDensity:
    return flow.log_density if isinstance(flow, EnergyFlow) else flow.log_prob
