"""Linear layers of a flow: y = W x + b, with a determinant that is the same at every point.

`transform` and `inverse` never compute it; `log_abs_det` gives log|det W|, in nats. What W costs
in d dimensions, per batch:

    layer               W                                               log|det W|
    FullLinear          any matrix                                      d^3
    TriangularLinear    triangular, diagonal exp(s)                     d
    LULinear            P L (U + diag(+-exp(s))), P fixed               d
                        (Kingma, Dhariwal 2018)
    ActNorm             diag(exp(s))                                    d

Every point is one flat vector of shape (d,). Of these only `FullLinear` can become singular.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.bijections import AbstractBijection
from jax.scipy.linalg import lu, solve_triangular
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tiltflow.data.errors import InputError


class LinearLayer(AbstractBijection):
    """A linear bijection of flat vectors; subclasses say how, and what its determinant is."""

    shape: eqx.AbstractVar[tuple[int, ...]]
    cond_shape: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]

    @abstractmethod
    def transform(self, x: Any, condition: Any = None) -> Array:
        """W x + b, without the determinant: (d,)."""

    @abstractmethod
    def inverse(self, y: Any, condition: Any = None) -> Array:
        """W^-1 (y - b): (d,)."""

    @abstractmethod
    def log_abs_det(self) -> Float[Array, ""]:
        """Log|det W|, in nats; -inf where W is singular."""

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Array, Array]:
        """Both, as flowjax asks for them."""
        return self.transform(x), self.log_abs_det()

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Array, Array]:
        """The inverse and log|det W^-1|."""
        return self.inverse(y), -self.log_abs_det()


class FullLinear(LinearLayer):
    """Any matrix; a random rotation at first (or its mirror image)."""

    shape: tuple[int, ...]
    weight: Float[Array, "d d"]
    bias: Float[Array, " d"]

    def __init__(self, dimension: int, *, key: PRNGKeyArray):
        """In `dimension` coordinates."""
        self.shape = (dimension,)
        self.weight = jax.random.orthogonal(key, dimension)
        self.bias = jnp.zeros(dimension)

    def transform(self, x: Any, condition: Any = None) -> Array:
        """W x + b."""
        return self.weight @ x + self.bias

    def inverse(self, y: Any, condition: Any = None) -> Array:
        """By one factorisation of W for a whole batch (JAX does not repeat it under `vmap`)."""
        return jnp.linalg.solve(self.weight, y - self.bias)

    def log_abs_det(self) -> Array:
        """By LU."""
        return jnp.linalg.slogdet(self.weight)[1]


class TriangularLinear(LinearLayer):
    """A triangular matrix with positive diagonal; the identity at first."""

    shape: tuple[int, ...]
    weight: Float[Array, "d d"]
    log_diagonal: Float[Array, " d"]
    bias: Float[Array, " d"]
    lower: bool = eqx.field(static=True)

    def __init__(self, dimension: int, *, lower: bool):
        """Lower or upper triangular, in `dimension` coordinates."""
        self.shape = (dimension,)
        self.weight = jnp.zeros((dimension, dimension))
        self.log_diagonal = jnp.zeros(dimension)
        self.bias = jnp.zeros(dimension)
        self.lower = lower

    def transform(self, x: Any, condition: Any = None) -> Array:
        """W x + b."""
        return self._matrix() @ x + self.bias

    def inverse(self, y: Any, condition: Any = None) -> Array:
        """By substitution."""
        return solve_triangular(self._matrix(), y - self.bias, lower=self.lower)

    def log_abs_det(self) -> Array:
        """The sum of s."""
        return self.log_diagonal.sum()

    def _matrix(self) -> Float[Array, "d d"]:
        off = jnp.tril(self.weight, -1) if self.lower else jnp.triu(self.weight, 1)
        return off + jnp.diag(jnp.exp(self.log_diagonal))


class LULinear(LinearLayer):
    """P L (U + diag(+-exp(s))): P and the signs are those of a random rotation, its start."""

    shape: tuple[int, ...]
    order: Int[Array, " d"]
    signs: Int[Array, " d"]
    lower: Float[Array, "d d"]
    upper: Float[Array, "d d"]
    log_diagonal: Float[Array, " d"]
    bias: Float[Array, " d"]

    def __init__(self, dimension: int, *, key: PRNGKeyArray):
        """In `dimension` coordinates."""
        self.shape = (dimension,)
        permutation, self.lower, self.upper = lu(jax.random.orthogonal(key, dimension))
        diagonal = jnp.diag(self.upper)
        self.order = permutation.argmax(axis=1)
        # Whole numbers, for they are never trained.
        self.signs = jnp.sign(diagonal).astype(int)
        self.log_diagonal = jnp.log(jnp.abs(diagonal))
        self.bias = jnp.zeros(dimension)

    def transform(self, x: Any, condition: Any = None) -> Array:
        """P (L (U x)) + b."""
        lower, upper = self._factors()
        return (lower @ (upper @ x))[self.order] + self.bias

    def inverse(self, y: Any, condition: Any = None) -> Array:
        """By two substitutions."""
        lower, upper = self._factors()
        z = (y - self.bias)[jnp.argsort(self.order)]
        z = solve_triangular(lower, z, lower=True, unit_diagonal=True)
        return solve_triangular(upper, z)

    def log_abs_det(self) -> Array:
        """The sum of s."""
        return self.log_diagonal.sum()

    def _factors(self) -> tuple[Float[Array, "d d"], Float[Array, "d d"]]:
        diagonal = self.signs * jnp.exp(self.log_diagonal)
        lower = jnp.tril(self.lower, -1) + jnp.eye(*self.shape, dtype=self.lower.dtype)
        return lower, jnp.triu(self.upper, 1) + jnp.diag(diagonal)


class ActNorm(LinearLayer):
    """A scale and a shift for every coordinate; `normalising` sets them by a batch."""

    shape: tuple[int, ...]
    log_scale: Float[Array, " d"]
    bias: Float[Array, " d"]

    def __init__(self, dimension: int):
        """The identity of `dimension` coordinates."""
        self.shape = (dimension,)
        self.log_scale = jnp.zeros(dimension)
        self.bias = jnp.zeros(dimension)

    def transform(self, x: Any, condition: Any = None) -> Array:
        """exp(s) x + b."""
        return jnp.exp(self.log_scale) * x + self.bias

    def inverse(self, y: Any, condition: Any = None) -> Array:
        """exp(-s) (y - b)."""
        return jnp.exp(-self.log_scale) * (y - self.bias)

    def log_abs_det(self) -> Array:
        """The sum of s."""
        return self.log_scale.sum()

    def normalising(self, x: Float[Array, "n d"]) -> "ActNorm":
        """The same layer that gives the rows of `x` mean 0 and standard deviation 1.

        A coordinate that is constant in `x` is only shifted.
        """
        deviation = x.std(axis=0)
        log_scale = jnp.where(
            deviation > 0, -jnp.log(jnp.where(deviation > 0, deviation, 1.0)), 0.0
        )
        bias = -jnp.exp(log_scale) * x.mean(axis=0)
        return eqx.tree_at(lambda it: (it.log_scale, it.bias), self, (log_scale, bias))


def linear_layer(kind: str, dimension: int, *, key: PRNGKeyArray) -> LinearLayer:
    """A dense layer: `kind` is full, lower, upper (triangular) or lu.

    Raises:
        InputError: there is no such kind.
    """
    match kind:
        case "full":
            return FullLinear(dimension, key=key)
        case "lu":
            return LULinear(dimension, key=key)
        case "lower" | "upper":
            return TriangularLinear(dimension, lower=kind == "lower")
        case _:
            raise InputError(f"linear: '{kind}' is not known; use full, lower, upper or lu")
