"""The two independent witnesses of a density: frozen chains, and fresh draws of their flow.

Whatever is reported of a density (log Z, a weight, an interval, the verdict) comes from these two,
never from a training buffer. Chains err by not crossing, a flow by not covering.
"""

from typing import NamedTuple

import jax
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
from tiltflow.sampling.recording import Recording, record_sweeps, weigh_draws

BURN_IN = 8


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
    step_size: Float[Array, ""],
    *,
    sweeps: int,
    local_steps: int,
    draws: int,
) -> Witnesses:
    """Run chains from `position`, `BURN_IN` sweeps and then `sweeps` recorded, and draw afresh."""
    burn_key, run_key, draw_key = jax.random.split(key, 3)
    burnt, _ = record_sweeps(burn_key, log_density, flow, position, step_size, BURN_IN, local_steps)
    _, recording = record_sweeps(
        run_key, log_density, flow, burnt.position, step_size, sweeps, local_steps
    )
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
