"""A lower and an upper bound of log Z by annealed importance sampling between flow and model.

    log p_b = (1 - b) log q + b log_density,     0 = b_0 < b_1 < ... < b_K = 1
    log w   = sum_k (b_k - b_{k-1}) (log_density - log q)(x_{k-1})

Forward: x_0 is a draw of the flow and x_k comes from x_{k-1} by MALA moves that leave p_{b_k}
invariant; then E[w] = Z (Neal 2001), so that E[log w] <= log Z. Reverse: the same path
from a draw of the model down to the flow; then E[1 / w] = 1 / Z, so that E[log w] >= log Z (Grosse,
Ghahramani, Adams 2015). The bounds hold for any step size and any number of temperatures; their
distance is what the path loses. The reverse one holds only as far as the chains are draws of the
model.

BlackJAX's tempered SMC resamples between temperatures: its weights are not independent, so they
give neither bound an error, and it does not run in reverse. Its resampling is not missed here,
because the path starts at a flow that is already close to the model.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.evaluation.log_normalizer import LogNormalizer, importance_sampling
from tiltflow.sampling.chains import LogDensity, refresh
from tiltflow.sampling.local import mala


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


def _anneal(
    key: PRNGKeyArray,
    position: Float[Array, "n d"],
    log_density: LogDensity,
    flow: AbstractDistribution,
    temperatures: Float[Array, " k"],
    step_size: Float[Array, ""],
    local_steps: int,
) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """Log w of n paths along `temperatures`, up or down, and the acceptance rate of the moves."""

    def log_ratio(x: Float[Array, " d"]) -> Float[Array, ""]:
        return log_density(x) - flow.log_prob(x)

    def step(
        position: Float[Array, "n d"], inputs: tuple[Array, Array, PRNGKeyArray]
    ) -> tuple[Float[Array, "n d"], tuple[Array, Array]]:
        before, b, step_key = inputs
        increments = jnp.abs(b - before) * jax.vmap(log_ratio)(position)

        def tempered(x: Float[Array, " d"]) -> Float[Array, ""]:
            return (1 - b) * flow.log_prob(x) + b * log_density(x)

        chains = refresh(position, tempered)
        chains, rate = mala(step_key, chains, tempered, step_size, local_steps)
        return chains.position, (increments, rate)

    keys = jax.random.split(key, len(temperatures) - 2)
    inputs = (temperatures[:-2], temperatures[1:-1], keys)
    position, (increments, rates) = jax.lax.scan(step, position, inputs)
    last = jnp.abs(temperatures[-1] - temperatures[-2]) * jax.vmap(log_ratio)(position)
    return increments.sum(axis=0) + last, rates.mean()


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
def _both_ways(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    chain_position: Float[Array, "n d"],
    temperatures: Float[Array, " k"],
    step_size: Float[Array, ""],
    local_steps: int,
) -> LogNormalizerBounds:
    draw_key, up_key, down_key = jax.random.split(key, 3)
    start = flow.sample(draw_key, (chain_position.shape[0],))
    up, up_rate = _anneal(up_key, start, log_density, flow, temperatures, step_size, local_steps)
    down, down_rate = _anneal(
        down_key, chain_position, log_density, flow, temperatures[::-1], step_size, local_steps
    )
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


def annealed_bounds(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    chain_position: Float[Array, "n d"],
    temperatures: Float[Array, " k"],
    step_size: Float[Array, ""],
    local_steps: int = 1,
) -> LogNormalizerBounds:
    """Bounds of log Z from n flow draws and n independent chains at `chain_position`.

    `log_density` is any function of one point; one that is a pytree, such as the method of a
    `TiltedEBM`, is not compiled anew for other parameters. `temperatures` rise from 0 to 1; at
    each one between, every path makes `local_steps` MALA steps of `step_size`.

    Raises `InputError` for temperatures that do not.
    """
    values = np.asarray(temperatures)
    if len(values) < 3 or values[0] != 0 or values[-1] != 1 or not np.all(np.diff(values) > 0):
        raise InputError(
            f"temperatures: found {len(values)} from {values[:1]} to {values[-1:]}; "
            "give at least 3 that rise from 0 to 1"
        )
    return _both_ways(key, log_density, flow, chain_position, temperatures, step_size, local_steps)
