"""A Gaussian mixture given some of the coordinates: what is left of it, component by component.

With P the precision of a component, m its mean, K the known and U the unknown coordinates,

    x_U | x_K  ~  N(m_U - P_UU^-1 P_UK (x_K - m_K), P_UU^-1),      weight ~ w N(x_K; m_K, S_KK)

(Bishop 2006, eq. 2.96). Which coordinates are known is data, not a shape: with the mask u of the
unknown ones, A = u u^T * P + diag(1 - u) has P_UU in its place and ones elsewhere, so that one
compilation serves every pattern of missing cells. The mixture's density at a point, less that of
what is known, is the conditional one; where a ratio is asked for, the latter falls out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from tiltflow.models.gaussian_mixture import GaussianMixture


class ConditionalMixture(NamedTuple):
    """k components in d coordinates; at the known ones, means are x and factors have zero rows.

    A draw of a component is mean + factor @ normal noise; `inverses` undo the factors on the
    unknown coordinates and are zero at the known ones. `log_weights` are normalised.
    """

    log_weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    factors: Float[Array, "k d d"]
    inverses: Float[Array, "k d d"]


def condition(
    mixture: GaussianMixture, x: Float[Array, " d"], known: Bool[Array, " d"]
) -> ConditionalMixture:
    """The mixture given x where `known`; what x holds elsewhere does not matter, nan included."""
    x = jnp.where(known, x, 0.0)
    unknown = (~known).astype(x.dtype)
    identity = jnp.eye(len(x), dtype=x.dtype)

    def component(
        whitening: Float[Array, "d d"], mean: Float[Array, " d"], log_norm: Float[Array, ""]
    ) -> tuple[Array, Array, Array, Array]:
        precision = whitening.T @ whitening
        masked = unknown[:, None] * unknown * precision + jnp.diag(1 - unknown)
        cholesky = jnp.linalg.cholesky(masked)
        pull = unknown * (precision @ jnp.where(known, x - mean, 0.0))
        centre = jnp.where(known, x, mean - cho_solve((cholesky, True), pull))
        # The component's density at the conditional mean over the conditional one there.
        gap = whitening @ (centre - mean)
        log_weight = (
            log_norm
            - 0.5 * gap @ gap
            + 0.5 * unknown.sum() * jnp.log(2 * jnp.pi)
            - jnp.log(jnp.diagonal(cholesky)).sum()
        )
        factor = unknown[:, None] * solve_triangular(cholesky, identity, trans=1, lower=True)
        return log_weight, centre, factor, unknown[:, None] * cholesky.T * unknown

    k, d = mixture.means.shape
    log_weights, means, factors, inverses = jax.vmap(component)(
        mixture.whitening.reshape(k, d, d), mixture.means, mixture.log_norms
    )
    return ConditionalMixture(jax.nn.log_softmax(log_weights), means, factors, inverses)


def draw(key: PRNGKeyArray, conditional: ConditionalMixture, draws: int) -> Float[Array, "draws d"]:
    """Points of the conditional mixture; the known coordinates are what they were."""
    component_key, noise_key = jax.random.split(key)
    component = jax.random.categorical(component_key, conditional.log_weights, shape=(draws,))
    noise = jax.random.normal(noise_key, (draws, conditional.means.shape[1]))
    steps = jnp.einsum("ndk,nk->nd", conditional.factors[component], noise)
    return conditional.means[component] + steps
