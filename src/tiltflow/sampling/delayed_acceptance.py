"""Independent Metropolis-Hastings from a flow whose log-density is only estimated (FFJORD).

Hutchinson's trace with fixed noise gives s(x), a fixed function near log q(x), while draws are of
q. Independent moves that take s for log q leave pi q / exp(s) invariant, not pi; noise attached to
each point is no cure, since E exp(-s) = 1 / q would be needed and only E s = log q holds. Delayed
acceptance (Christen, Fox 2005) is exact for any s, and asks for log q of promoted points alone:

    a(x, y) = min(1, pi(y) e^s(x) / (pi(x) e^s(y))),   b(x, y) = min(1, q(x) e^s(y) / (q(y) e^s(x)))

and y is taken with probability a b. Proof: a min(1, r) has a(x, y) / a(y, x) = r, so here
a(x, y) / a(y, x) = pi(y) e^s(x) / (pi(x) e^s(y)), b(x, y) / b(y, x) = q(x) e^s(y) / (q(y) e^s(x));
their product times q(y) / q(x) is pi(y) / pi(x), which is detailed balance under pi.

Where log q is as cheap as s, independent moves by it are simpler and accept more; this pays where
most proposals are refused at the first stage and log q is dear, and only if it is then not computed
(measured: docs/decisions.md). No sampler here calls it.
"""

from jaxtyping import Array, Bool, Float, PRNGKeyArray

from tiltflow.sampling.chains import Chains
from tiltflow.sampling.independent import Proposals, log_acceptance, move


def delayed_acceptance(
    key: PRNGKeyArray,
    chains: Chains,
    estimate: Float[Array, " n"],
    log_prob: Float[Array, " n"],
    proposals: Proposals,
    proposed_estimate: Float[Array, " n"],
) -> tuple[Chains, Bool[Array, " n"], Float[Array, ""]]:
    """Offer each chain its own proposal, first by the estimate and then by the exact density.

    `estimate` is s and `log_prob` log q at the chains; `proposals` hold log q of the draws, and
    `proposed_estimate` is s of them. One function s must serve every step. Returns the chains,
    which of them moved, and the mean acceptance rate, a b. What is not finite is treated as by
    `independent_metropolis_hastings`.
    """
    first = log_acceptance(
        chains.log_density - estimate, proposals.chains.log_density - proposed_estimate
    )
    second = log_acceptance(estimate - log_prob, proposed_estimate - proposals.log_prob)
    return move(key, chains, proposals.chains, first + second)
