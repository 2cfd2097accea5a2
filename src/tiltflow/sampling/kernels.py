"""Local moves of many chains by any of BlackJAX's calibrated kernels, in learned coordinates.

    mala     Metropolis-adjusted Langevin (Besag 1994; Roberts and Tweedie 1996)
    barker   Barker's proposal, tolerant of a wrong step size (Livingstone and Zanella 2022)
    hmc      Hamiltonian Monte Carlo of fixed length (Duane et al. 1987; Neal 2011)
    nuts     the no-U-turn sampler, multinomial (Hoffman and Gelman 2014; Betancourt 2017)
    mclmc    microcanonical dynamics, Metropolis-adjusted (Robnik, Cohn-Gordon, Seljak 2025)

All of them leave the density invariant. The unadjusted MCLMC does not, so it is not offered; its
adjusted form is, which keeps its dynamics and renews the velocity once a move. All states of
BlackJAX hold position, log-density and gradient, as `Chains` do, so nothing is computed anew on
the way in or out.

A preconditioner is a change of coordinates, the same for every kernel: from a chain at x0,

    x = x0 + S z,    gradient in z = S^T (gradient in x),

with S diagonal (d,) or lower triangular (d, d). The kernels are invariant under shifts, so the
origin can be each chain's own place: a chain that does not move keeps every bit.
"""

from typing import Any, Literal, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
from blackjax.mcmc.barker import BarkerState
from blackjax.mcmc.hmc import HMCState
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.sampling.chains import Chains, LogDensity

LocalKernel = Literal["mala", "barker", "hmc", "nuts", "mclmc"]

# In a batch all chains wait for the longest trajectory: at most 2^8 gradients.
MAX_DOUBLINGS = 8
# Orbits of fixed length can be periodic, all the more in coordinates that make every direction
# alike; the length is therefore drawn anew for each move (Neal 2011, section 3.2).
JITTER = 0.2


class LocalInfo(NamedTuple):
    """What the local moves of a sweep were like, on average over chains.

    `gradients` is how many a chain asked for; `nan_share` the share of the proposals at which the
    log-density was nan or +inf (of nuts: of the trajectories that ended there).
    """

    acceptance_rate: Float[Array, ""]
    gradients: Float[Array, ""]
    nan_share: Float[Array, ""]


class Preconditioner(NamedTuple):
    """The scale S of the coordinates: a diagonal (d,) or a lower triangular matrix (d, d)."""

    scale: Float[Array, " d"] | Float[Array, "d d"]


def target_acceptance(kind: LocalKernel) -> float:
    """The acceptance rate at which the kernel's step size is usually best.

    MALA: Roberts and Rosenthal 1998; Barker: Vogrinc, Livingstone, Zanella 2023; HMC: Beskos et
    al. 2013; NUTS: Stan's default; adjusted MCLMC: Robnik et al. 2025.
    """
    return {"mala": 0.574, "barker": 0.40, "hmc": 0.651, "nuts": 0.8, "mclmc": 0.9}[kind]


def local_moves(
    kind: LocalKernel,
    key: PRNGKeyArray,
    chains: Chains,
    log_density: LogDensity,
    step_size: Float[Array, ""],
    steps: int,
    *,
    preconditioner: Preconditioner | None = None,
    integration_steps: int = 10,
) -> tuple[Chains, LocalInfo]:
    """Move every chain by `steps` moves of the kernel; nothing adapts.

    `integration_steps` is the length of a trajectory of hmc and mclmc (whose steps take two
    gradients each). The step size is BlackJAX's, in the preconditioned coordinates. A proposal
    whose log-density is nan or infinite is refused. Raises `InputError` for mclmc in one
    dimension, where its velocity can only keep or change its sign.
    """
    n, d = chains.position.shape
    if kind == "mclmc" and d < 2:
        raise InputError("kind: mclmc needs two dimensions or more, found 1; take nuts instead")
    # Without a preconditioner the coordinates are those of x, to the last bit.
    origin = jnp.zeros_like(chains.position) if preconditioner is None else chains.position

    def move(
        key: PRNGKeyArray, origin: Float[Array, " d"], state: Chains
    ) -> tuple[Chains, LocalInfo]:
        def density(z: Float[Array, " d"]) -> Float[Array, ""]:
            value = log_density(origin + _times_scale(preconditioner, z))
            # BlackJAX refuses nan and -inf, but would accept +inf and never leave it.
            return jnp.where(value < jnp.inf, value, jnp.nan)

        return _move(kind, key, state, density, step_size, integration_steps)

    def step(state: Chains, step_key: PRNGKeyArray) -> tuple[Chains, LocalInfo]:
        keys = jax.random.split(step_key, n)
        state, info = jax.vmap(move)(keys, origin, state)
        return state, jax.tree.map(lambda each: jnp.nan_to_num(each).mean(), info)

    start = Chains(
        chains.position - origin,
        chains.log_density,
        jax.vmap(lambda g: _times_transposed_scale(preconditioner, g))(chains.gradient),
    )
    end, info = jax.lax.scan(step, start, jax.random.split(key, steps))
    position = origin + jax.vmap(lambda z: _times_scale(preconditioner, z))(end.position)
    # A chain that stayed keeps its gradient: there and back again would round it each time.
    moved = (end.position != start.position).any(-1, keepdims=True)
    gradient = jnp.where(moved, _by_transposed_scale(preconditioner, end.gradient), chains.gradient)
    info = LocalInfo(info.acceptance_rate.mean(), info.gradients.sum(), info.nan_share.mean())
    return Chains(position, end.log_density, gradient), info


