"""Cooperative training: Langevin chains start at a flow's draws, and the flow learns their ends.

Xie, Zhu, Li, Li (2022, CoopFlow). One draw is

    1. x_0 ~ q, the flow;
    2. `local_steps` Langevin steps under the model, x_0 -> x_T: the negatives;
    3. one gradient step of the flow on -mean log q(x_T).

Nothing is accepted or refused and the flow's density is not used, so the ends are draws of the
model only where the steps are many or the flow is there already.
"""

from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.data.errors import InputError
from tiltflow.data.settings import check_positive
from tiltflow.models.flows import trainable
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import LogDensity, refresh
from tiltflow.sampling.local import ula
from tiltflow.training.likelihood import Negatives
from tiltflow.training.methods import Figures
from tiltflow.training.steps import flow_optimiser

LONGEST_STEP = 0.1
"""In each coordinate, of a step without noise: the bound in the authors' code."""


class CooperativeState(NamedTuple):
    """The ends of the last chains, the flow's trainable part and its optimiser."""

    position: Float[Array, "n d"]
    flow: PyTree
    optimiser: PyTree


@dataclass(frozen=True)
class Cooperative:
    """A source of negatives: short Langevin chains from a flow, which learns where they end.

    `noise=False` is the authors' setting in their released code, not in their paper: the noise is
    left out and each coordinate of a step is bounded by `LONGEST_STEP`, so that the chains climb
    the density. `step_size` is h of sampling/local.py, half the square of the authors' step size.
    """

    chains: int = 1024
    local_steps: int = 30
    step_size: float = 0.01
    noise: bool = True
    flow_learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        """Raises `InputError` where a setting is out of its range."""
        check_positive(
            chains=self.chains,
            local_steps=self.local_steps,
            step_size=self.step_size,
            flow_learning_rate=self.flow_learning_rate,
        )

    def init(
        self,
        key: PRNGKeyArray,
        base: AbstractDistribution,
        flow: AbstractDistribution | None,
    ) -> CooperativeState:
        """No chain has run yet; in their place are draws of the base.

        Raises:
            InputError: there is no flow.
        """
        if flow is None:
            raise InputError("flow: found None; cooperative training needs a flow to teach")
        parameters, _ = trainable(flow)
        return CooperativeState(
            base.sample(key, (self.chains,)), parameters, flow_optimiser().init(parameters)
        )

    def evaluations(self, batch_size: int) -> int:
        """In a point: the local steps, with noise also the flow's draws. In the parameters: rows
        and chains.
        """
        return self.chains * (self.local_steps + int(self.noise)) + batch_size + self.chains

    def draw(
        self,
        key: PRNGKeyArray,
        model: TiltedEBM,
        flow_static: PyTree,
        state: CooperativeState,
        batch: Float[Array, "b d"],
        rate: Float[Array, ""],
    ) -> tuple[Negatives, CooperativeState, Figures]:
        """Move the flow's draws under `model` and let the flow learn where they end.

        `rate` scales the flow's learning rate.
        """
        flow_key, local_key = jax.random.split(key)
        start = eqx.combine(state.flow, flow_static).sample(flow_key, (self.chains,))
        step_size = jnp.full((), self.step_size, start.dtype)
        if self.noise:
            chains = refresh(start, model.log_density)
            chains = ula(local_key, chains, model.log_density, step_size, self.local_steps)
            position = chains.position
        else:
            position = _ascend(start, model.log_density, step_size, self.local_steps)
        loss, gradient = jax.value_and_grad(_negative_log_likelihood)(
            state.flow, flow_static, position
        )
        updates, optimiser = flow_optimiser().update(gradient, state.optimiser, state.flow)
        step = -self.flow_learning_rate * rate
        flow = jax.tree.map(lambda p, u: p + step * u, state.flow, updates)
        weights = jnp.full(self.chains, 1 / self.chains)
        return (
            Negatives(position, weights),
            CooperativeState(position, flow, optimiser),
            {"flow_loss": loss},
        )


def _ascend(
    position: Float[Array, "n d"], log_density: LogDensity, step_size: Float[Array, ""], steps: int
) -> Float[Array, "n d"]:
    """`steps` bounded steps up the gradient."""

    def step(position: Float[Array, "n d"], _: None) -> tuple[Float[Array, "n d"], None]:
        uphill = step_size * jax.vmap(jax.grad(log_density))(position)
        return position + jnp.clip(uphill, -LONGEST_STEP, LONGEST_STEP), None

    return jax.lax.scan(step, position, None, steps)[0]


def _negative_log_likelihood(
    flow: PyTree, flow_static: PyTree, position: Float[Array, "n d"]
) -> Float[Array, ""]:
    return -eqx.combine(flow, flow_static).log_prob(position).mean()
