"""One sweep of frozen kernels: a global move with fresh draws of the flow, then local moves.

The global move is independent Metropolis-Hastings with one draw for each chain, i-SIR with more
(`iterated.py`), or its form with the end of an annealed path (`paths.py`). Nothing adapts, so a
sweep leaves the density invariant. The warm-up of a sampler, its production, the judging of a fit
and the drawing of samples all make this sweep.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from tiltflow.sampling.adaptation import first_step_size
from tiltflow.sampling.chains import Chains, LogDensity, refresh
from tiltflow.sampling.independent import Proposals, independent_metropolis_hastings
from tiltflow.sampling.iterated import iterated_resampling
from tiltflow.sampling.kernels import LocalKernel, Preconditioner, local_moves
from tiltflow.sampling.paths import AnnealedPath, annealed_independent_move, path_between


class FrozenKernel(NamedTuple):
    """What a warm-up or a training left: the local kernel and its steps, and the global one.

    `proposals` are the flow's draws for each chain in a sweep; where there is a `path`, it is one
    draw, carried along it.
    """

    local: LocalKernel
    local_steps: int
    step_size: Float[Array, ""]
    preconditioner: Preconditioner | None = None
    proposals: int = 1
    path: AnnealedPath | None = None


def path_of(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    position: Float[Array, "n d"],
    kernel: FrozenKernel,
    count: int,
) -> AnnealedPath:
    """A path of `count` temperatures in the kernel's coordinates.

    Of another local kernel than MALA the step size says nothing; then it is that of round modes.
    """
    step_size = kernel.step_size
    if kernel.local != "mala":
        step_size = first_step_size(position)
    return path_between(key, log_density, flow, position, step_size, count, kernel.preconditioner)


class Recording(NamedTuple):
    """T sweeps of n chains in d dimensions, or one of them without the axis of sweeps.

    The chains stand where they were *before* the sweep, where log q of the flow is at hand.
    `log_ratio` is log_density - log q there, with a path the log-weight of the chain's own one,
    and need not be finite; `moved` tells which chains took their proposal. `nan_share` is the
    larger one of the shares of the global and of the local proposals that met a log-density that
    is nan or +inf.
    """

    position: Float[Array, "*sweeps n d"]
    log_density: Float[Array, "*sweeps n"]
    log_ratio: Float[Array, "*sweeps n"]
    moved: Bool[Array, "*sweeps n"]
    local_acceptance_rate: Float[Array, "*sweeps"]
    global_acceptance_rate: Float[Array, "*sweeps"]
    nan_share: Float[Array, "*sweeps"]


def sweep(
    key: PRNGKeyArray,
    chains: Chains,
    log_density: LogDensity,
    flow: AbstractDistribution,
    kernel: FrozenKernel,
    proposes: Bool[Array, ""] | None = None,
) -> tuple[Chains, Recording]:
    """The chains after one sweep, and the record of it.

    Where `proposes` is given and false, there is no global move, and log_ratio is nan.
    """
    global_key, local_key = jax.random.split(key)

    def offer() -> _Global:
        return _global_move(global_key, chains, log_density, flow, kernel)

    def skip() -> _Global:
        nothing = jnp.zeros((), chains.log_density.dtype)
        unknown = jnp.full_like(chains.log_density, jnp.nan)
        return _Global(chains, unknown, jnp.zeros(unknown.shape, bool), nothing, nothing)

    jumped = offer() if proposes is None else jax.lax.cond(proposes, offer, skip)
    after, local = local_moves(
        kernel.local,
        local_key,
        jumped.chains,
        log_density,
        kernel.step_size,
        kernel.local_steps,
        preconditioner=kernel.preconditioner,
    )
    record = Recording(
        position=chains.position,
        log_density=chains.log_density,
        log_ratio=jumped.log_ratio,
        moved=jumped.moved,
        local_acceptance_rate=local.acceptance_rate,
        global_acceptance_rate=jumped.acceptance_rate,
        nan_share=jnp.maximum(jumped.nan_share, local.nan_share),
    )
    return after, record


class _Global(NamedTuple):
    """The chains after a global move, and for the record: log_ratio from before it."""

    chains: Chains
    log_ratio: Float[Array, " n"]
    moved: Bool[Array, " n"]
    acceptance_rate: Float[Array, ""]
    nan_share: Float[Array, ""]


def _global_move(
    key: PRNGKeyArray,
    chains: Chains,
    log_density: LogDensity,
    flow: AbstractDistribution,
    kernel: FrozenKernel,
) -> _Global:
    if kernel.path is not None:
        after, moved, rate, log_weights, log_ratio = annealed_independent_move(
            key, chains, log_density, flow, kernel.path
        )
        return _Global(after, log_ratio, moved, rate, unusable(log_weights).mean())
    log_prob = flow.log_prob(chains.position)
    if kernel.proposals > 1:
        after, moved, rate, log_weights = iterated_resampling(
            key, chains, log_prob, log_density, flow, kernel.proposals
        )
    else:
        proposal_key, accept_key = jax.random.split(key)
        points, points_log_prob = flow.sample_and_log_prob(proposal_key, log_prob.shape)
        offered = Proposals(refresh(points, log_density), points_log_prob)
        log_weights = offered.log_weights
        after, moved, rate = independent_metropolis_hastings(accept_key, chains, log_prob, offered)
    log_ratio = chains.log_density - log_prob
    return _Global(after, log_ratio, moved, rate, unusable(log_weights).mean())


def unusable(log_weights: Any) -> Any:
    """Where the log-density is nan or +inf, of NumPy as of JAX: booleans of the same shape."""
    return ~(log_weights < np.inf)
