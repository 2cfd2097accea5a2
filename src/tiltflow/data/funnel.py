"""Neal's funnel: one coordinate sets the width of all the others.

    x_0 ~ N(0, s²),   x_i | x_0 ~ N(0, e^{x_0}),   i = 1 to d − 1     (Neal 2003, "Slice sampling",
                                                                      section 8, d = 10, s = 3)

The density is normalised, so log Z = 0. It has one mode; its two halves x_0 < 0 (the neck) and
x_0 > 0 (the mouth) hold a mass of 1/2 each, and a sampler that stops short of either shows it
there. s = 3 is Neal's; the papers on flow MCMC take s = √3, which is much easier (Grenioux's code,
github h2o64/flow_mcmc and h2o64/slips, `funnel.py`).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int, Key


class Funnel(eqx.Module):
    """The funnel of dimension d >= 2; `scale` is s, the standard deviation of x_0.

    Raises:
        ValueError: `dimension` is below 2.
    """

    scale: Float[Array, ""]
    dimension: int = eqx.field(static=True)

    def __init__(self, dimension: int = 10, scale: float = 3.0):
        if dimension < 2:
            raise ValueError(f"a funnel needs dimension >= 2, not {dimension}")
        self.scale = jnp.asarray(scale, float)
        self.dimension = dimension

    @property
    def weights(self) -> Float[Array, " 2"]:
        """The exact share of mass of the neck and of the mouth."""
        return jnp.full_like(self.scale, 1 / 2, shape=(2,))

    def sample(self, key: Key[Array, ""], n: int) -> Float[Array, "n d"]:
        """Independent points."""
        noise = jax.random.normal(key, (n, self.dimension), self.scale.dtype)
        first = self.scale * noise[:, :1]
        return jnp.concatenate([first, jnp.exp(first / 2) * noise[:, 1:]], axis=1)

    def log_prob(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Normalised log-density of one point, nats."""
        standard = x[1:] * jnp.exp(-x[0] / 2)
        log_width = (self.dimension - 1) * x[0] / 2
        return norm.logpdf(x[0], 0, self.scale) + norm.logpdf(standard).sum() - log_width

    def label(self, x: Float[Array, " d"]) -> Int[Array, ""]:
        """0 in the neck, 1 in the mouth."""
        return (x[0] > 0).astype(int)
