"""A defensive mixture: a proposal with a share of a wide density in it (Hesterberg 1995).

    q(x) = (1 - share) flow(x) + share base(x)

Importance weights p / q of a model p = base exp(-E) / Z are then at most exp(-E) / (share Z),
however little of the base the flow covers: mass where the flow never looks is seen all the same.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import paramax
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float


def mixed_log_prob(
    flow_log_prob: Float[Array, "*n"], base_log_prob: Float[Array, "*n"], share: float
) -> Float[Array, "*n"]:
    """Log q from the log-densities of both; `share` is between 0 and 1."""
    return jnp.logaddexp(
        jnp.log1p(-share) + flow_log_prob,
        jnp.log(share) + base_log_prob,
    )


class DefensiveMixture(AbstractDistribution):
    """`flow` with `share` of `base`, both of shape (d,)."""

    shape: tuple[int, ...]
    cond_shape: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    flow: AbstractDistribution
    base: AbstractDistribution
    share: float

    def __init__(self, flow: AbstractDistribution, base: AbstractDistribution, share: float):
        """`share` is between 0 and 1."""
        self.shape = flow.shape
        self.flow, self.base, self.share = flow, paramax.non_trainable(base), share

    def _log_prob(self, x: Any, condition: Any = None) -> Array:
        return mixed_log_prob(self.flow._log_prob(x), self.base._log_prob(x), self.share)

    def _sample(self, key: Any, condition: Any = None) -> Array:
        which_key, flow_key, base_key = jax.random.split(key, 3)
        return jnp.where(
            jax.random.bernoulli(which_key, self.share),
            self.base._sample(base_key),
            self.flow._sample(flow_key),
        )
