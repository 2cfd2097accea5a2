"""Flow contrastive estimation: energy and flow compete, told apart by the ratio of their densities.

    V = E_data[ log p / (p + q) ] + E_q[ log q / (p + q) ],      p = base exp(-E - log_z)

(Gao, Nijkamp, Kingma, Xu, Dai, Wu 2020.) The energy and log_z ascend V: noise contrast with the
flow q as noise (Gutmann and Hyvarinen 2010). The flow descends it by its draws, through their
place and through their density, which at p = data is the Jensen-Shannon divergence of q. Where
p = q = data, V = -log 4. All is in logarithms: log p / (p + q) = log_sigmoid(log p - log q).

All three move at every step, by one backward pass, which both sides share. (A public
re-implementation trains only one side at a time, by the classifier's accuracy; whether the
authors did was not to be found.)
"""

from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.data.errors import InputError
from tiltflow.models.energies import Energy
from tiltflow.models.flows import trainable
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.methods import Figures
from tiltflow.training.steps import flow_optimiser

Contrast = tuple[Float[Array, ""], Float[Array, ""]]


class FlowContrastiveState(NamedTuple):
    """The flow's trainable part, its optimiser, log Z of the model and the optimiser of that."""

    flow: PyTree
    optimiser: PyTree
    log_z: Float[Array, ""]
    log_z_optimiser: PyTree


@dataclass(frozen=True)
class FlowContrastive:
    """An objective with a flow: as many draws of it as rows in every step."""

    flow_learning_rate: float = 5e-4
    log_z_learning_rate: float = 1e-2

    def init(
        self, key: PRNGKeyArray, base: AbstractDistribution, flow: AbstractDistribution | None
    ) -> FlowContrastiveState:
        """Start at log Z = 0, exact for an energy that is zero; `InputError` without a flow."""
        if flow is None:
            raise InputError("flow: found None; flow contrastive estimation needs one to contrast")
        parameters, _ = trainable(flow)
        log_z = jnp.zeros(())
        return FlowContrastiveState(
            flow=parameters,
            optimiser=flow_optimiser().init(parameters),
            log_z=log_z,
            log_z_optimiser=optax.scale_by_adam().init(log_z),
        )

    def evaluations(self, batch_size: int) -> int:
        """One a row and one a draw, each in the parameters, at the draws in the point as well."""
        return 2 * batch_size

    def gradient(
        self,
        key: PRNGKeyArray,
        model: TiltedEBM,
        flow_static: PyTree,
        state: FlowContrastiveState,
        batch: Float[Array, "b d"],
        rate: Float[Array, ""],
    ) -> tuple[PyTree, FlowContrastiveState, Figures]:
        """The gradient of -V in the energy; log Z ascends V and the flow descends it.

        `rate` scales the learning rates of both.
        """

        def value(parts: tuple[Energy, Float[Array, ""], PyTree]) -> Contrast:
            energy, log_z, parameters = parts
            flow = eqx.combine(parameters, flow_static)
            return contrast(key, TiltedEBM(model.base, energy), log_z, flow, batch)

        (v, accuracy), (energy_gradient, log_z_gradient, flow_gradient) = eqx.filter_value_and_grad(
            value, has_aux=True
        )((model.energy, state.log_z, state.flow))
        updates, optimiser = flow_optimiser().update(flow_gradient, state.optimiser, state.flow)
        log_z_update, log_z_optimiser = optax.scale_by_adam().update(
            log_z_gradient, state.log_z_optimiser
        )
        new_state = FlowContrastiveState(
            flow=jax.tree.map(
                lambda p, u: p - self.flow_learning_rate * rate * u, state.flow, updates
            ),
            optimiser=optimiser,
            log_z=jax.tree.map(
                lambda p, u: p + self.log_z_learning_rate * rate * u, state.log_z, log_z_update
            ),
            log_z_optimiser=log_z_optimiser,
        )
        figures = {"value": v, "classifier_accuracy": accuracy, "log_z": new_state.log_z}
        return jax.tree.map(jnp.negative, energy_gradient), new_state, figures


def contrast(
    key: PRNGKeyArray,
    model: TiltedEBM,
    log_z: Float[Array, ""],
    flow: AbstractDistribution,
    batch: Float[Array, "b d"],
) -> Contrast:
    """V in nats, and the share of rows and draws that the ratio p / q tells rightly.

    From as many draws of the flow as there are rows; differentiable in all but the key.
    """
    draws, draws_log_prob = flow.sample_and_log_prob(key, (len(batch),))
    log_q = jnp.concatenate([flow.log_prob(batch), draws_log_prob])
    log_p = jax.vmap(model.log_density)(jnp.concatenate([batch, draws])) - log_z
    of_rows, of_draws = jnp.split(log_p - log_q, 2)
    accuracy = 0.5 * (jnp.mean(of_rows >= 0) + jnp.mean(of_draws < 0))
    return jax.nn.log_sigmoid(of_rows).mean() + jax.nn.log_sigmoid(-of_draws).mean(), accuracy