def learn_preconditioner(
    position: Float[Array, "n d"],
    kind: Literal["diagonal", "dense"],
    labels: Int[Array, " n"] | None = None,
) -> Preconditioner:
    """Coordinates in which the chains have about unit covariance; to be frozen in production.

    `labels` (0 to n - 1) name the mode of each chain: the covariance is then the pooled one within
    modes, without what separates them, which no local move should be scaled to. A dense
    covariance C of n chains is shrunk towards its diagonal D, to (1 - a) C + a D with
    a = (d / (n + d))^2: nothing where chains are many, so that strong correlations stay, and
    enough where they are few for an inverse. Chains that are not finite do not count; a
    direction in which nothing varies takes the mean variance of the others (or 1).
    """
    n, d = position.shape
    labels = jnp.zeros(n, int) if labels is None else labels
    finite = jnp.isfinite(position).all(-1)
    count = finite.astype(position.dtype)
    position = jnp.where(finite[:, None], position, 0.0)
    sizes = jnp.maximum(jax.ops.segment_sum(count, labels, n), 1.0)
    means = jax.ops.segment_sum(position, labels, n) / sizes[:, None]
    within = jnp.where(finite[:, None], position - means[labels], 0.0)
    total = jnp.maximum(count.sum(), 1.0)
    variance = (within**2).sum(0) / total
    varies = variance > 0
    others = jnp.sum(variance) / jnp.maximum(varies.sum(), 1)
    variance = jnp.where(varies, variance, jnp.where(others > 0, others, 1.0))
    deviation = jnp.sqrt(variance)
    if kind == "diagonal":
        return Preconditioner(deviation)
    unit = within / deviation
    # Of the correlations, not the covariance: units may differ by many orders of magnitude.
    share = (d / (total + d)) ** 2 + 10 * d * jnp.finfo(position.dtype).eps
    correlation = (1 - share) * (unit.T @ unit / total)
    correlation += jnp.diag(1 - jnp.diagonal(correlation))
    factor = jnp.linalg.cholesky(correlation)
    factor = jnp.where(jnp.isfinite(factor).all(), factor, jnp.eye(d))
    return Preconditioner(deviation[:, None] * factor)


def _move(
    kind: LocalKernel,
    key: PRNGKeyArray,
    state: Chains,
    log_density: LogDensity,
    step_size: Float[Array, ""],
    integration_steps: int,
) -> tuple[Chains, LocalInfo]:
    """One move of one chain."""
    parts: Any = state
    unit = jnp.ones_like(state.position)
    jitter_key, move_key = jax.random.split(key)
    jittered = step_size * jax.random.uniform(jitter_key, (), minval=1 - JITTER, maxval=1 + JITTER)
    gradients = 1
    if kind == "mala":
        # One leapfrog step of length sqrt(2 h) is MALA's move, and BlackJAX tells the proposal.
        end, info = blackjax.hmc.build_kernel()(
            key, HMCState(*parts), log_density, jnp.sqrt(2 * step_size), unit, 1
        )
        proposed = info.proposal.logdensity
    elif kind == "barker":
        end, info = blackjax.barker.build_kernel()(
            key, BarkerState(*parts), log_density, step_size, unit
        )
        proposed = info.proposal.logdensity
    elif kind == "hmc":
        end, info = blackjax.hmc.build_kernel()(
            move_key, HMCState(*parts), log_density, jittered, unit, integration_steps
        )
        proposed, gradients = info.proposal.logdensity, integration_steps
    elif kind == "nuts":
        end, info = blackjax.nuts.build_kernel()(
            key, HMCState(*parts), log_density, step_size, unit, MAX_DOUBLINGS
        )
        ends = (info.trajectory_leftmost_state, info.trajectory_rightmost_state)
        proposed, gradients = sum(each.logdensity for each in ends), info.num_integration_steps
    else:
        end, info = blackjax.adjusted_mclmc.build_kernel()(
            move_key, HMCState(*parts), log_density, jittered, (integration_steps,)
        )
        proposed, gradients = info.proposal.logdensity, 2 * integration_steps
    return Chains(*end), LocalInfo(
        info.acceptance_rate,
        jnp.asarray(gradients).astype(state.position.dtype),
        jnp.isnan(proposed).astype(state.position.dtype),
    )


def _times_scale(
    preconditioner: Preconditioner | None, z: Float[Array, " d"]
) -> Float[Array, " d"]:
    if preconditioner is None:
        return z
    scale = preconditioner.scale
    return scale * z if scale.ndim == 1 else scale @ z


def _times_transposed_scale(
    preconditioner: Preconditioner | None, gradient: Float[Array, " d"]
) -> Float[Array, " d"]:
    if preconditioner is None:
        return gradient
    scale = preconditioner.scale
    return scale * gradient if scale.ndim == 1 else gradient @ scale


def _by_transposed_scale(
    preconditioner: Preconditioner | None, gradient: Float[Array, "n d"]
) -> Float[Array, "n d"]:
    """S^-T times each gradient: back from the coordinates z to x."""
    if preconditioner is None:
        return gradient
    scale = preconditioner.scale
    if scale.ndim == 1:
        return gradient / scale
    return solve_triangular(scale, gradient.T, trans=1, lower=True).T
