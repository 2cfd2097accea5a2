"""Vector fields of which every point has its own, by a change of low rank (Grathwohl et al. 2019).

    layer(t, z) = ((W + U V^T) z + b + c) * sigmoid(a t + g) + e t

W, b, a, g and e are shared; U (o, r), V (i, r) and c (o,) are a point's own, say from an encoder:
r (i + o) + o numbers a layer in place of i o. The matrix is never formed: W z is one product for
all points, and U (V^T z) is cheap.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import Array, Float

from tiltflow.data.errors import InputError
from tiltflow.models.vector_fields import ConcatSquashField


class Change(NamedTuple):
    """What is a point's own in one layer: U, V and c."""

    left: Float[Array, "*n o r"]
    right: Float[Array, "*n i r"]
    bias: Float[Array, "*n o"]


class AmortisedField(eqx.Module):
    """The field above at one point, or a batch of them by `jax.vmap` with `axes`."""

    shared: ConcatSquashField
    changes: tuple[Change, ...]
    dimension: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(self, shared: ConcatSquashField, changes: tuple[Change, ...]):
        """`shared` changed by one `Change` a layer."""
        self.shared = shared
        self.changes = changes
        self.dimension, self.width = shared.dimension, shared.width

    @property
    def axes(self) -> Any:
        """Where a batch of fields has its points: in the changes alone."""
        return eqx.tree_at(
            lambda it: (it.shared, it.changes), self, (None, 0), is_leaf=lambda it: it is None
        )

    def enter(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " w"]:
        """The first layer, before its activation."""
        return self._layer(0, t, x)

    def leave(self, t: Float[Array, ""], hidden: Float[Array, " w"]) -> Float[Array, " d"]:
        """The other layers: the velocity."""
        for i in range(1, len(self.changes)):
            hidden = self._layer(i, t, self.shared.activation(hidden))
        return hidden

    def __call__(self, t: Float[Array, ""], x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The velocity of a point."""
        return self.leave(t, self.enter(t, x))

    def _layer(self, i: int, t: Float[Array, ""], x: Float[Array, " i"]) -> Float[Array, " o"]:
        layer, change = self.shared.layers[i], self.changes[i]
        own = change.left @ (change.right.T @ x) + change.bias
        return layer.squash(t, layer.linear(x) + own)


def numbers_of_changes(field: ConcatSquashField, rank: int) -> int:
    """How many numbers a point's own changes are.

    Raises:
        InputError: `rank` is not positive.
    """
    if rank < 1:
        raise InputError(f"rank: found {rank}; give at least one")
    return sum(rank * (i + o) + o for i, o in _sizes(field))


def changes_of(
    flat: Float[Array, "*n p"], field: ConcatSquashField, rank: int
) -> tuple[Change, ...]:
    """The changes of every layer, cut from flat numbers (p = `numbers_of_changes`)."""
    changes, start = [], 0
    leading = flat.shape[:-1]

    def take(*shape: int) -> Array:
        nonlocal start
        size = math.prod(shape)
        part = flat[..., start : start + size].reshape(*leading, *shape)
        start += size
        return part

    for i, o in _sizes(field):
        changes.append(Change(take(o, rank), take(i, rank), take(o)))
    return tuple(changes)


def _sizes(field: ConcatSquashField) -> list[tuple[int, int]]:
    """Inputs and outputs of every layer."""
    shapes = [layer.linear.weight.shape for layer in field.layers]
    return [(inputs, outputs) for outputs, inputs in shapes]
