"""Sweeps of a ladder of models, of which the last is the target: parallel trajectory tempering.

All levels make the sweep of the frozen kernel, with one flow, and then neighbours swap points
(`tempering.py`; Béreux, Decelle, Furtlehner, Rosset, Seoane 2025). The product of all densities is
left invariant, so that the last level alone may be recorded. Where earlier models are flatter, or
nearer to the flow, points cross there and come up.
"""

import equinox as eqx
import jax
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.sampling.chains import Chains, LogDensity
from tiltflow.sampling.recording import BLOCK, Sweeps
from tiltflow.sampling.sweep import FrozenKernel, Recording, sweep
from tiltflow.sampling.tempering import refresh_ladder, swap_neighbours


def ladder_sweeps(
    levels: LogDensity,
    flow: AbstractDistribution,
    position: Float[Array, "levels n d"],
    kernel: FrozenKernel,
) -> Sweeps:
    """Sweeps of chains at every level, recorded at the last.

    `levels` is the log-density of `stack_levels`; the state is the positions at all levels.
    """

    def run(
        key: PRNGKeyArray, position: Float[Array, "levels n d"]
    ) -> tuple[Float[Array, "levels n d"], Recording]:
        return record_ladder(key, levels, flow, position, kernel, BLOCK)

    return Sweeps(position, run, BLOCK)


@eqx.filter_jit
def record_ladder(
    key: PRNGKeyArray,
    levels: LogDensity,
    flow: AbstractDistribution,
    position: Float[Array, "levels n d"],
    kernel: FrozenKernel,
    sweeps: int,
) -> tuple[Float[Array, "levels n d"], Recording]:
    """Run `sweeps` from `position`; where all levels end, and the record of the last.

    In the record `moved` and the rates are those of the level's own moves, without the swaps.
    """

    def step(ladder: Chains, step_key: PRNGKeyArray) -> tuple[Chains, Recording]:
        sweep_key, swap_key = jax.random.split(step_key)
        keys = jax.random.split(sweep_key, len(position))
        ladder, recordings = eqx.filter_vmap(
            lambda key, chains, level: sweep(key, chains, level, flow, kernel)
        )(keys, ladder, levels)
        ladder, _ = swap_neighbours(swap_key, ladder, levels)
        return ladder, jax.tree.map(lambda each: each[-1], recordings)

    start = refresh_ladder(position, levels)
    ladder, recording = jax.lax.scan(step, start, jax.random.split(key, sweeps))
    return ladder.position, recording
