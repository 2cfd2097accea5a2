"""Flow matching (Lipman et al. 2023): training a continuous flow without integrating it.

    loss = E |T f(T s, z + s (x - z)) - (x - z)|^2,     z ~ base, x ~ data, s ~ U(0, 1)

on straight lines from the base to the data: its minimiser is the field whose flow takes the one
to the other. A step is one call of the field, at the price that what is minimised is no
likelihood; held-out rows are judged by the exact log-likelihood all the same.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractTransformed
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.models.batch_likelihood import batch_likelihood, bijections_of
from tiltflow.models.continuous import ContinuousFlow
from tiltflow.models.failed_solves import check_solves


@dataclass(frozen=True)
class FlowMatching:
    """The loss above, for `fit_flow(..., objective=FlowMatching())`.

    Raises (when it is used):
        InputError: the flow is not one continuous flow on its base.
    """

    def loss(
        self, key: PRNGKeyArray, flow: Any, batch: Float[Array, "b d"]
    ) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        """Of one batch, with a base draw and a time of its own for every row."""
        continuous = _the_flow(flow)
        base_key, time_key = jax.random.split(key)
        z = jax.lax.stop_gradient(flow.base_dist.sample(base_key, (len(batch),)))
        s = jax.random.uniform(time_key, (len(batch), 1), batch.dtype)
        end_time = jnp.exp(continuous.log_end_time)
        velocity = jax.vmap(continuous.field)(end_time * s[:, 0], z + s * (batch - z))
        loss = ((end_time * velocity - (batch - z)) ** 2).sum(axis=1).mean()
        return loss, (flow, {"flow_matching_loss": loss})

    def score(self, flow: Any, x: Float[Array, "n d"]) -> Array:
        """The mean log-likelihood by the exact trace, ()."""
        return batch_likelihood(flow, x).log_prob.mean()

    def diagnose(self, flow: Any, x: Float[Array, "n d"]) -> None:
        """Integrate the rows and say what failed, by an `InputError`."""
        check_solves(flow, x)


def _the_flow(flow: AbstractTransformed) -> ContinuousFlow:
    bijections = bijections_of(flow)
    if len(bijections) != 1 or not isinstance(bijections[0], ContinuousFlow):
        names = ", ".join(type(each).__name__ for each in bijections)
        raise InputError(
            f"flow: flow matching trains one continuous flow on its base, found {names}; "
            "give continuous_flow(..., flows=1) without batch norm"
        )
    return bijections[0]
