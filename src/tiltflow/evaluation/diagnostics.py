"""Chain diagnostics: have the chains mixed, and how many independent draws are theirs worth?

    R-hat      split, rank-normalised; the larger of the draws' and the folded draws'
    bulk ESS   draws / tau of the rank-normalised draws,  tau = -1 + 2 sum_t P_t
    tail ESS   the smaller one of the indicators of the 5 % and the 95 % quantile
               (all three: Vehtari, Gelman, Simpson, Carpenter, Bürkner 2021, sections 3 and 4)
    Pareto k   shape of the upper tail of importance weights (Vehtari, Simpson, Gelman, Yao,
               Gabry 2024; fitted as by Zhang and Stephens 2009)

P_t are Geyer's initial monotone sums of autocorrelations, whose variance includes that between the
chains, so that chains that disagree are worth little; every chain counts as two, its halves.
BlackJAX computes them; here is decided what it leaves undefined. Draws run along the first axis.
"""

from typing import NamedTuple

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
from blackjax.diagnostics import psis_weights
from jaxtyping import Array, Float, Int

from tiltflow.data.errors import InputError


class ChainDiagnostics(NamedTuple):
    """R-hat and effective sample sizes of d coordinates; never nan.

    A coordinate that never changes within any chain, or is not finite somewhere, has R-hat
    infinite and no effective draws: it says nothing, and must not look converged.
    """

    rhat: Float[Array, " d"]
    ess_bulk: Float[Array, " d"]
    ess_tail: Float[Array, " d"]


def _even(values: Float[Array, "draws chains"]) -> Float[Array, "even chains"]:
    """The draws without the middle one of an odd number, so that both halves are equally long."""
    if values.shape[0] < 4:
        raise InputError(f"draws: found {values.shape[0]} for each chain; give at least 4")
    half = values.shape[0] // 2
    return jnp.concatenate([values[:half], values[-half:]])


@eqx.filter_jit
def effective_sample_size(values: Float[Array, "draws chains"]) -> Float[Array, ""]:
    """How many independent draws would give the mean of `values` the same error.

    For any function of the draws, such as a mode's indicator: not rank-normalised. It is at most
    the number of draws (the estimate of short chains exceeds it by a share of about 1 / draws).
    Constant values are worth as many draws as there are, because their mean has no error. Chains
    that differ but never change are worth none: their spread is that of their starts. Values that
    are not finite make it zero.
    """
    values = values - values[0, 0]
    halves = jnp.concatenate(jnp.split(_even(values), 2), axis=1)
    ess = blackjax.ess(halves, chain_axis=1, sample_axis=0)
    ess = jnp.where(jnp.all(values == 0), values.size, jnp.minimum(ess, values.size))
    return jnp.where(jnp.all(jnp.isfinite(values)), ess, 0.0)


def _diagnose(values: Float[Array, "draws chains"]) -> ChainDiagnostics:
    """The diagnostics of one coordinate."""
    rhat = blackjax.rhat(_even(values), chain_axis=1, sample_axis=0)
    bulk = blackjax.ess_bulk(_even(values), chain_axis=1, sample_axis=0)
    # Not BlackJAX's tail ESS, which takes draws equal to a quantile to lie on both of its sides;
    # chains that refuse proposals repeat draws.
    below = values <= jnp.quantile(values, jnp.array([0.05, 0.95]))[:, None, None]
    tail = jax.vmap(effective_sample_size)(below.astype(values.dtype)).min()
    moved = jnp.any(values != values[0]) & jnp.all(jnp.isfinite(values))
    return ChainDiagnostics(
        jnp.where(moved & ~jnp.isnan(rhat), rhat, jnp.inf),
        jnp.where(moved, jnp.minimum(bulk, values.size), 0.0),
        jnp.where(moved, tail, 0.0),
    )


@eqx.filter_jit
def diagnose_chains(draws: Float[Array, "draws chains d"]) -> ChainDiagnostics:
    """Diagnose every coordinate of the chains.

    Raises `InputError` for fewer than two chains or four draws.
    """
    if draws.shape[1] < 2:
        raise InputError(f"draws: found {draws.shape[1]} chain; give at least 2")
    return jax.vmap(_diagnose, in_axes=2)(draws)


@eqx.filter_jit
def pareto_k(log_weights: Float[Array, " n"]) -> Float[Array, ""]:
    """The Pareto shape of the largest min(n / 5, 3 sqrt(n)) importance weights.

    Below 0.7 estimates from the weights and their standard errors can be relied on. A weight that
    is not finite counts as zero. Infinite where there is no tail to fit: fewer than 25 weights, or
    too few that are not zero; 0 where the largest weights are equal but for rounding.
    """
    log_weights = jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf)
    n = log_weights.shape[0]
    tail = min(int(3 * n**0.5), n // 5)
    largest = jax.lax.top_k(log_weights, max(tail, 1))[0]
    flat = largest[0] - largest[-1] < jnp.sqrt(jnp.finfo(log_weights.dtype).eps)
    k = psis_weights(log_weights)[1]
    k = jnp.where(jnp.isnan(k), jnp.inf, k)
    return jnp.where(flat & (tail >= 5), 0.0, k)


def jump_rate(labels: Int[Array, "draws chains"]) -> Float[Array, ""]:
    """The share of the steps from one draw to the next at which a chain's label changes."""
    return jnp.mean(labels[1:] != labels[:-1])
