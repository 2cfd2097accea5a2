"""A mixture of flows: every mode of a Gaussian mixture bent by a flow of its own.

    p(x) = sum_k w_k N(f_k(L_k^-1 (x - m_k)); 0, I) |det df_k / dx|

f_k is twice a learned linear map and an affine coupling (Dinh et al. 2017) of the second half of
the coordinates on the first. One flow for all modes would have to learn all their bends at once,
and each may lie in directions of its own, which a learned rotation finds and a permutation does not
(Kingma, Dhariwal 2018). Rotations are Cayley's (1846),

    Q = (I + S)^-1 (I - S) Q_0,      S = A - A^T,      Q_0 random and fixed,

so that their determinant is 1, their inverse is Q^T, and a covariance that EM has fitted is not
fitted once more by d^2 parameters. The mixture, m_k and L_k L_k^T, stays as it is: the start.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import paramax
from flowjax.distributions import AbstractDistribution
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.models.gaussian_mixture import GaussianMixture

LAYERS = 2
WIDTH = 64
LOG_SCALE_BOUND = 2.0


class BendingLayer(eqx.Module):
    """z = exp(a) Q x + b, then z_2 becomes z_2 exp(s(z_1)) + t(z_1): only a rotation at first."""

    first_rotation: Float[Array, "d d"]
    turn: Float[Array, "d d"]
    log_stretch: Float[Array, " d"]
    shift: Float[Array, " d"]
    network: eqx.nn.MLP

    def __init__(self, dimension: int, *, key: PRNGKeyArray):
        """In `dimension` coordinates, at least two."""
        rotation_key, network_key = jax.random.split(key)
        first = dimension // 2
        self.first_rotation = paramax.non_trainable(jax.random.orthogonal(rotation_key, dimension))
        self.turn = jnp.zeros((dimension, dimension))
        self.log_stretch = jnp.zeros(dimension)
        self.shift = jnp.zeros(dimension)
        network = eqx.nn.MLP(
            first, 2 * (dimension - first), WIDTH, 1, activation=jax.nn.silu, key=network_key
        )
        self.network = eqx.tree_at(
            lambda it: (it.layers[-1].weight, it.layers[-1].bias),
            network,
            replace_fn=jnp.zeros_like,
        )

    def forward(self, x: Float[Array, " d"]) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """The image of a point, nearer to the normal, and the log-determinant."""
        z = jnp.exp(self.log_stretch) * (self._rotation() @ x) + self.shift
        first, second = jnp.split(z, [len(z) // 2])
        log_scale, shift = self._bend(first)
        log_det = self.log_stretch.sum() + log_scale.sum()
        return jnp.concatenate([first, second * jnp.exp(log_scale) + shift]), log_det

    def inverse(self, z: Float[Array, " d"]) -> Float[Array, " d"]:
        """The point whose image is z."""
        first, second = jnp.split(z, [len(z) // 2])
        log_scale, shift = self._bend(first)
        straight = jnp.concatenate([first, (second - shift) * jnp.exp(-log_scale)])
        return self._rotation().T @ (jnp.exp(-self.log_stretch) * (straight - self.shift))

    def _rotation(self) -> Float[Array, "d d"]:
        # It depends on no point: under `vmap` it is computed once for a batch.
        skew, identity = self.turn - self.turn.T, jnp.eye(len(self.turn))
        return jnp.linalg.solve(identity + skew, identity - skew) @ self.first_rotation

    def _bend(self, first: Float[Array, " h"]) -> tuple[Float[Array, " g"], Float[Array, " g"]]:
        log_scale, shift = jnp.split(self.network(first), 2)
        return LOG_SCALE_BOUND * jnp.tanh(log_scale / LOG_SCALE_BOUND), shift


class MixtureOfFlows(AbstractDistribution):
    """The density above, of shape (d,) with d >= 2, on a mixture that is never trained.

    `log_gains` are what is learned of the weights; `layers` have a leading axis of components.
    """

    shape: tuple[int, ...]
    cond_shape: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    mixture: GaussianMixture
    log_gains: Float[Array, " k"]
    layers: tuple[BendingLayer, ...]

    def __init__(self, key: PRNGKeyArray, mixture: GaussianMixture):
        """Equal to `mixture` at first; `key` is for rotations and networks."""
        k, dimension = mixture.means.shape
        self.shape = (dimension,)
        self.mixture = paramax.non_trainable(mixture)
        self.log_gains = jnp.zeros(k)
        self.layers = tuple(
            eqx.filter_vmap(lambda each: BendingLayer(dimension, key=each))(
                jax.random.split(layer_key, k)
            )
            for layer_key in jax.random.split(key, LAYERS)
        )

    def _log_prob(self, x: Any, condition: Any = None) -> Array:
        mixture = self.mixture
        z = (mixture.whitening @ x).reshape(mixture.means.shape) - mixture.whitened_means
        log_det = jnp.zeros_like(self.log_gains)
        for layer in self.layers:
            z, each = eqx.filter_vmap(BendingLayer.forward)(layer, z)
            log_det = log_det + each
        # The mixture's `log_norms` hold its own weights.
        log_gains = self.log_gains - logsumexp(self.log_gains + mixture.log_weights)
        return logsumexp(mixture.log_norms + log_gains + log_det - 0.5 * (z * z).sum(axis=1))

    def _sample(self, key: Any, condition: Any = None) -> Array:
        component_key, noise_key = jax.random.split(key)
        return self.sample_at(jax.random.uniform(component_key), noise_key)

    def sample_at(self, uniform: Float[Array, ""], key: PRNGKeyArray) -> Float[Array, " d"]:
        """A draw of the component where the weights' running sum passes `uniform`."""
        mixture = self.mixture
        cumulative = jnp.cumsum(jax.nn.softmax(mixture.log_weights + self.log_gains))
        component = jnp.sum(uniform >= cumulative[:-1])
        # All components at once, as in `GaussianMixture`: gathering matrices is dearer.
        z = jnp.broadcast_to(jax.random.normal(key, self.shape), mixture.means.shape)
        for layer in reversed(self.layers):
            z = eqx.filter_vmap(BendingLayer.inverse)(layer, z)
        return mixture.means[component] + (mixture.scale_trils @ z[:, :, None])[component, :, 0]
