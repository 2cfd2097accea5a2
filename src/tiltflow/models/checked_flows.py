"""Draws and log-densities of a flow on the host: what is not finite is an error with its reason.

Within compiled code a continuous flow whose solve fails gives NaN, and flowjax's `log_prob` makes
-inf of it; `sample` gives rows of NaN. What comes from here is finite.
"""

from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from flowjax.distributions import AbstractDistribution, AbstractTransformed
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.data.settings import whole_number
from tiltflow.models.continuous import Direction, continuous_flows
from tiltflow.models.energy_flow import EnergyFlow, check_invertible
from tiltflow.models.failed_solves import check_solves

ROWS_AT_ONCE = 4096


def draw(flow: AbstractDistribution, key: PRNGKeyArray, n: int) -> Float[np.ndarray, "n d"]:
    """Independent draws of a flow of shape (d,).

    Raises:
        InputError: `n` is not positive, or a draw is not finite: a solver ran out of steps, a
            vector field or a layer is not finite or singular; and what to do.
    """
    starts, rows = _draw(flow, key, whole_number("n", n))
    rows = np.asarray(rows)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        _explain(flow, starts, int(bad[0]), "draw", "data")
    return rows


def log_prob_of_rows(
    flow: AbstractDistribution, rows: Float[np.ndarray, "n d"] | Float[Array, "n d"]
) -> Float[np.ndarray, " n"]:
    """Log-densities in nats, of a continuous flow with step sizes of each row's own.

    Raises:
        InputError: the rows have another width than the flow, or are not finite; or a log-density
            is not: a solver ran out of steps, a vector field or a layer is not finite or singular,
            or the row is too far out; and what to do.
    """
    if rows.ndim != 2 or rows.shape[1:] != flow.shape:
        raise InputError(f"rows: found shape {rows.shape} for a flow of shape {flow.shape}")
    bad = np.flatnonzero(~np.isfinite(np.asarray(rows)).all(axis=1))
    if len(bad):
        raise InputError(f"rows: row {bad[0] + 1} is not finite; mend it, or leave it out")
    x = jnp.asarray(rows, float)
    values = np.asarray(log_prob_in_parts(flow, x), float)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        _explain(flow, x, int(bad[0]), "row", "base")
    return values


def _explain(
    flow: AbstractDistribution, x: Float[Array, "n d"], i: int, what: str, towards: Direction
) -> NoReturn:
    """Raise the reason why the i-th of `x` did not arrive."""
    if isinstance(flow, EnergyFlow):
        check_invertible(flow)
    if isinstance(flow, AbstractTransformed) and continuous_flows(flow):
        try:
            check_solves(flow, x[i : i + 1], towards)
        except InputError as error:
            raise InputError(f"{what} {i + 1}: {error}") from error
    raise InputError(
        f"{what} {i + 1}: the flow is not finite there; look for an outlier in the rows that it "
        "was fitted to, lower the learning rate, or start anew"
    )


@eqx.filter_jit
def _draw(flow: Any, key: PRNGKeyArray, n: int) -> tuple[Array, Array]:
    """What was carried to the draws, where the flow says what, and the draws."""
    if not isinstance(flow, AbstractTransformed):
        rows = flow.sample(key, (n,))
        return rows, rows
    starts = flow.base_dist.sample(key, (n,))
    bijection = paramax.unwrap(flow.bijection)
    return starts, jax.lax.map(bijection.transform, starts, batch_size=ROWS_AT_ONCE)


@eqx.filter_jit
def log_prob_in_parts(flow: Any, x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Log-densities as they are, finite or not, in nats; in parts, so that memory stays bounded."""
    return jax.lax.map(flow.log_prob, x, batch_size=ROWS_AT_ONCE)
