"""Balanced negatives: chains that a flow carries across modes, while it learns from them.

Grenioux, Moulines, Gabrié (2023), algorithm 1 as reconstructed in docs/theory.md. One draw is

    1. log-density and gradient of the chains anew, since the energy has changed;
    2. `local_steps` MALA steps;
    3. one independent Metropolis-Hastings move with draws of the flow;
    4. one gradient step of the flow on the forward Kullback-Leibler divergence, at the positions
       that 2 leaves, for which log q is needed in 3 anyway.

The negatives are the positions that 2 leaves and the proposals of 3, each with the weight that
3 gives it on average. No proposal is wasted, and the mean is that of the chains after 3: the
figures, and those of the other choices, are printed by `tiltflow bench negatives`.

Of the proposals a share may be draws of the base: a defensive mixture (Hesterberg 1995). Under it
w = p / q is bounded by exp(-E) / Z over the share, wherever E is bounded below, so that no energy
can dig a hole where neither chains nor flow look.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.data.errors import InputError
from tiltflow.evaluation.log_normalizer import importance_sampling
from tiltflow.models.defensive import mixed_log_prob
from tiltflow.models.flows import trainable
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import Chains, refresh
from tiltflow.sampling.independent import (
    Proposals,
    acceptance_weights,
    independent_metropolis_hastings,
)
from tiltflow.sampling.local import adapt_step_size, mala
from tiltflow.training.likelihood import Negatives
from tiltflow.training.steps import flow_optimiser


class BalancedState(NamedTuple):
    """Chains, the proposal flow's trainable part, its optimiser and the local step size."""

    position: Float[Array, "n d"]
    flow: PyTree
    optimiser: PyTree
    log_step_size: Float[Array, ""]


