"""Random directions for slices of a score, orthogonal to each other at every row.

Each is uniform on the sphere of radius sqrt(d), so that E[v v^T] = I, and v . J v is the trace of J
on average. As many as there are coordinates add up to d times the trace, whatever they are: their
mean is exact. (Orthogonal directions: Choromanski et al. 2018.)
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError


def orthogonal_directions(
    key: PRNGKeyArray, slices: int, rows: Float[Array, "n d"]
) -> Float[Array, "slices n d"]:
    """`slices` directions for each of `rows`.

    Raises:
        InputError: there are more directions than coordinates.
    """
    count, dimension = rows.shape
    if slices > dimension:
        raise InputError(
            f"slices: found {slices} for rows of {dimension} coordinates; {dimension} are exact"
        )
    draws = jax.random.normal(key, (count, dimension, slices), rows.dtype)
    if slices == 1:
        draws = draws / jnp.linalg.norm(draws, axis=1, keepdims=True)
    else:
        draws = jnp.linalg.qr(draws)[0]
    return math.sqrt(dimension) * jnp.moveaxis(draws, 2, 0)
