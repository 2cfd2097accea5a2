"""A log-density in shifted and scaled coordinates, in which every width is about one.

    x = centre + scale z,     log p_z(z) = log p_x(centre + scale z) + sum_j log scale_j

The normaliser is the same in both.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Rescaled(eqx.Module):
    """`log_density` as a function of z; the coordinates are arrays, so new ones cost no compile."""

    log_density: Callable[[Float[Array, " d"]], Float[Array, ""]]
    centre: Float[Array, " d"]
    scale: Float[Array, " d"]

    def __call__(self, z: Float[Array, " d"]) -> Float[Array, ""]:
        """The log-density of one point z."""
        return self.log_density(self.to_user(z)) + jnp.sum(jnp.log(self.scale))

    def to_user(self, z: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Points in the user's coordinates."""
        return self.centre + self.scale * z

    def rows_to_user(self, z: Any) -> np.ndarray:
        """The same, (n, d), on the host, where many rows need no compilation."""
        return np.asarray(self.centre) + np.asarray(self.scale) * np.asarray(z)

    def rows_from_user(self, x: Any) -> np.ndarray:
        """Rows, (n, d), in these coordinates, on the host, in float64."""
        centre, scale = (np.asarray(each, float) for each in (self.centre, self.scale))
        return (np.asarray(x, float) - centre) / scale

    def refined(self, mean: Float[Array, " d"], deviation: Float[Array, " d"]) -> "Rescaled":
        """The coordinates in which points with this mean and deviation in z become standard."""
        return Rescaled(self.log_density, self.to_user(mean), self.scale * deviation)
