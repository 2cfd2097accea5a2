"""A flow whose log-density splits into an energy and a constant, so that it trains as an EBM.

    log p(x) = log p_u(g(x)) + sum over layers of log|det J_i| = -E(x) - log Z,

    E(x)  = -log p_u(g(x)) - sum over the layers whose determinant depends on x,
    log Z = -sum over the linear layers of log|det W_i|

(EBFlow: Chao, Sun, Hsu, Kira, Lee 2023.) log Z is a constant in x: a loss that takes derivatives of
log p in x, or compares energies, trains the linear layers without one determinant, d^2 instead of
d^3. g goes from points to the base density, x to u; draws go through its layers backwards. There is
one base density, in the energy, in the likelihood and in the draws.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.bijections import AbstractBijection
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray
from paramax import unwrap

from tiltflow.data.errors import InputError
from tiltflow.models.linear_layers import ActNorm, FullLinear, LinearLayer

LARGEST_RESIDUAL = 1e-2
"""|W W^-1 u - u| / |u| above which a layer counts as singular: its inverse has no digits left."""


class EnergyFlow(AbstractDistribution):
    """The density above: a flowjax distribution of shape (d,), with its two parts.

    `energy`, `log_density` and `log_normalizer` are of one point; `log_prob` and `sample` are
    flowjax's.
    """

    shape: tuple[int, ...]
    cond_shape: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    base_dist: AbstractDistribution
    layers: tuple[AbstractBijection, ...]

    def __init__(self, base_dist: AbstractDistribution, layers: Sequence[AbstractBijection]):
        """`layers` from x to u, the first one nearest to x.

        Raises:
            InputError: a layer has another shape than the base, or there is no layer.
        """
        if not layers:
            raise InputError("layers: found none; give at least one, say FullLinear(d, key=key)")
        for i, layer in enumerate(layers):
            if layer.shape != base_dist.shape:
                raise InputError(
                    f"layers: layer {i} has shape {layer.shape}, the base {base_dist.shape}; "
                    "give all one shape"
                )
        self.shape = base_dist.shape
        self.base_dist = base_dist
        self.layers = tuple(layers)

    def energy(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """E(x), in nats, with no determinant of a linear layer."""
        flow = unwrap(self)
        log_det = jnp.zeros((), x.dtype)
        for layer in flow.layers:
            if isinstance(layer, LinearLayer):
                x = layer.transform(x)
            else:
                x, each = layer.transform_and_log_det(x)
                log_det = log_det + each
        return -flow.base_dist._log_prob(x) - log_det

    def log_density(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """-E(x): the log-density up to log Z."""
        return -self.energy(x)

    def log_normalizer(self) -> Float[Array, ""]:
        """Log Z, in nats; +inf where a linear layer is singular."""
        linear = [layer for layer in unwrap(self).layers if isinstance(layer, LinearLayer)]
        return -sum((layer.log_abs_det() for layer in linear), start=jnp.zeros(()))

    def _log_prob(self, x: Any, condition: Any = None) -> Array:
        return -self.energy(x) - self.log_normalizer()

    def _sample(self, key: Any, condition: Any = None) -> Array:
        x = self.base_dist._sample(key)
        for layer in reversed(self.layers):
            x = layer.inverse(x)
        return x

    def _sample_and_log_prob(self, key: Any, condition: Any = None) -> tuple[Array, Array]:
        x, log_prob = self.base_dist._sample_and_log_prob(key)
        for layer in reversed(self.layers):
            x, log_det = layer.inverse_and_log_det(x)
            log_prob = log_prob - log_det
        return x, log_prob


@eqx.filter_jit
def normalise_activations(flow: EnergyFlow, x: Float[Array, "n d"]) -> EnergyFlow:
    """The flow whose `ActNorm` layers see mean 0 and standard deviation 1 on the rows of `x`.

    (Kingma, Dhariwal 2018.) One pass, before training.
    """
    layers = []
    for layer in flow.layers:
        if isinstance(layer, ActNorm):
            layer = layer.normalising(x)
        layers.append(layer)
        x = jax.vmap(layer.transform)(x)
    return eqx.tree_at(lambda it: it.layers, flow, tuple(layers))


def check_invertible(flow: EnergyFlow) -> None:
    """Every linear layer there and back at one point, on the host: not inside of `jit`.

    Raises:
        InputError: a layer is singular, or so nearly that float arithmetic cannot invert it.
    """
    for i, residual in enumerate(_residuals(unwrap(flow), jax.random.key(0))):
        if not residual <= LARGEST_RESIDUAL:
            raise InputError(
                f"layers: layer {i}, {type(flow.layers[i]).__name__}, is singular (its inverse is "
                f"off by {float(residual):.2g}), so the flow has no density and no draws; start it "
                f"anew with a smaller learning rate{_remedy(flow.layers[i])}"
            )


def _remedy(layer: AbstractBijection) -> str:
    if isinstance(layer, FullLinear):
        return ", or take an LULinear layer, whose matrix has an inverse at any parameters"
    return ""


@eqx.filter_jit
def _residuals(flow: EnergyFlow, key: PRNGKeyArray) -> list[Float[Array, ""]]:
    u = jax.random.normal(key, flow.shape)
    residuals = []
    for layer in flow.layers:
        gap = layer.transform(layer.inverse(u)) - u if isinstance(layer, LinearLayer) else 0 * u
        residuals.append(jnp.linalg.norm(gap) / jnp.linalg.norm(u))
    return residuals
