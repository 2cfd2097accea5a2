"""Chain diagnostics: have the chains mixed, and how many independent draws are theirs worth?

    R-hat      split, rank-normalised; the larger of the draws' and the folded draws'
    bulk ESS   draws / tau of the rank-normalised draws,  tau = -1 + 2 sum_t P_t
    tail ESS   the smaller one of the indicators of the 5 % and the 95 % quantile
               (all three: Vehtari, Gelman, Simpson, Carpenter, Bürkner 2021, sections 3 and 4)
    Pareto k   shape of the upper tail of importance weights (Vehtari, Simpson, Gelman, Yao,
               Gabry 2024; fitted as by Zhang and Stephens 2009)

P_t are Geyer's initial monotone sums of autocorrelations, whose variance includes that between the
chains, so that chains that disagree are worth little; every chain counts as two, its halves.
BlackJAX computes them, of ranks that SciPy takes; here is decided what it leaves undefined. Draws
run along the first axis.
"""

from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.diagnostics import psis_weights
from jaxtyping import Array, Float, Shaped
from scipy.special import ndtri

from tiltflow.data.errors import InputError
from tiltflow.sampling.quick_jit import quick_jit


class ChainDiagnostics(NamedTuple):
    """R-hat and effective sample sizes of d coordinates; never nan.

    A coordinate that never changes within any chain, or is not finite somewhere, has R-hat
    infinite and no effective draws: it says nothing, and must not look converged.
    """

    rhat: Float[Array, " d"]
    ess_bulk: Float[Array, " d"]
    ess_tail: Float[Array, " d"]


TOGETHER = 8
"""Series whose effective sizes are computed at once: one program for any number of them."""


@quick_jit(0)
def _sizes(halves: Float[Array, "half both k"]) -> Float[Array, " k"]:
    """BlackJAX's; compiled fast rather than well, since it takes longer to compile than to run."""
    return blackjax.ess(halves, chain_axis=1, sample_axis=0)


def _halves(values: Float[np.ndarray, "draws chains *k"]) -> Float[np.ndarray, "half both *k"]:
    """Every chain as two, its halves, without the middle draw of an odd number."""
    if values.shape[0] < 4:
        raise InputError(f"draws: found {values.shape[0]} for each chain; give at least 4")
    half = values.shape[0] // 2
    return np.concatenate([values[:half], values[-half:]], axis=1)


def _all_sizes(halves: Float[np.ndarray, "half both k"]) -> Float[np.ndarray, " k"]:
    """The effective sizes of k series, `TOGETHER` at a time; 0 where BlackJAX has none."""
    k = halves.shape[2]
    kind = jnp.result_type(float)
    filled = np.zeros((*halves.shape[:2], -(-k // TOGETHER) * TOGETHER), kind)
    filled[..., :k] = halves
    parts = (filled[..., i : i + TOGETHER] for i in range(0, k, TOGETHER))
    sizes = np.concatenate([np.asarray(_sizes(jnp.asarray(part)), float) for part in parts])
    return np.nan_to_num(sizes[:k])


def effective_sample_sizes(
    values: Shaped[Array, "draws chains k"] | Shaped[np.ndarray, "draws chains k"],
) -> Float[np.ndarray, " k"]:
    """How many independent draws would give each of k means the same error.

    For any function of the draws, such as a mode's indicator: not rank-normalised. It is at most
    the number of draws (the estimate of short chains exceeds it by a share of about 1 / draws).
    Constant values are worth as many draws as there are, because their mean has no error. Chains
    that differ but never change are worth none: their spread is that of their starts. Values that
    are not finite make it zero.

    Raises `InputError` for fewer than four draws.
    """
    values = np.asarray(values, dtype=float)
    most = values.shape[0] * values.shape[1]
    finite = np.isfinite(values).all(axis=(0, 1))
    # Shifted, so that a large mean costs no digits.
    values = np.where(finite, values - np.where(finite, values[0, 0], 0.0), 0.0)
    sizes = np.minimum(_all_sizes(_halves(values)), most)
    sizes = np.where((values == 0).all(axis=(0, 1)), float(most), sizes)
    return np.where(finite, sizes, 0.0)


def effective_sample_size(
    values: Shaped[Array, "draws chains"] | Shaped[np.ndarray, "draws chains"],
) -> float:
    """`effective_sample_sizes` of one function; raises as it does."""
    return float(effective_sample_sizes(np.asarray(values)[..., None])[0])


def diagnose_chains(draws: Float[Array, "draws chains d"]) -> ChainDiagnostics:
    """Diagnose every coordinate of the chains.

    Ranks are taken on the host (SciPy's): XLA takes seconds to compile a sort.

    Raises `InputError` for fewer than two chains or four draws.
    """
    if draws.shape[1] < 2:
        raise InputError(f"draws: found {draws.shape[1]} chain; give at least 2")
    values = np.asarray(draws, dtype=float)
    finite = np.isfinite(values).all(axis=(0, 1))
    moved = finite & (values != values[0]).any(axis=(0, 1))
    # What says nothing must not stop the rest, nor warn.
    values = np.where(finite, values, 0.0)
    halves = _halves(values)
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    bulk, spread = _rank_normalised(halves), _rank_normalised(folded)
    # Not BlackJAX's tail ESS, which takes draws equal to a quantile to lie on both of its sides;
    # chains that refuse proposals repeat draws.
    low, high = (halves <= quantile for quantile in np.quantile(values, [0.05, 0.95], axis=(0, 1)))
    sizes = _all_sizes(np.concatenate([bulk, low, high], axis=2)).reshape(3, -1)
    sizes = np.minimum(sizes, values.shape[0] * values.shape[1])
    rhat = np.fmax(_rhat(bulk), _rhat(spread))
    found = (
        np.where(moved & ~np.isnan(rhat), rhat, np.inf),
        np.where(moved, sizes[0], 0.0),
        np.where(moved, sizes[1:].min(axis=0), 0.0),
    )
    return ChainDiagnostics(*(jnp.asarray(each, draws.dtype) for each in found))


def diagnostic_programs(draws: int, chains: int) -> list[tuple[Any, ...]]:
    """What is compiled here for chains of this length, each with arguments like those it gets."""
    kind = jnp.result_type(float)
    some = np.zeros((draws // 2, 2 * chains, TOGETHER), kind)
    return [(_sizes, jnp.asarray(some)), (pareto_k, jnp.asarray(np.zeros(draws * chains, kind)))]


def _rank_normalised(
    halves: Float[np.ndarray, "half both d"],
) -> Float[np.ndarray, "half both d"]:
    """The normal scores of the ranks among all draws (Vehtari et al. 2021, equation 14)."""
    from scipy.stats import rankdata  # here, because it takes half a second

    ranks = rankdata(halves.reshape(-1, halves.shape[-1]), axis=0)
    return ndtri((ranks - 3 / 8) / (len(ranks) + 1 / 4)).reshape(halves.shape)


def _rhat(halves: Float[np.ndarray, "half both d"]) -> Float[np.ndarray, " d"]:
    """BlackJAX's R-hat; nan where nothing moves."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rhat = blackjax.diagnostics.potential_scale_reduction(halves, chain_axis=1, sample_axis=0)
    return np.asarray(rhat, float).reshape(halves.shape[2])


@quick_jit(0)
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


def jump_rate(labels: Shaped[np.ndarray, "draws chains"]) -> float:
    """The share of the steps from one draw to the next at which a chain's label changes."""
    return float(np.mean(labels[1:] != labels[:-1]))
