"""Coupling and autoregressive flows, by flowjax, on a standard normal or on a Gaussian mixture.

Layers: rational-quadratic splines (Durkan et al. 2019) in low dimension, affine couplings with
bounded log-scales (Dinh et al. 2017) above. Every coupling flow starts as the identity, so that it
starts at the density it stands on.

An autoregressive flow (Papamakarios et al. 2017) lets a coordinate depend on all before it, in one
pass for a density and in d passes for a draw: it is for densities alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from flowjax.bijections import (
    AbstractBijection,
    Affine,
    Chain,
    Coupling,
    Permute,
)
from flowjax.distributions import AbstractDistribution, Transformed
from flowjax.flows import coupling_flow as flowjax_coupling_flow
from flowjax.flows import masked_autoregressive_flow
from flowjax.utils import get_ravelled_pytree_constructor
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.models.coupling_order import conditioning_orders, permutations
from tiltflow.models.spline import RationalQuadraticSpline

SPLINE_MAX_DIMENSION = 8
"""Splines cost 1.7 times an affine coupling at d = 2, 5.7 times at 16 (docs/decisions.md)."""

LOG_SCALE_BOUND = 5.0
"""Of one coupling: room for widths that change by orders of magnitude, as in a funnel."""


def coupling_flow(
    key: PRNGKeyArray,
    base_dist: AbstractDistribution,
    *,
    layers: int | None = None,
    width: int | None = None,
    depth: int = 1,
    transformer: Literal["auto", "spline", "affine"] = "auto",
    activation: Callable[[Array], Array] = jax.nn.relu,
) -> Transformed:
    """A coupling flow on `base_dist`, of shape (d,) with d >= 2, equal to `base_dist` at first.

    By default four layers of width 32 in the plane, and six of width 64 above. With a bounded
    `activation`, as `bounded_relu`, an outlier is not stretched further than the rows about it.
    """
    (dimension,) = base_dist.shape
    default_layers, default_width = (4, 32) if dimension == 2 else (6, 64)
    kind = _transformer(transformer, dimension)
    flow = flowjax_coupling_flow(
        key,
        base_dist=base_dist,
        transformer=kind.template(),
        flow_layers=layers or default_layers,
        nn_width=width or default_width,
        nn_depth=depth,
        nn_activation=activation,
        invert=True,
    )
    flow = _in_order(flow, layers or default_layers)
    return _start_at_identity(eqx.tree_at(_constructors, flow, replace_fn=lambda _: kind))


def bounded_relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """2 tanh(max(x, 0) / 2): a ReLU at a row, and flat where no row was."""
    return 2.0 * jnp.tanh(jax.nn.relu(x) / 2.0)


def autoregressive_flow(
    key: PRNGKeyArray,
    base_dist: AbstractDistribution,
    *,
    layers: int = 5,
    width: int = 128,
    depth: int = 2,
    transformer: Literal["auto", "spline", "affine"] = "auto",
) -> Transformed:
    """A masked autoregressive flow on `base_dist`, of shape (d,) with d >= 2, by tanh."""
    return masked_autoregressive_flow(
        key,
        base_dist=base_dist,
        transformer=_transformer(transformer, base_dist.shape[0]).template(),
        flow_layers=layers,
        nn_width=width,
        nn_depth=depth,
        nn_activation=jnp.tanh,
        invert=True,
    )


def affine_coupling(key: PRNGKeyArray, dimension: int, *, width: int) -> Coupling:
    """One affine coupling of the second half of `dimension` coordinates; the identity at first.

    Its network is smooth, for losses of scores take its second derivatives, and flat far out, where
    ten layers that grow each would leave scores of 1e12.
    """
    kind = _Transformer("affine")
    coupling = Coupling(
        key,
        transformer=kind.template(),
        untransformed_dim=dimension // 2,
        dim=dimension,
        nn_width=width,
        nn_depth=1,
        nn_activation=jnp.tanh,
    )
    coupling = eqx.tree_at(
        lambda it: (it.conditioner.layers[-1].weight, it.conditioner.layers[-1].bias),
        coupling,
        replace_fn=jnp.zeros_like,
    )
    return eqx.tree_at(lambda it: it.transformer_constructor, coupling, kind)


@dataclass(frozen=True)
class _Transformer:
    """The bijection of one coordinate, made from a flat vector of parameters.

    flowjax keeps a new closure in every layer in its place; two flows of one structure would then
    be unequal to JAX, and everything that takes one would compile anew for the other.
    """

    kind: Literal["spline", "affine"]

    def template(self) -> AbstractBijection:
        """The bijection at parameters zero: the identity."""
        if self.kind == "spline":
            return RationalQuadraticSpline(bins=8, interval=6.0)
        scale = paramax.Parameterize(_bounded_scale, jnp.zeros(()))
        return eqx.tree_at(lambda affine: affine.scale, Affine(), scale)

    def __call__(self, parameters: Float[Array, " p"]) -> AbstractBijection:
        constructor, _ = get_ravelled_pytree_constructor(
            self.template(),
            filter_spec=eqx.is_inexact_array,
            is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable),
        )
        return constructor(parameters)


def _transformer(kind: Literal["auto", "spline", "affine"], dimension: int) -> _Transformer:
    if kind == "auto":
        kind = "spline" if dimension <= SPLINE_MAX_DIMENSION else "affine"
    return _Transformer(kind)


def _constructors(flow: Transformed) -> list[Any]:
    nodes = jax.tree.leaves(flow.bijection, is_leaf=lambda n: isinstance(n, Coupling))
    return [node.transformer_constructor for node in nodes if isinstance(node, Coupling)]


def _in_order(flow: Transformed, layers: int) -> Transformed:
    """The flow with halves that are chosen (`coupling_order.py`), where flowjax draws them.

    In the plane there is nothing to choose: layers take turns.
    """

    def permutes(dist: Transformed) -> list[Any]:
        nodes = jax.tree.leaves(dist.bijection, is_leaf=lambda node: isinstance(node, Permute))
        return [node for node in nodes if isinstance(node, Permute)]

    if not permutes(flow):
        return flow
    forward = permutations(conditioning_orders(flow.shape[0], layers))
    both = [(jnp.asarray(each),) for each in (forward, np.argsort(forward, axis=1))]
    return eqx.tree_at(
        lambda dist: [
            part for node in permutes(dist) for part in (node.permutation, node.inverse_permutation)
        ],
        flow,
        both,
    )


def _bounded_scale(raw: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.exp(LOG_SCALE_BOUND * jnp.tanh(raw / LOG_SCALE_BOUND))


def _start_at_identity(flow: Transformed) -> Transformed:
    """Zero the last layer of every conditioner, and undo the product of the permutations."""

    def last_layers(dist: Transformed) -> list[Any]:
        nodes = jax.tree.leaves(dist.bijection, is_leaf=lambda n: isinstance(n, eqx.nn.MLP))
        last = [node.layers[-1] for node in nodes if isinstance(node, eqx.nn.MLP)]
        return [array for layer in last for array in (layer.weight, layer.bias)]

    flow = eqx.tree_at(last_layers, flow, [jnp.zeros_like(array) for array in last_layers(flow)])
    # What is left is the permutation x = z[order]: read it off the integers.
    (dimension,) = flow.shape
    order = flow.bijection.transform(jnp.arange(dimension) * 1.0)
    restore = Permute(jnp.argsort(order.round().astype(int)))
    return Transformed(flow.base_dist, Chain([flow.bijection, restore]))


def trainable(tree: PyTree) -> tuple[PyTree, PyTree]:
    """Split into what gradient steps may change and what they may not (`eqx.combine` joins).

    Anything wrapped by `paramax.NonTrainable` stays out, and so do integers and functions.
    """
    return eqx.partition(
        tree, eqx.is_inexact_array, is_leaf=lambda node: isinstance(node, paramax.NonTrainable)
    )
