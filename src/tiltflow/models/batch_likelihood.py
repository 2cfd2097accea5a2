"""The log-likelihood of a whole batch under a stack of continuous flows, for training.

From the data to the base, bijection by bijection (the instantaneous change of variables of Chen et
al. 2018, as in `integration.py`): a continuous flow carries the batch as one
system with one step size (half to an eighth of the time of a step size for every point:
docs/decisions.md), with noise of its own for every point and every call; a `BatchNorm` takes the
statistics of the batch; anything else is done point by point.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import paramax
from flowjax.bijections import AbstractBijection, Chain
from flowjax.distributions import AbstractTransformed
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from tiltflow.models.batch_norm import BatchNorm, RunningStatistics
from tiltflow.models.continuous import ContinuousFlow
from tiltflow.models.integration import Noise, draw_probes
from tiltflow.models.leading import Leading

Trace = Literal["exact"] | Noise


class BatchLikelihood(NamedTuple):
    """Log-probabilities of n points (NaN where a solve failed), and what came of the way to them.

    The regularisers are summed over the flows and None where not asked for; `evaluations` are
    those of all flows; `statistics` are new ones, in the order of the bijections.
    """

    log_prob: Float[Array, " n"]
    kinetic_energy: Float[Array, " n"] | None
    jacobian_norm: Float[Array, " n"] | None
    evaluations: Int[Array, ""]
    reached: Bool[Array, ""]
    statistics: list[RunningStatistics]


def bijections_of(flow: AbstractTransformed) -> list[AbstractBijection]:
    """The bijections of a flow, the one next to the base first."""
    bijection = paramax.unwrap(flow.bijection)
    if not isinstance(bijection, Chain):
        return [bijection]
    return [each for each in bijection.merge_chains() if isinstance(each, AbstractBijection)]


def batch_likelihood(
    flow: AbstractTransformed,
    x: Float[Array, "n d"],
    key: PRNGKeyArray | None = None,
    *,
    trace: Trace = "exact",
    regularisers: bool = False,
    training: bool = False,
) -> BatchLikelihood:
    """Evaluate `flow` at the rows of `x`.

    `key` draws the noise, one probe for each point, and is not needed for the exact trace. In
    `training` batch norm takes the statistics of the batch, elsewhere the running ones.
    """
    log_det = jnp.zeros_like(x[:, 0])
    kinetic, jacobian = log_det, log_det
    evaluations, reached = jnp.asarray(0), jnp.asarray(True)
    statistics: list[RunningStatistics] = []
    for i, bijection in reversed(list(enumerate(bijections_of(flow)))):
        continuous = bijection.bijection if isinstance(bijection, Leading) else bijection
        if isinstance(continuous, ContinuousFlow):
            probes = None
            if trace != "exact":
                assert key is not None
                keys = jax.random.split(jax.random.fold_in(key, i), len(x))
                draw = lambda key, width=continuous.probe_width: draw_probes(key, trace, 1, width)  # noqa: E731
                probes = jax.vmap(draw)(keys)
            (count,) = continuous.shape
            end, calls, arrived = continuous.solve(
                x[:, :count], probes, "base", regularisers=regularisers
            )
            assert end.log_det is not None
            x, change = jnp.concatenate([end.x, x[:, count:]], axis=1), end.log_det
            if end.kinetic_energy is not None and end.jacobian_norm is not None:
                kinetic, jacobian = kinetic + end.kinetic_energy, jacobian + end.jacobian_norm
            evaluations, reached = evaluations + calls, reached & arrived
        elif isinstance(bijection, BatchNorm) and training:
            x, change, new = bijection.normalise_batch(x)
            statistics.insert(0, new)
        else:
            x, change = jax.vmap(bijection.inverse_and_log_det)(x)
        log_det = log_det + change
    log_prob = flow.base_dist.log_prob(x) + log_det
    if not regularisers:
        return BatchLikelihood(log_prob, None, None, evaluations, reached, statistics)
    return BatchLikelihood(log_prob, kinetic, jacobian, evaluations, reached, statistics)
