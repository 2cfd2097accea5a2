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

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tiltflow.evaluation.diagnostics import effective_sample_size
from tiltflow.evaluation.log_normalizer import LogNormalizer

_HALVINGS = 80
"""Of the bracket of log Z: more than either precision has bits for."""


def _solve(
    proposal: Float[Array, " n"], chain: Float[Array, "draws chains"], log_odds: Float[Array, ""]
) -> Float[Array, ""]:
    """The root log Z by bisection; `log_odds` is log m / n.

    It lies between the smallest and the largest finite log ratio, but for the shares of zeros.
    """
    both = jnp.concatenate([proposal, chain.ravel()])
    finite = jnp.isfinite(both)
    low = jnp.min(jnp.where(finite, both, jnp.inf)) + jnp.log(jnp.isfinite(proposal).mean())
    high = jnp.max(jnp.where(finite, both, -jnp.inf)) - jnp.log(jnp.isfinite(chain).mean())

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        step, low, high = state
        middle = (low + high) / 2
        return (step < _HALVINGS) & (low < middle) & (middle < high)

    def halve(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        step, low, high = state
        middle = (low + high) / 2
        from_chain = jax.nn.log_sigmoid(proposal - middle + log_odds)
        from_proposal = jax.nn.log_sigmoid(middle - chain - log_odds)
        # Compared as logarithms: with little overlap both sides are far below one.
        log_z_above = _log_mean(from_chain) > log_odds + _log_mean(from_proposal)
        return step + 1, jnp.where(log_z_above, middle, low), jnp.where(log_z_above, high, middle)

    _, low, high = jax.lax.while_loop(unfinished, halve, (jnp.asarray(0), low, high))
    return (low + high) / 2


def _log_mean(log_values: Float[Array, "..."]) -> Float[Array, ""]:
    return jax.nn.logsumexp(log_values) - jnp.log(log_values.size)


def _relative_variance(log_values: Float[Array, "..."]) -> Float[Array, ""]:
    """The variance over the squared mean."""
    scaled = jnp.exp(log_values - jnp.max(log_values))
    return jnp.var(scaled) / jnp.mean(scaled) ** 2


@eqx.filter_jit
def bridge_sampling(
    proposal_log_ratios: Float[Array, " n"], chain_log_ratios: Float[Array, "draws chains"]
) -> LogNormalizer:
    """Estimate log Z from log_density - log q at flow draws and at the chains' draws.

    The chains must be stationary draws of the model, and the flow must not have been trained on
    them. A draw of the flow whose ratio is not finite counts as zero, and so does 1 - P at a
    chain's. Chains that never move count as one draw, which leaves importance sampling.

    `ess` is the effective share at which importance sampling with as many flow draws would have
    this standard error: 1 / (1 + n stderr^2). Without a finite ratio on either side there is no
    estimate: log Z is -inf, its error infinite, the share 0.
    """
    n = proposal_log_ratios.shape[0]
    proposal = jnp.where(jnp.isfinite(proposal_log_ratios), proposal_log_ratios, -jnp.inf)
    chain = jnp.where(jnp.isfinite(chain_log_ratios), chain_log_ratios, jnp.inf)

    def from_proposal(log_z: Float[Array, ""], m: Float[Array, ""]) -> Array:
        return jax.nn.log_sigmoid(log_z - chain - jnp.log(m / n))

    def worth(values: Array) -> Float[Array, ""]:
        return jnp.maximum(effective_sample_size(jnp.exp(values - jnp.max(values))), 1.0)

    # First with the chains worth as many draws as they have, to know the function whose
    # autocorrelation counts.
    m = jnp.asarray(float(chain.size))
    m = worth(from_proposal(_solve(proposal, chain, jnp.log(m / n)), m))
    log_z = _solve(proposal, chain, jnp.log(m / n))
    values = from_proposal(log_z, m)
    from_chain = jax.nn.log_sigmoid(proposal - log_z + jnp.log(m / n))
    stderr = jnp.sqrt(
        _relative_variance(from_chain) / n + _relative_variance(values) / worth(values)
    )
    some = jnp.any(jnp.isfinite(proposal)) & jnp.any(jnp.isfinite(chain))
    stderr = jnp.where(some, stderr, jnp.inf)
    return LogNormalizer(jnp.where(some, log_z, -jnp.inf), stderr, 1 / (1 + n * stderr**2))
