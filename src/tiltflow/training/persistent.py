"""Persistent negatives: chains that go on from step to step by local moves alone.

Tieleman (2008); with unadjusted Langevin moves this is the usual training of energy-based models
(Nijkamp et al. 2020). The chains cannot cross between separated modes, so the weights of the
modes that they teach are those of their start.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import refresh
from tiltflow.sampling.local import ula
from tiltflow.training.likelihood import Negatives


class PersistentState(NamedTuple):
    """The chains; nothing else is learnt."""

    position: Float[Array, "n d"]


@dataclass(frozen=True)
class Persistent:
    """A source of negatives: unadjusted Langevin chains that are never restarted."""

    chains: int = 1024
    local_steps: int = 10
    step_size: float = 0.01

    def init(
        self, key: PRNGKeyArray, base: AbstractDistribution, flow: None = None
    ) -> PersistentState:
        """Start the chains at draws of the base."""
        return PersistentState(base.sample(key, (self.chains,)))

    def evaluations(self, batch_size: int) -> int:
        """Gradients of the energy a step: the refreshed chains and local steps."""
        return self.chains * (self.local_steps + 1)

    def draw(
        self,
        key: PRNGKeyArray,
        model: TiltedEBM,
        flow_static: PyTree,
        state: PersistentState,
        batch: Float[Array, "b d"],
        rate: Float[Array, ""],
    ) -> tuple[Negatives, PersistentState, dict[str, Float[Array, ""]]]:
        """Move the chains by `local_steps` unadjusted Langevin steps under `model`."""
        chains = refresh(state.position, model.log_density)
        step_size = jnp.asarray(self.step_size)
        chains = ula(key, chains, model.log_density, step_size, self.local_steps)
        weights = jnp.full(self.chains, 1 / self.chains)
        return Negatives(chains.position, weights), PersistentState(chains.position), {}
