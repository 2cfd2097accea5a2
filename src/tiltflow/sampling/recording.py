"""Long runs of frozen kernels with all that a judge of them needs to see, and draws of the flow.

The proposals of the recorded sweeps are not kept: chains are made of them, so that they are no
second opinion; `weigh_draws` makes one from fresh draws of the flow.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.sampling.chains import LogDensity, refresh
from tiltflow.sampling.paths import AnnealedPath, anneal
from tiltflow.sampling.quick_jit import quick_jit
from tiltflow.sampling.sweep import FrozenKernel, Recording, sweep

DRAWS_AT_ONCE = 8192
BLOCK = 16


Draw = Callable[
    [PRNGKeyArray, AbstractDistribution, int],
    tuple[Float[Array, "draws d"], Float[Array, " draws"]],
]
"""How many points of a density are drawn, with its log-density there."""


def independent_draws(
    key: PRNGKeyArray, density: AbstractDistribution, draws: int
) -> tuple[Float[Array, "draws d"], Float[Array, " draws"]]:
    """Each on its own; `systematic.py` has another way."""
    return density.sample_and_log_prob(key, (draws,))


class Sweeps(NamedTuple):
    """Sweeps in blocks of `block`: where they start, and how to run one block from there on.

    `state` is whatever `run` takes and returns. One compilation serves every number of blocks.
    """

    state: Any
    run: Callable[[PRNGKeyArray, Any], tuple[Any, Recording]]
    block: int


def frozen_sweeps(
    log_density: LogDensity,
    flow: AbstractDistribution,
    position: Float[Array, "n d"],
    kernel: FrozenKernel,
) -> Sweeps:
    """Sweeps of a frozen kernel from `position`."""

    def run(key: PRNGKeyArray, position: Float[Array, "n d"]) -> tuple[Array, Recording]:
        return record_sweeps(key, log_density, flow, position, kernel, BLOCK)

    return Sweeps(position, run, BLOCK)


@eqx.filter_jit
def record_sweeps(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    position: Float[Array, "n d"],
    kernel: FrozenKernel,
    sweeps: int,
) -> tuple[Float[Array, "n d"], Recording]:
    """Run `sweeps` from `position`; where the chains end, and the record of all sweeps.

    `log_density` takes one point; it is an argument, so that a model as a pytree costs no second
    compilation.
    """
    chains, recording = jax.lax.scan(
        lambda chains, sweep_key: sweep(sweep_key, chains, log_density, flow, kernel),
        refresh(position, log_density),
        jax.random.split(key, sweeps),
    )
    return chains.position, recording


@eqx.filter_jit
def importance_start(
    key: PRNGKeyArray, log_density: LogDensity, flow: AbstractDistribution, chains: int, pool: int
) -> Float[Array, "chains d"]:
    """Where chains may start: `pool` draws of the flow, resampled by their importance weights."""
    draw_key, choice_key = jax.random.split(key)
    points, log_weights = _weigh(draw_key, log_density, flow, pool, independent_draws)
    log_weights = jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf)
    # Not `categorical`, which would draw a number for every pair of a chain and a pool row.
    rows = jax.random.choice(choice_key, pool, (chains,), p=jax.nn.softmax(log_weights))
    return points[rows]


def weigh_draws(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    draws: int,
    path: AnnealedPath | None = None,
    draw: Draw = independent_draws,
) -> tuple[Float[Array, "draws d"], Float[Array, " draws"]]:
    """Fresh draws of the flow, or the ends of paths from them, and their log-weights.

    `draw` is how they are drawn where there is no path. `DRAWS_AT_ONCE` at most at a time: one
    compilation serves every number that is no smaller.
    """
    at_once = min(draws, DRAWS_AT_ONCE)
    keys = (jax.random.fold_in(key, part) for part in range(-(-draws // at_once)))
    parts = [
        weigh_some(each, log_density, flow, at_once, draw)
        if path is None
        else weigh_paths(each, log_density, flow, at_once, path)
        for each in keys
    ]
    y, log_weights = (np.concatenate([np.asarray(each) for each in part]) for part in zip(*parts))
    return jnp.asarray(y[:draws]), jnp.asarray(log_weights[:draws])


@quick_jit(1)
def weigh_some(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    draws: int,
    draw: Draw = independent_draws,
) -> tuple[Float[Array, "draws d"], Float[Array, " draws"]]:
    """`draws` of the flow and their log-weights, all at once."""
    return _weigh(key, log_density, flow, draws, draw)


def _weigh(
    key: PRNGKeyArray, log_density: LogDensity, flow: AbstractDistribution, draws: int, draw: Draw
) -> tuple[Float[Array, "draws d"], Float[Array, " draws"]]:
    y, log_prob = draw(key, flow, draws)
    return y, jax.vmap(log_density)(y) - log_prob


@eqx.filter_jit
def weigh_paths(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    draws: int,
    path: AnnealedPath,
) -> tuple[Float[Array, "draws d"], Float[Array, " draws"]]:
    """The ends of `draws` annealed paths and their log-weights, all at once."""
    draw_key, up_key = jax.random.split(key)
    return anneal(up_key, flow.sample(draw_key, (draws,)), log_density, flow, path)[:2]
