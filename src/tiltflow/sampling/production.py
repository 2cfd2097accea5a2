"""Draws of a fitted model from frozen kernels: what a user gets as samples."""

import equinox as eqx
import jax
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.sampling.chains import Chains, LogDensity, refresh
from tiltflow.sampling.recording import importance_start
from tiltflow.sampling.sweep import FrozenKernel, sweep


@eqx.filter_jit
def draw_samples(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    kernel: FrozenKernel,
    chains: int,
    sweeps: int,
) -> Float[Array, "chains d"]:
    """The positions of `chains` independent chains after `sweeps`.

    They start at flow draws resampled by their importance weights.
    """
    start_key, run_key = jax.random.split(key)
    position = importance_start(start_key, log_density, flow, chains, 4 * chains)

    def step(state: Chains, sweep_key: PRNGKeyArray) -> tuple[Chains, None]:
        return sweep(sweep_key, state, log_density, flow, kernel)[0], None

    state = refresh(position, log_density)
    state, _ = jax.lax.scan(step, state, jax.random.split(run_key, sweeps))
    return state.position
