"""log Z by importance sampling, with its standard error, and what it makes of held-out data.

    Z = E_{y ~ q}[w(y)],   w = exp(log_density - log q)
    stderr(log Z) = sqrt((n / ESS - 1) / n),   ESS = (sum w)^2 / sum w^2

the standard error by the delta method (Owen 2013, chapter 9).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.recording import weigh_draws


class LogNormalizer(NamedTuple):
    """An estimate of log Z in nats; `ess` is the effective share of the draws, from 0 to 1."""

    log_z: Float[Array, ""]
    stderr: Float[Array, ""]
    ess: Float[Array, ""]


@jax.jit
def importance_sampling(log_weights: Float[Array, " n"]) -> LogNormalizer:
    """Estimate log Z from the log-weights of n independent draws of a proposal.

    A weight that is not finite counts as zero.
    """
    n = log_weights.shape[0]
    log_weights = jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf)
    total = logsumexp(log_weights)
    ess = jnp.exp(2 * total - logsumexp(2 * log_weights)) / n
    stderr = jnp.sqrt(jnp.maximum(1 / ess - 1, 0.0) / n)
    return LogNormalizer(total - jnp.log(n), stderr, ess)


def normalised_weights(log_weights: Float[Array, " n"]) -> Float[Array, " n"]:
    """Self-normalised importance weights: they add up to one."""
    return jax.nn.softmax(jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf))


def estimate_log_normalizer(
    key: PRNGKeyArray, model: TiltedEBM, flow: AbstractDistribution, draws: int
) -> LogNormalizer:
    """Log Z of the model from `draws` draws of the flow."""
    return importance_sampling(weigh_draws(key, model.log_density, flow, draws)[1])


def effective_share(estimate: LogNormalizer) -> float:
    """The effective share, 0 where it is not a number."""
    return float(jnp.nan_to_num(estimate.ess))


def best_of_proposals(
    key: PRNGKeyArray, model: TiltedEBM, proposals: list[AbstractDistribution], draws: int
) -> tuple[int, LogNormalizer]:
    """The proposal with the largest effective share of its draws, by its place, and its log Z."""
    estimates = [estimate_log_normalizer(key, model, proposal, draws) for proposal in proposals]
    shares = [effective_share(estimate) for estimate in estimates]
    best = shares.index(max(shares))
    return best, estimates[best]
