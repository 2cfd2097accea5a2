"""log Z by bridge sampling between independent flow draws and draws of Markov chains.

    Z = E_q[f l] / E_p[f],    f = 1 / (m l + n Z),    l = exp(log_density - log q)

is the bridge with the least error (Meng and Wong 1996, sections 3 and 4), for n draws of q and
chains worth m draws of p. Z stands on both sides. With P = m l / (m l + n Z), the probability that
a draw came from the chains, it is the root of an increasing function of -log Z,

    n mean_q[P] = m mean_p[1 - P]

and the squared relative error of Z (Frühwirth-Schnatter 2004) is

    var_q[P] / (n mean_q[P]^2)  +  var_p[1 - P] / (m mean_p[1 - P]^2)

where m is the chains' effective sample size for the very function 1 - P. The same draws give Z, m
and the error; what this adds to the error is of higher order.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tiltflow.evaluation.diagnostics import effective_sample_size
from tiltflow.evaluation.log_normalizer import LogNormalizer


def bridge_sampling(
    proposal_log_ratios: Float[Array, " n"] | Float[np.ndarray, " n"],
    chain_log_ratios: Float[Array, "draws chains"] | Float[np.ndarray, "draws chains"],
) -> LogNormalizer:
    """Estimate log Z from log_density - log q at flow draws and at the chains' draws.

    The chains must be stationary draws of the model, and the flow must not have been trained on
    them. A draw of the flow whose ratio is not finite counts as zero, and so does 1 - P at a
    chain's. Chains that never move count as one draw, which leaves importance sampling. All on the
    host, in float64, but for the effective sample size: there is nothing here to compile for.

    `ess` is the effective share at which importance sampling with as many flow draws would have
    this standard error: 1 / (1 + n stderr^2). Without a finite ratio on either side there is no
    estimate: log Z is -inf, its error infinite, the share 0.
    """
    proposal = np.asarray(proposal_log_ratios, dtype=float)
    chain = np.asarray(chain_log_ratios, dtype=float)
    proposal = np.where(np.isfinite(proposal), proposal, -np.inf)
    chain = np.where(np.isfinite(chain), chain, np.inf)
    if not (np.isfinite(proposal).any() and np.isfinite(chain).any()):
        return _normalizer(-np.inf, np.inf, 0.0)
    n = len(proposal)
    # First with the chains worth as many draws as they have, to know the function whose
    # autocorrelation counts.
    m = float(chain.size)
    m = _worth(_log_sigmoid(_solve(proposal, chain, np.log(m / n)) - chain - np.log(m / n)))
    log_z = _solve(proposal, chain, np.log(m / n))
    from_proposal = _log_sigmoid(log_z - chain - np.log(m / n))
    from_chain = _log_sigmoid(proposal - log_z + np.log(m / n))
    variance = _relative_variance(from_chain) / n
    variance += _relative_variance(from_proposal) / _worth(from_proposal)
    return _normalizer(log_z, np.sqrt(variance), 1 / (1 + n * variance))


def _normalizer(log_z: float, stderr: float, ess: float) -> LogNormalizer:
    return LogNormalizer(*(jnp.asarray(np.asarray(it), float) for it in (log_z, stderr, ess)))


def _solve(
    proposal: Float[np.ndarray, " n"], chain: Float[np.ndarray, "draws chains"], log_odds: float
) -> float:
    """The root log Z by bisection; `log_odds` is log m / n.

    It lies between the smallest and the largest finite log ratio, but for the shares of zeros.
    """
    both = np.concatenate([proposal, chain.ravel()])
    finite = both[np.isfinite(both)]
    low = finite.min() + np.log(max(np.isfinite(proposal).mean(), 1 / len(both)))
    high = finite.max() - np.log(max(np.isfinite(chain).mean(), 1 / len(both)))
    # Until no number is left between: one wild ratio makes the bracket wider than any fixed count
    # of halvings could close.
    while low < (middle := (low + high) / 2) < high:
        # Compared as logarithms: with little overlap both sides are far below one.
        from_chain = _log_mean(_log_sigmoid(proposal - middle + log_odds))
        from_proposal = _log_mean(_log_sigmoid(middle - chain - log_odds))
        if from_chain > log_odds + from_proposal:
            low = middle
        else:
            high = middle
    return float((low + high) / 2)


def _worth(log_values: Float[np.ndarray, "draws chains"]) -> float:
    """The effective sample size of the function whose logarithm is given, at least one."""
    values = np.exp(log_values - log_values.max())
    return max(effective_sample_size(values), 1.0)


def _log_sigmoid(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return -np.logaddexp(0.0, -x)


def _log_mean(log_values: Float[np.ndarray, "..."]) -> float:
    largest = log_values.max()
    if not np.isfinite(largest):
        return float(largest)
    return float(largest + np.log(np.mean(np.exp(log_values - largest))))


def _relative_variance(log_values: Float[np.ndarray, "..."]) -> float:
    """The variance over the squared mean."""
    scaled = np.exp(log_values - log_values.max())
    return float(scaled.var() / scaled.mean() ** 2)
