"""Gaussian mixtures of other papers on unequal or many modes, as their authors' code states them.

    forty modes   40 equal weights, means uniform in [-40, 40]^d, variance softplus(1) = 1.313
                  (Midgley et al. 2023, in the plane; OuYang, Grenioux, Hernández-Lobato 2026, up
                  to d = 128, github h2o64/diffclf; there standardised)
    Jarzynski     unit covariance, means at -10 and +6 on the first axis, weights 1/4 and 3/4,
                  d = 50 (Carbone, Hua, Coste, Vanden-Eijnden 2023)

The forty means come from another generator than the authors', which is not JAX's.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from tiltflow.data.mixtures import GaussianMixture


def forty_modes(dimension: int, key: Key[Array, ""] | None = None) -> GaussianMixture:
    """Forty equal modes, their means drawn from `key` (seed 0 if None).

    In the plane some of them overlap; from some eight dimensions on none do.
    """
    key = jax.random.key(0) if key is None else key
    means = jax.random.uniform(key, (40, dimension), minval=-40.0, maxval=40.0)
    deviation = float(np.sqrt(np.log1p(np.e)))
    scale_trils = np.tile(deviation * np.eye(dimension), (40, 1, 1))
    return GaussianMixture(means, scale_trils, jnp.ones(40))


def jarzynski_mixture(dimension: int = 50) -> GaussianMixture:
    """Two modes 16 standard deviations apart, the first of weight 1/4."""
    means = np.zeros((2, dimension))
    means[:, 0] = -10.0, 6.0
    return GaussianMixture(means, np.tile(np.eye(dimension), (2, 1, 1)), jnp.array([1.0, 3.0]))
