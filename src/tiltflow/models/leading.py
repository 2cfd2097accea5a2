"""A bijection of the first coordinates; the others stay where they are.

So numbers of an image that are done at one scale wait for the others (`multiscale.py`).
"""

from typing import Any, ClassVar

import jax.numpy as jnp
from flowjax.bijections import AbstractBijection
from jaxtyping import Array

from tiltflow.data.errors import InputError


class Leading(AbstractBijection):
    """`bijection`, of shape (e,), on the first e of `dimension` coordinates."""

    shape: tuple[int, ...]
    cond_shape: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    bijection: AbstractBijection

    def __init__(self, bijection: AbstractBijection, dimension: int):
        """Of `dimension` coordinates.

        Raises:
            InputError: the bijection has more coordinates than that.
        """
        if len(bijection.shape) != 1 or bijection.shape[0] > dimension:
            raise InputError(
                f"bijection: found shape {bijection.shape}; give one of at most {dimension} numbers"
            )
        self.shape = (dimension,)
        self.bijection = bijection

    @property
    def count(self) -> int:
        """How many coordinates it moves."""
        return self.bijection.shape[0]

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Array, Array]:
        """The first ones moved, (d,), and the log-determinant, ()."""
        moved, log_det = self.bijection.transform_and_log_det(x[: self.count])
        return jnp.concatenate([moved, x[self.count :]]), log_det

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Array, Array]:
        """The first ones moved back, (d,), and the log-determinant, ()."""
        moved, log_det = self.bijection.inverse_and_log_det(y[: self.count])
        return jnp.concatenate([moved, y[self.count :]]), log_det
