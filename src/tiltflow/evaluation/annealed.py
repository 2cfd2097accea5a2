"""A lower and an upper bound of log Z by annealed importance sampling between flow and model.

With w the weight of an annealed path (`sampling/paths.py`): forward from a draw of the flow
E[w] = Z (Neal 2001), so that E[log w] <= log Z. Reverse, the same path from a draw of the model
down to the flow, E[1 / w] = 1 / Z, so that E[log w] >= log Z (Grosse, Ghahramani, Adams 2015). The
bounds hold for any step size and any number of temperatures; their distance is what the path
loses. The reverse one holds only as far as the chains are draws of the model.

BlackJAX's tempered SMC resamples between temperatures: its weights are not independent, so they
give neither bound an error, and it does not run in reverse. Its resampling is not missed here,
because the path starts at a flow that is already close to the model.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.evaluation.log_normalizer import LogNormalizer, importance_sampling
from tiltflow.sampling.chains import LogDensity
from tiltflow.sampling.paths import AnnealedPath, anneal


class LogNormalizerBounds(NamedTuple):
    """Bounds of log Z in nats with their standard errors, and the estimate of the forward run.

    `acceptance_rate` is the mean one of all moves, by which to judge the step size.
    """

    lower: Float[Array, ""]
    lower_stderr: Float[Array, ""]
    upper: Float[Array, ""]
    upper_stderr: Float[Array, ""]
    estimate: LogNormalizer
    acceptance_rate: Float[Array, ""]


def _lower_bound(log_weights: Float[Array, " n"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The mean of log w and its standard error.

    Weights that are not finite count as zero: a share s of others gives log s + mean(log w of
    those) <= log E[w] as well, by the same inequality, and does not fall to -inf.
    """
    finite = jnp.isfinite(log_weights)
    count = finite.sum()
    share = count / log_weights.shape[0]
    mean = jnp.where(finite, log_weights, 0.0).sum() / count
    variance = (jnp.where(finite, log_weights - mean, 0.0) ** 2).sum() / (count - 1)
    stderr = jnp.sqrt((variance + 1 - share) / count)
    return (
        jnp.where(count > 0, jnp.log(share) + mean, -jnp.inf),
        jnp.where(count > 1, stderr, jnp.inf),
    )


@eqx.filter_jit
def annealed_bounds(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    chain_position: Float[Array, "n d"],
    path: AnnealedPath,
) -> LogNormalizerBounds:
    """Bounds of log Z, nats, from n flow draws and n independent chains at `chain_position`.

    `log_density` is any function of one point; one that is a pytree, such as the method of a
    `TiltedEBM`, is not compiled anew for other parameters.
    """
    draw_key, up_key, down_key = jax.random.split(key, 3)
    start = flow.sample(draw_key, (chain_position.shape[0],))
    _, up, up_rate = anneal(up_key, start, log_density, flow, path)
    _, down, down_rate = anneal(down_key, chain_position, log_density, flow, path, down=True)
    lower, lower_stderr = _lower_bound(up)
    minus_upper, upper_stderr = _lower_bound(-down)
    return LogNormalizerBounds(
        lower,
        lower_stderr,
        -minus_upper,
        upper_stderr,
        importance_sampling(up),
        (up_rate + down_rate) / 2,
    )
