"""Draws of a proposal with the right share of every component of its mixtures.

Where a proposal is a mixture, or a flow on one, n independent draws have a component of weight w
sqrt(w (1 - w) / n) too often or too seldom. With one uniform U for all of them,

    u_i = (i + U) / n,      the component of draw i is where the weights' running sum passes u_i,

each draw alone is distributed as before, and no component's share errs by more than 1 / n
(systematic resampling; Carpenter, Clifford, Fearnhead 1999). A defensive mixture has its share of
the wide density by number (Owen, Zhou 2000, deterministic mixture sampling). Averages over the
draws stay unbiased and lose the noise of counts; intervals that take them as independent are too
wide, so that who judges a model draws independently.
"""

import jax
import jax.numpy as jnp
import paramax
from flowjax.distributions import AbstractDistribution, AbstractTransformed
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.models.defensive import DefensiveMixture
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.mixture_of_flows import MixtureOfFlows


def systematic_draws(
    key: PRNGKeyArray, density: AbstractDistribution, draws: int
) -> tuple[Float[Array, "draws d"], Float[Array, " draws"]]:
    """`draws` points of `density` and its log-density there (nats); not in random order.

    What is no mixture, and stands on none, is drawn from independently.
    """
    return _draw(key, paramax.unwrap(density), draws)


def _draw(
    key: PRNGKeyArray, density: AbstractDistribution, draws: int
) -> tuple[Float[Array, "draws d"], Float[Array, " draws"]]:
    if isinstance(density, DefensiveMixture):
        flow_key, base_key = jax.random.split(key)
        wide = round(density.share * draws)
        parts = _draw(flow_key, density.flow, draws - wide), _draw(base_key, density.base, wide)
        points = jnp.concatenate([points for points, _ in parts])
        return points, jax.vmap(density._log_prob)(points)
    if isinstance(density, (GaussianMixture, MixtureOfFlows)):
        uniform_key, noise_key = jax.random.split(key)
        uniforms = (jnp.arange(draws) + jax.random.uniform(uniform_key)) / draws
        points = jax.vmap(density.sample_at)(uniforms, jax.random.split(noise_key, draws))
        return points, jax.vmap(density._log_prob)(points)
    if isinstance(density, AbstractTransformed):
        points, log_prob = _draw(key, density.base_dist, draws)
        points, log_det = jax.vmap(density.bijection.transform_and_log_det)(points)
        return points, log_prob - log_det
    return density.sample_and_log_prob(key, (draws,))
