"""Contrastive divergence: chains that start anew at the data in every step.

Hinton (2002). A few local moves from the rows of the batch tell where the model would carry the
data, and the gradient that follows is that of the likelihood less a second divergence, which is
neglected. What no chain reaches from the data in `local_steps` moves is never seen: an energy can
be low there, and the mass of a mode can be anything, since no chain leaves its own.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.data.settings import check_positive
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.langevin import (
    LangevinKernel,
    LangevinState,
    check_kernel,
    langevin_moves,
    langevin_start,
)
from tiltflow.training.likelihood import Negatives
from tiltflow.training.methods import Figures


@dataclass(frozen=True)
class Contrastive:
    """A source of negatives: short Langevin chains from the rows of the batch.

    With more chains than rows, the rows are gone through again. `step_size` is h of
    `langevin.py`; "mala" starts with it.
    """

    chains: int = 1024
    local_steps: int = 10
    step_size: float = 0.01
    kernel: LangevinKernel = "ula"

    def __post_init__(self) -> None:
        """Raises `InputError` where a setting is out of its range."""
        check_kernel(self.kernel)
        check_positive(chains=self.chains, local_steps=self.local_steps, step_size=self.step_size)

    def init(
        self,
        key: PRNGKeyArray,
        base: AbstractDistribution,
        flow: AbstractDistribution | None = None,
    ) -> LangevinState:
        """No chain has run yet; in their place are draws of the base."""
        return langevin_start(key, base, self.chains, self.step_size)

    def evaluations(self, batch_size: int) -> int:
        """In a point: the rows that chains start at, and the local steps. In the parameters: rows
        and chains.
        """
        return self.chains * (self.local_steps + 1) + batch_size + self.chains

    def draw(
        self,
        key: PRNGKeyArray,
        model: TiltedEBM,
        flow_static: PyTree,
        state: LangevinState,
        batch: Float[Array, "b d"],
        rate: Float[Array, ""],
    ) -> tuple[Negatives, LangevinState, Figures]:
        """Move chains from the rows of `batch` by `local_steps` steps under `model`."""
        start = batch[jnp.arange(self.chains) % batch.shape[0]]
        position, step_size, figures = langevin_moves(
            self.kernel, key, start, model.log_density, state.step_size, self.local_steps
        )
        weights = jnp.full(self.chains, 1 / self.chains)
        return Negatives(position, weights), LangevinState(position, step_size), figures