@dataclass(frozen=True)
class Balanced:
    """A source of negatives: `init` makes its state, `draw` makes negatives from it.

    `base_share` is the share of the base in the proposals, below one.
    """

    chains: int = 1024
    local_steps: int = 10
    flow_learning_rate: float = 1e-3
    target_acceptance_rate: float = 0.574
    base_share: float = 0.0

    def __post_init__(self) -> None:
        """Raises `InputError` where the flow would propose nothing."""
        if not 0 <= self.base_share < 1:
            raise InputError(f"base_share: found {self.base_share}; give a share below 1, say 0.05")

    def init(
        self, key: PRNGKeyArray, base: AbstractDistribution, flow: AbstractDistribution
    ) -> BalancedState:
        """Start the chains at draws of the base, exact for an energy that is zero."""
        parameters, _ = trainable(flow)
        (dimension,) = base.shape
        position = base.sample(key, (self.chains,))
        # No larger than the narrowest direction allows, or not one local move is ever accepted.
        longest = -jnp.log(largest_precision(base, position))
        return BalancedState(
            position=position,
            flow=parameters,
            optimiser=flow_optimiser().init(parameters),
            log_step_size=jnp.fmin(longest, math.log(0.1 / dimension ** (1 / 3))),
        )

    def evaluations(self, batch_size: int) -> int:
        """In a point: the refreshed chains, local steps and proposals. In the parameters: the rows,
        and chains and proposals as negatives.
        """
        return self.chains * (self.local_steps + 2) + batch_size + 2 * self.chains

    def draw(
        self,
        key: PRNGKeyArray,
        model: TiltedEBM,
        flow_static: PyTree,
        state: BalancedState,
        batch: Float[Array, "b d"],
        rate: Float[Array, ""],
    ) -> tuple[Negatives, BalancedState, dict[str, Float[Array, ""]]]:
        """Move the chains under `model` and let the flow learn from where they were.

        `rate` scales the flow's learning rate.
        """
        proposal_key, global_key, local_key = jax.random.split(key, 3)
        chains, local_rate = mala(
            local_key,
            refresh(state.position, model.log_density),
            model.log_density,
            jnp.exp(state.log_step_size),
            self.local_steps,
        )
        flow = eqx.combine(state.flow, flow_static)
        points, log_prob = self._propose(proposal_key, model.base, flow)
        proposals = Proposals(refresh(points, model.log_density), log_prob)
        (_, chains_log_prob), gradient = jax.value_and_grad(_forward_kl, has_aux=True)(
            state.flow, flow_static, chains.position
        )
        chains_log_prob = self._defended(model.base, chains.position, chains_log_prob)
        moved, _, global_rate = independent_metropolis_hastings(
            global_key, chains, chains_log_prob, proposals
        )
        negatives = _weighted(chains, chains_log_prob, proposals, moved.position)
        updates, optimiser = flow_optimiser().update(gradient, state.optimiser, state.flow)
        step = -self.flow_learning_rate * rate
        estimate = importance_sampling(proposals.log_weights)
        info = {
            "local_acceptance_rate": local_rate,
            "global_acceptance_rate": global_rate,
            "importance_ess": estimate.ess,
            "proposal_log_z": estimate.log_z,
        }
        new_state = BalancedState(
            position=moved.position,
            flow=jax.tree.map(lambda p, u: p + step * u, state.flow, updates),
            optimiser=optimiser,
            log_step_size=adapt_step_size(
                state.log_step_size, local_rate, target=self.target_acceptance_rate
            ),
        )
        return negatives, new_state, info

    def _propose(
        self, key: PRNGKeyArray, base: AbstractDistribution, flow: AbstractDistribution
    ) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        """Draws of flow and base, in random order, and their log-density under both together."""
        from_base = round(self.base_share * self.chains)
        if from_base == 0:
            return flow.sample_and_log_prob(key, (self.chains,))
        flow_key, base_key, order_key = jax.random.split(key, 3)
        points, log_prob = flow.sample_and_log_prob(flow_key, (self.chains - from_base,))
        wide = base.sample(base_key, (from_base,))
        points = jnp.concatenate([points, wide])
        log_prob = jnp.concatenate([log_prob, flow.log_prob(wide)])
        # Every chain must be as likely as any other to be offered a draw of the base.
        order = jax.random.permutation(order_key, self.chains)
        return points[order], self._defended(base, points, log_prob)[order]

    def _defended(
        self,
        base: AbstractDistribution,
        points: Float[Array, "n d"],
        flow_log_prob: Float[Array, " n"],
    ) -> Float[Array, " n"]:
        """The log-density of the mixture of flow and base from which proposals are drawn."""
        share = round(self.base_share * self.chains) / self.chains
        if share == 0:
            return flow_log_prob
        return mixed_log_prob(flow_log_prob, base.log_prob(points), share)


@eqx.filter_jit
def largest_precision(base: AbstractDistribution, draws: Float[Array, "n d"]) -> Float[Array, ""]:
    """The largest eigenvalue of E[g g^T], g the base's score: for a Gaussian, of its precision."""
    scores = jax.vmap(jax.grad(base.log_prob))(draws)
    return jnp.linalg.eigvalsh(scores.T @ scores / len(draws))[-1]


def _weighted(
    chains: Chains,
    chains_log_prob: Float[Array, " n"],
    proposals: Proposals,
    moved: Float[Array, "n d"],
) -> Negatives:
    """The chains and the proposals, by how likely a chain is to stay or to go."""
    log_weights = (chains.log_density - chains_log_prob, proposals.log_weights)
    points = (chains.position, proposals.chains.position)
    # A weight of zero does not help: zero times a gradient that is not a number is none either.
    usable = [
        jnp.where(jnp.isfinite(weight)[:, None], point, moved)
        for weight, point in zip(log_weights, points)
    ]
    return Negatives(jnp.concatenate(usable), jnp.concatenate(acceptance_weights(*log_weights)))


def _forward_kl(
    flow: PyTree, flow_static: PyTree, position: Float[Array, "n d"]
) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """-mean log q over the chains, and log q of each: one pass serves both."""
    log_prob = eqx.combine(flow, flow_static).log_prob(position)
    return -log_prob.mean(), log_prob
