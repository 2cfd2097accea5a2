"""Global moves with several proposals a chain: iterated sampling importance resampling (i-SIR).

The chain's point x and m fresh draws y_1 ... y_m of the flow q (N = m + 1 candidates) compete;
one is chosen with probability proportional to its weight w = exp(log_density - log q):

    P(move) = sum_j w(y_j) / (w(x) + sum_j w(y_j))

(Tjelmeland 2004; Andrieu, Lee, Vihola 2018; with local moves between: Samsonov et al. 2022.) The
choice is made on the way by the largest of log w + Gumbel noise, so that of each chunk of draws
only the winner is kept, and memory does not grow with m.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from scipy.special import expit, logsumexp

from tiltflow.data.errors import InputError
from tiltflow.sampling.chains import Chains, LogDensity, refresh


class _Best(NamedTuple):
    """The leading candidate of each chain; `fresh` tells the chain's own point from draws."""

    position: Float[Array, "n d"]
    score: Float[Array, " n"]
    fresh: Bool[Array, " n"]


def iterated_resampling(
    key: PRNGKeyArray,
    chains: Chains,
    proposal_log_prob: Float[Array, " n"],
    log_density: LogDensity,
    flow: AbstractDistribution,
    proposals: int,
    chunk: int = 8,
) -> tuple[Chains, Bool[Array, " n"], Float[Array, ""], Float[Array, "m n"]]:
    """Let every chain choose among its own point and `proposals` = m fresh draws of the flow.

    `proposal_log_prob` is log q at the chains' present positions. The draws are made and weighed
    at most `chunk` a chain at a time (the largest such divisor of m), by value alone; only the
    winners get a gradient. Returns the chains, which of them moved, the mean probability of
    moving, and log w of all draws as they are, which estimate log Z. A draw whose weight is not
    finite is never chosen; a chain whose own weight is -inf or nan takes any finite one.

    Raises `InputError` if there are no proposals.
    """
    n = chains.position.shape[0]
    if proposals < 1:
        raise InputError(f"proposals: found {proposals}; give 1 or more")
    chunk = max(size for size in range(1, chunk + 1) if proposals % size == 0)
    own_key, run_key = jax.random.split(key)
    own = _finite_or_minus_inf(chains.log_density - proposal_log_prob)
    best = _Best(chains.position, own + _gumbel(own_key, n, 1)[0], jnp.zeros(n, bool))

    def compete(best: _Best, chunk_key: PRNGKeyArray) -> tuple[_Best, Float[Array, "c n"]]:
        draw_key, gumbel_key = jax.random.split(chunk_key)
        points, log_prob = flow.sample_and_log_prob(draw_key, (chunk, n))
        log_weights = jax.vmap(jax.vmap(log_density))(points) - log_prob
        scores = _finite_or_minus_inf(log_weights) + _gumbel(gumbel_key, n, chunk)
        winner = scores.argmax(0)
        score = jnp.take_along_axis(scores, winner[None], 0)[0]
        position = jnp.take_along_axis(points, winner[None, :, None], 0)[0]
        # Strictly larger: where all weights are zero the chain stays.
        wins = score > best.score
        best = _Best(
            jnp.where(wins[:, None], position, best.position),
            jnp.where(wins, score, best.score),
            best.fresh | wins,
        )
        return best, log_weights

    best, log_weights = jax.lax.scan(compete, best, jax.random.split(run_key, proposals // chunk))
    log_weights = log_weights.reshape(proposals, n)
    new = refresh(best.position, log_density)
    moved = jax.tree.map(
        lambda new, old: jnp.where(best.fresh.reshape(-1, *[1] * (new.ndim - 1)), new, old),
        new,
        chains,
    )
    fresh = jax.nn.logsumexp(_finite_or_minus_inf(log_weights), 0)
    probability = jnp.where(jnp.isfinite(fresh), jax.nn.sigmoid(fresh - own), 0.0)
    return moved, best.fresh, probability.mean(), log_weights


def choose_global_kernel(
    chains_log_weights: Float[Array, "..."] | np.ndarray,
    proposal_log_weights: Float[Array, "..."] | np.ndarray,
    proposal_cost: float,
    local_cost: float,
    most: int = 256,
) -> int:
    """How many fresh proposals a chain pay best: 1 means IMH, more means i-SIR with that many.

    Maximised over powers of two m is the expected probability of moving for its cost,

        P(move; m) / (m proposal_cost + local_cost),

    with P from log weights at the chains (draws of the model) and of the flow's draws; the costs
    are those of one proposal and of the local sweep that goes with every global move, in any
    common unit. i-SIR with one proposal moves less often than IMH, so it is never chosen. Weights
    at the chains are asked for because the flow's own draws cannot know of a mode it misses.
    """
    most = max(1, min(most, len(_spread(proposal_log_weights))))

    def worth(m: int) -> float:
        moving = moving_probability(chains_log_weights, proposal_log_weights, m)
        return moving / (m * proposal_cost + local_cost)

    return max([2**i for i in range(most.bit_length())], key=worth)


def moving_probability(
    chains_log_weights: Float[Array, "..."] | np.ndarray,
    proposal_log_weights: Float[Array, "..."] | np.ndarray,
    m: int = 1,
) -> float:
    """How likely a chain moves, on average, if it is offered m proposals: 1 of IMH, or of i-SIR.

    Log weights that are not finite do not count at chains, and are zero of proposals.
    """
    at_chains = _spread(chains_log_weights)
    at_chains = at_chains[np.isfinite(at_chains)]
    of_flow = _spread(proposal_log_weights)
    if not len(at_chains) or not np.isfinite(of_flow).any():
        return 0.0
    pairs = max(len(at_chains), len(of_flow))
    own, fresh = np.resize(at_chains, pairs), np.resize(of_flow, pairs)
    if m == 1:
        return float(np.exp(np.minimum(fresh - own, 0.0)).mean())
    # Each chain meets a window of m draws: exchangeable, and the same for every call.
    around = np.concatenate([fresh, fresh[: m - 1]])
    windows = np.lib.stride_tricks.sliding_window_view(around, m)
    return float(expit(logsumexp(windows, axis=-1) - own).mean())


def _gumbel(key: PRNGKeyArray, n: int, rows: int) -> Float[Array, "rows n"]:
    """Noise of which each chain has its own stream, in whatever company."""
    return jax.vmap(lambda key: jax.random.gumbel(key, (rows,)))(jax.random.split(key, n)).T


def _finite_or_minus_inf(log_weights: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf)


def _spread(log_weights: Float[Array, "..."] | np.ndarray, most: int = 4096) -> np.ndarray:
    """At most `most` of the log weights, evenly spread over all; -inf where not finite."""
    values = np.asarray(log_weights, float).ravel()
    values = np.where(np.isfinite(values), values, -np.inf)
    return values[np.linspace(0, len(values) - 1, min(most, len(values))).astype(int)]
