"""Why a continuous flow could not be integrated, told on the host as one line with the remedy.

Within compiled code a failed solve is NaN, so that a step is skipped or a proposal refused; here
the solve is done once more, flow by flow, and the first that fails is named.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractTransformed
from jaxtyping import Array, Float

from tiltflow.data.errors import InputError
from tiltflow.models.batch_likelihood import bijections_of
from tiltflow.models.continuous import ContinuousFlow
from tiltflow.models.integration import draw_probes
from tiltflow.models.leading import Leading

MOST_EXACT = 64
"""Coordinates up to which the trace is exact here too: of an image it would take minutes."""


def check_solves(flow: AbstractTransformed, x: Float[Array, "n d"]) -> None:
    """Refuse a flow that cannot carry the rows of `x` to its base.

    Raises:
        InputError: a field is not finite, or a solve ran out of steps.
    """
    for i, bijection in reversed(list(enumerate(bijections_of(flow)))):
        continuous = bijection.bijection if isinstance(bijection, Leading) else bijection
        if not isinstance(continuous, ContinuousFlow):
            x = jax.vmap(bijection.inverse_and_log_det)(x)[0]
            continue
        bijection, whole = continuous, x
        before = x[:, : continuous.shape[0]]
        moved, successful, velocity = _carry(bijection, before)
        x = jnp.concatenate([moved, whole[:, before.shape[1] :]], axis=1)
        if bool(jnp.isfinite(moved).all()) and bool(successful):
            continue
        name = f"continuous flow {i + 1}"
        if not bool(jnp.isfinite(velocity).all()):
            row = int(jnp.argmin(jnp.isfinite(velocity).all(axis=1)))
            raise InputError(
                f"{name}: its vector field is not finite at row {row + 1}; "
                "look for outliers in that row, lower the learning rate, or start anew"
            )
        integration = bijection.integration
        if integration.steps is not None:
            raise InputError(
                f"{name}: {integration.steps} equal steps left the finite numbers; "
                "give more steps, or None to adapt them"
            )
        raise InputError(
            f"{name}: the solver did not arrive in {integration.max_steps} steps at tolerance "
            f"{integration.tolerance:g} ({before.dtype}); loosen the tolerance, raise max_steps, "
            "compute in float64, or train with the kinetic-energy regulariser"
        )


@eqx.filter_jit
def _carry(bijection: ContinuousFlow, x: Float[Array, "n d"]) -> tuple[Any, ...]:
    probes = bijection.probes
    if probes is None and bijection.probe_width > MOST_EXACT:
        probes = draw_probes(jax.random.key(0), "rademacher", 1, bijection.probe_width)
    solution = bijection.solve(x, probes, "base")
    velocity = jax.vmap(lambda x: bijection.field(jnp.exp(bijection.log_end_time), x))(x)
    return solution.end.x, solution.reached, velocity
