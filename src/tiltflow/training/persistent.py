"""Persistent negatives: chains that go on from step to step by local moves alone.

Tieleman (2008); with unadjusted Langevin moves this is the usual training of energy-based models
(Nijkamp et al. 2020), often with some chains started anew (Du and Mordatch 2019: one in twenty at
each step). The chains cannot cross between separated modes, so the weights of the modes that they
teach are those of their start.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.data.settings import check_positive, check_share
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
class Persistent:
    """A source of negatives: Langevin chains that go on, each restarted with a small probability.

    `step_size` is h of `langevin.py`; "mala" starts with it. `restart_rate` is the probability
    with which a chain starts a step at a new draw of the base.
    """

    chains: int = 1024
    local_steps: int = 10
    step_size: float = 0.01
    kernel: LangevinKernel = "ula"
    restart_rate: float = 0.0

    def __post_init__(self) -> None:
        """Raises `InputError` where a setting is out of its range."""
        check_kernel(self.kernel)
        check_share(restart_rate=self.restart_rate)
        check_positive(chains=self.chains, local_steps=self.local_steps, step_size=self.step_size)

    def init(
        self,
        key: PRNGKeyArray,
        base: AbstractDistribution,
        flow: AbstractDistribution | None = None,
    ) -> LangevinState:
        """Start the chains at draws of the base."""
        return langevin_start(key, base, self.chains, self.step_size)

    def evaluations(self, batch_size: int) -> int:
        """In a point: the refreshed chains and local steps. In the parameters: rows and chains."""
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
        """Restart some chains, then move all by `local_steps` steps under `model`."""
        position = state.position
        if self.restart_rate > 0:
            key, restart_key = jax.random.split(key)
            position = self._restarted(restart_key, model.base, position)
        position, step_size, figures = langevin_moves(
            self.kernel, key, position, model.log_density, state.step_size, self.local_steps
        )
        weights = jnp.full(self.chains, 1 / self.chains)
        return Negatives(position, weights), LangevinState(position, step_size), figures

    def _restarted(
        self, key: PRNGKeyArray, base: AbstractDistribution, position: Float[Array, "n d"]
    ) -> Float[Array, "n d"]:
        which_key, draw_key = jax.random.split(key)
        restarted = jax.random.bernoulli(which_key, self.restart_rate, (self.chains, 1))
        return jnp.where(restarted, base.sample(draw_key, (self.chains,)), position)
