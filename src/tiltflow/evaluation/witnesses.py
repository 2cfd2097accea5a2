"""The two independent witnesses of a density: frozen chains, and fresh draws of their flow.

Whatever is reported of a density (log Z, a weight, an interval, the verdict) comes from these two,
never from a training buffer. Chains err by not crossing, a flow by not covering.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from tiltflow.evaluation.mode_weights import (
    WeightEstimate,
    combine,
    weights_from_chains,
    weights_from_importance,
)
from tiltflow.sampling.chains import LogDensity
from tiltflow.sampling.recording import FrozenKernel, Recording, record_sweeps, weigh_draws

BLOCK = 16


class Witnesses(NamedTuple):
    """Sweeps of stationary chains, and `draws` of the flow with their log-weights."""

    recording: Recording
    draws: Float[Array, "k d"]
    log_weights: Float[Array, " k"]


def call_witnesses(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    position: Float[Array, "chains d"],
    kernel: FrozenKernel,
    *,
    sweeps: int,
    draws: int,
) -> Witnesses:
    """Run chains from `position`, one block not recorded and then `sweeps`, and draw afresh.

    Sweeps run in blocks of `BLOCK`, so that one compilation serves every number of them.
    """
    run_key, draw_key = jax.random.split(key)
    blocks = []
    for block in range(1 + -(-sweeps // BLOCK)):
        block_key = jax.random.fold_in(run_key, block)
        chains, recording = record_sweeps(block_key, log_density, flow, position, kernel, BLOCK)
        position = chains.position
        blocks.append(recording)
    recording = jax.tree.map(lambda *parts: jnp.concatenate(parts)[:sweeps], *blocks[1:])
    return Witnesses(recording, *weigh_draws(draw_key, log_density, flow, draws))


def label_weights(
    chain_labels: Shaped[np.ndarray, "sweeps chains"],
    draw_labels: Shaped[np.ndarray, " k"],
    log_weights: Float[np.ndarray, " k"],
) -> WeightEstimate:
    """The weight of every label by both witnesses; by the chains alone if no draw has a weight."""
    by_chains = weights_from_chains(chain_labels)
    if not np.isfinite(log_weights).any():
        return by_chains
    return combine(by_chains, weights_from_importance(draw_labels, log_weights))
