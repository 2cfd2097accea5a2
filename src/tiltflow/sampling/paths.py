"""Annealed paths between flow and target: weights of both directions, and an exact global move.

A path leads from the flow q towards the density p through

    log p_b = (1 - b) log q + b log p,     0 = b_0 < b_1 < ... < b_K = 1

with one MALA move at each b_k between, and has the weight (annealed importance sampling, Neal 2001)

    log w = sum_k (b_k - b_k-1) u(x_k-1),    u = log p - log q.

Upwards from a draw of q, E[w] = Z. A chain is carried down the same path, since MALA is its own
reversal, and pays the same weight; the two ends compete as in independent Metropolis-Hastings, of
which this is a form on the space of paths (compare Neal 1996, Andrieu, Doucet, Holenstein 2010).
So whatever may be done with weights of draws and of chains may be done with those of paths, bridge
sampling included (of paths: Crooks 1999). With K = 1 there is no move, and all is as without paths.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from tiltflow.sampling.chains import Chains, LogDensity, refresh
from tiltflow.sampling.independent import Proposals, independent_metropolis_hastings
from tiltflow.sampling.kernels import Preconditioner, local_moves

STEEPEST = 10.0
"""The two ends of a path may differ in precision by a factor of e^10; more is taken for that."""


class AnnealedPath(NamedTuple):
    """The b_1 < ... < b_K-1 between 0 and 1, maybe none, and MALA's step size at each."""

    temperatures: Float[Array, " k"]
    step_sizes: Float[Array, " k"]
    preconditioner: Preconditioner | None = None


@eqx.filter_jit
def path_between(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    position: Float[Array, "n d"],
    step_size: Float[Array, ""],
    count: int,
    preconditioner: Preconditioner | None = None,
) -> AnnealedPath:
    """A path of `count` temperatures, from the slopes of both ends.

    P_q is the median squared gradient of log q at n of its draws, P_p that of log p at the chains
    at `position`: of Gaussians their precisions, and then p_b has P_b = (1 - b) P_q + b P_p. The
    P_b are put in a geometric row, of which every step is equally long in Fisher's metric, and the
    step size, which is that of MALA at the target, falls as 1 / P_b.
    """
    draws = flow.sample(key, (len(position),))
    precisions = (_slope(position, log_density), _slope(draws, flow.log_prob))
    steepness = jnp.log(precisions[0]) - jnp.log(precisions[1])
    steepness = jnp.clip(jnp.nan_to_num(steepness), -STEEPEST, STEEPEST)
    # Where both are as steep, the row is even; and 0 / 0 is avoided.
    steepness = jnp.where(jnp.abs(steepness) < 0.01, 0.01, steepness)
    way = jnp.arange(1, count + 1) / (count + 1)
    temperatures = jnp.expm1(steepness * way) / jnp.expm1(steepness)
    return AnnealedPath(temperatures, step_size * jnp.exp(steepness * (1 - way)), preconditioner)


def _slope(position: Float[Array, "n d"], log_density: LogDensity) -> Float[Array, ""]:
    return jnp.nanmedian(jnp.sum(jax.vmap(jax.grad(log_density))(position) ** 2, -1))


def anneal(
    key: PRNGKeyArray,
    position: Float[Array, "n d"],
    log_density: LogDensity,
    flow: AbstractDistribution,
    path: AnnealedPath,
    *,
    down: bool = False,
) -> tuple[Float[Array, "n d"], Float[Array, " n"], Float[Array, ""]]:
    """Carry every point up the path, or down.

    Where they end, log w of their paths, and the mean acceptance rate of the moves. It costs
    2 (K - 1) gradients of both densities a point.
    """
    # The path ends at the target whatever was given, or nothing would be exact.
    increments = jnp.diff(path.temperatures, prepend=0.0, append=1.0)
    levels = (path.temperatures, path.step_sizes)
    if down:
        increments, levels = increments[::-1], jax.tree.map(lambda each: each[::-1], levels)

    def both(x: Float[Array, " d"], b: Float[Array, ""]) -> tuple[Array, Array]:
        target, proposal = log_density(x), flow.log_prob(x)
        return (1 - b) * proposal + b * target, target - proposal

    def move(
        carry: tuple[Float[Array, "n d"], Float[Array, " n"]],
        inputs: tuple[tuple[Array, Array], Float[Array, ""], PRNGKeyArray],
    ) -> tuple[tuple[Float[Array, "n d"], Float[Array, " n"]], Float[Array, ""]]:
        position, log_weight = carry
        (b, step_size), increment, move_key = inputs
        at_points = jax.vmap(jax.value_and_grad(both, has_aux=True), (0, None))
        (value, gain), gradient = at_points(position, b)
        chains, info = local_moves(
            "mala",
            move_key,
            Chains(position, value, gradient),
            lambda x: both(x, b)[0],
            step_size,
            1,
            preconditioner=path.preconditioner,
        )
        return (chains.position, log_weight + increment * gain), info.acceptance_rate

    keys = jax.random.split(key, len(path.temperatures))
    start = (position, jnp.zeros_like(position[:, 0]))
    (end, log_weight), rates = jax.lax.scan(move, start, (levels, increments[:-1], keys))
    last = jax.vmap(lambda x: log_density(x) - flow.log_prob(x))(end)
    return end, log_weight + increments[-1] * last, rates.mean()


def annealed_independent_move(
    key: PRNGKeyArray,
    chains: Chains,
    log_density: LogDensity,
    flow: AbstractDistribution,
    path: AnnealedPath,
) -> tuple[Chains, Bool[Array, " n"], Float[Array, ""], Float[Array, " n"], Float[Array, " n"]]:
    """Offer each chain the end of a path from a fresh draw of the flow; exact.

    Returns the chains, which of them moved, the mean acceptance rate, log w of the fresh paths, and
    log w of the paths from the chains down. Weights that are not finite are treated as in
    `independent_metropolis_hastings`.
    """
    draw_key, up_key, down_key, accept_key = jax.random.split(key, 4)
    start = flow.sample(draw_key, (len(chains.position),))
    end, log_weights, _ = anneal(up_key, start, log_density, flow, path)
    _, own, _ = anneal(down_key, chains.position, log_density, flow, path, down=True)
    new = refresh(end, log_density)
    moved, accepted, rate = independent_metropolis_hastings(
        accept_key, chains, chains.log_density - own, Proposals(new, new.log_density - log_weights)
    )
    return moved, accepted, rate, log_weights, own
