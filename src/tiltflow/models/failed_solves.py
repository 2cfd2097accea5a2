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
from tiltflow.models.amortised_vector_field import AmortisedField
from tiltflow.models.batch_likelihood import bijections_of
from tiltflow.models.continuous import ContinuousFlow, Direction
from tiltflow.models.integration import Integration, draw_probes
from tiltflow.models.leading import Leading
from tiltflow.models.posteriors import ContinuousPosterior

MOST_EXACT = 64
"""Coordinates up to which the trace is exact here too: of an image it would take minutes."""


def check_solves(
    flow: AbstractTransformed, x: Float[Array, "n d"], towards: Direction = "base"
) -> None:
    """Refuse a flow that cannot carry the rows of `x` to its base, or those of its base to data.

    Raises:
        InputError: a field is not finite, or a solve ran out of steps.
    """
    numbered = list(enumerate(bijections_of(flow)))
    for i, bijection in reversed(numbered) if towards == "base" else numbered:
        continuous = bijection.bijection if isinstance(bijection, Leading) else bijection
        if not isinstance(continuous, ContinuousFlow):
            move = bijection.inverse if towards == "base" else bijection.transform
            x = jax.vmap(move)(x)
            continue
        before = x[:, : continuous.shape[0]]
        moved, reached, velocity = _carry(continuous, before, towards)
        x = jnp.concatenate([moved, x[:, before.shape[1] :]], axis=1)
        _check_solve(f"continuous flow {i + 1}", moved, reached, velocity, continuous.integration)


def check_posterior(
    posterior: ContinuousPosterior, z: Float[Array, "n d"], own: Float[Array, "n p"]
) -> None:
    """Refuse a posterior whose flows cannot carry the points of a batch, each by its `own` numbers.

    Raises:
        InputError: as `check_solves`.
    """
    for i, field in enumerate(posterior.fields_of(own)):
        moved, reached, velocity = _carry_by_own(posterior, i, field, z)
        name = f"continuous flow {i + 1} of the posterior"
        _check_solve(name, moved, reached, velocity, posterior.integration)
        z = moved


def _check_solve(
    name: str, moved: Array, reached: Array, velocity: Array, integration: Integration
) -> None:
    if bool(jnp.isfinite(moved).all()) and bool(reached):
        return
    if not bool(jnp.isfinite(velocity).all()):
        row = int(jnp.argmin(jnp.isfinite(velocity).all(axis=1)))
        raise InputError(
            f"{name}: its vector field is not finite at row {row + 1}; "
            "look for outliers in that row, lower the learning rate, or start anew"
        )
    if integration.steps is not None:
        raise InputError(
            f"{name}: {integration.steps} equal steps left the finite numbers; "
            "give more steps, or None to adapt them"
        )
    raise InputError(
        f"{name}: the solver did not arrive in {integration.max_steps} steps at tolerance "
        f"{integration.tolerance:g} ({moved.dtype}); loosen the tolerance, raise max_steps, "
        "compute in float64, or train with the kinetic-energy regulariser"
    )


@eqx.filter_jit
def _carry(
    bijection: ContinuousFlow, x: Float[Array, "n d"], towards: Direction
) -> tuple[Any, ...]:
    probes = bijection.probes
    if probes is None and bijection.probe_width > MOST_EXACT:
        probes = draw_probes(jax.random.key(0), "rademacher", 1, bijection.probe_width)
    solution = bijection.solve(x, probes, towards)
    start = jnp.exp(bijection.log_end_time) if towards == "base" else jnp.zeros(())
    velocity = jax.vmap(lambda x: bijection.field(start, x))(x)
    return solution.end.x, solution.reached, velocity


@eqx.filter_jit
def _carry_by_own(
    posterior: ContinuousPosterior, i: int, field: AmortisedField, z: Float[Array, "n d"]
) -> tuple[Any, ...]:
    solution = posterior.solve(i, field, z, jnp.eye(z.shape[1], dtype=z.dtype))
    velocity = jax.vmap(lambda field, z: field(jnp.zeros(()), z), in_axes=(field.axes, 0))(field, z)
    return solution.end.x, solution.reached, velocity
