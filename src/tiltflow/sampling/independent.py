"""Global moves: independent Metropolis-Hastings from a flow.

    y ~ q,   accept with probability min(1, w(y) / w(x)),   w = exp(log_density - log q)

(Gabrié, Rotskoff, Vanden-Eijnden 2022.) Draws and their log-density under q come from one pass of
the flow. The weights w of the draws also estimate log Z, so they are returned.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.sampling.chains import Chains


class Proposals(NamedTuple):
    """A batch of draws of the proposal, with everything that a chain carries."""

    chains: Chains
    log_prob: Float[Array, " n"]

    @property
    def log_weights(self) -> Float[Array, " n"]:
        """Log w = log_density - log q; not finite where the model's log-density is not."""
        return self.chains.log_density - self.log_prob


def independent_metropolis_hastings(
    key: PRNGKeyArray,
    chains: Chains,
    proposal_log_prob: Float[Array, " n"],
    proposals: Proposals,
) -> tuple[Chains, Bool[Array, " n"], Float[Array, ""]]:
    """Offer each chain its own proposal.

    `proposal_log_prob` is log q at the chains' present positions, under the flow that made the
    proposals. Returns the chains, which of them moved, and the mean acceptance rate. A proposal
    whose weight is not finite is refused; a chain whose own weight is -inf or nan accepts any
    finite one, so that it cannot freeze.
    """
    current = chains.log_density - proposal_log_prob
    return move(key, chains, proposals.chains, log_acceptance(current, proposals.log_weights))


def log_acceptance(current: Float[Array, " n"], proposed: Float[Array, " n"]) -> Float[Array, " n"]:
    """Log of min(1, w' / w) from the log w of chains and of their proposals.

    A proposal whose log w is not finite is refused, and a chain whose own is not goes to any other.
    """
    current = jnp.where(jnp.isfinite(current), current, -jnp.inf)
    return jnp.minimum(jnp.where(jnp.isfinite(proposed), proposed - current, -jnp.inf), 0.0)


def move(
    key: PRNGKeyArray, chains: Chains, proposed: Chains, log_probability: Float[Array, " n"]
) -> tuple[Chains, Bool[Array, " n"], Float[Array, ""]]:
    """Each chain to its proposal with its probability; which moved, and the mean probability."""
    probability = jnp.exp(log_probability)
    accepted = jax.random.uniform(key, probability.shape) < probability
    moved = jax.tree.map(
        lambda new, old: jnp.where(accepted.reshape(-1, *[1] * (new.ndim - 1)), new, old),
        proposed,
        chains,
    )
    return moved, accepted, probability.mean()


def acceptance_weights(
    current: Float[Array, " n"], proposed: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Weights on n chains and on n proposals, from the log w of both; they add up to one.

    Were chain i offered proposal j, it would be there with a_ij = min(1, w_j / w_i) and here with
    1 - a_ij. The mean over all pairs: (1 - mean_j a_ij) / n and (mean_i a_ij) / n. If the chains
    are at the target and the proposals are independent of them, a weighted mean has exactly the
    target's expectation (waste recycling, Frenkel 2004; over one chain's own proposal only, Douc,
    Robert 2011). Where log w is not finite: a proposal has none, a chain gives all it can away.
    """
    finite = jnp.isfinite(proposed)
    current = jnp.where(jnp.isfinite(current), current, -jnp.inf)
    log_ratio = jnp.where(finite, proposed, 0.0) - current[:, None]
    accepted = jnp.exp(jnp.minimum(log_ratio, 0.0)) * finite
    n = current.shape[0]
    return (1 - accepted.mean(axis=1)) / n, accepted.mean(axis=0) / n


@runtime_checkable
class EstimatedTrace(Protocol):
    """A bijection whose trace is estimated with `probes`, and exact where these are None.

    By what it has, not by its class: diffrax, which continuous flows need, takes time to import.
    """

    probes: Any


def check_trace_is_exact(flow: AbstractDistribution | None, name: str) -> None:
    """Refuse a flow, the argument `name`, of which a continuous flow holds noise: `InputError`.

    Its log-density is a function of the point, but not the density of its draws, so that neither
    chains that it proposes for nor a model that it is the base of would have a known density. By
    its structure alone: nothing is evaluated. Or see `delayed_acceptance.py`.
    """
    nodes = jax.tree.leaves(flow, is_leaf=lambda node: isinstance(node, EstimatedTrace))
    if any(isinstance(node, EstimatedTrace) and node.probes is not None for node in nodes):
        raise InputError(
            f"{name}: a continuous flow holds noise for its trace, so that its log-density is not "
            "that of its draws; give with_exact_trace(...) of it"
        )


def check_proposal_is_deterministic(
    flow: AbstractDistribution, key: PRNGKeyArray, positions: Float[Array, "n d"]
) -> None:
    """Refuse a flow whose log-density is noisy, say by a Hutchinson trace: `InputError`.

    Noise in log q is noise in the acceptance ratio, and the chains then leave the target. So they
    do where a continuous flow holds fixed noise (`check_trace_is_exact`). The log-density is
    evaluated twice at `positions`, and at n fresh draws once with the draw and once
    without. The median difference is judged, since a few points far out may lose digits in the
    flow's inverse. Not to be compiled: noise from outside JAX would be frozen.
    """
    check_trace_is_exact(flow, "flow")
    points, with_draw = flow.sample_and_log_prob(key, (len(positions),))
    pairs = (
        (flow.log_prob(positions), flow.log_prob(positions)),
        (with_draw, flow.log_prob(points)),
    )
    tolerance = float(np.sqrt(jnp.finfo(positions.dtype).eps)) * positions.shape[1]
    for first, second in pairs:
        first, second = np.asarray(first, float), np.asarray(second, float)
        # A nan is a refused proposal, not noise.
        both = np.isfinite(first) & np.isfinite(second)
        difference = np.abs(first - second)[both] / (1 + np.abs(first[both]))
        if len(difference) and np.median(difference) > tolerance:
            raise InputError(
                f"flow: its log-density at one point differs by {np.median(difference):.2g} "
                "(relative, median) between two calls; give one with an exact trace, or, where it "
                "is solved for, with a tighter tolerance; noise that is fixed is no cure"
            )
