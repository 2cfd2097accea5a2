"""The two independent witnesses of a density: frozen chains, and fresh draws of their flow.

Whatever is reported of a density (log Z, a weight, an interval, the verdict) comes from these two,
never from a training buffer. Chains err by not crossing, a flow by not covering.
"""

from collections.abc import Callable
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
from tiltflow.sampling.paths import AnnealedPath
from tiltflow.sampling.recording import Sweeps, weigh_draws
from tiltflow.sampling.sweep import Recording


class Witnesses(NamedTuple):
    """Sweeps of stationary chains, and `draws` of the flow with their log-weights.

    Where chains are offered annealed paths, the draws are ends of such paths, and all weights and
    ratios are those of paths.
    """

    recording: Recording
    draws: Float[Array, "k d"]
    log_weights: Float[Array, " k"]


def call_witnesses(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    chains: Sweeps,
    *,
    sweeps: int,
    draws: int,
    path: AnnealedPath | None = None,
) -> Witnesses:
    """Run the chains, one block not recorded and then `sweeps`, and draw afresh.

    `path` is that of the chains' kernel, if it has one.
    """
    run_key, draw_key = (jax.random.fold_in(key, part) for part in range(2))
    state, blocks = chains.state, []
    for block in range(1 + -(-sweeps // chains.block)):
        state, recording = chains.run(jax.random.fold_in(run_key, block), state)
        blocks.append(recording)
    recording = jax.tree.map(_joined(sweeps), *blocks[1:])
    return Witnesses(recording, *weigh_draws(draw_key, log_density, flow, draws, path))


def _joined(sweeps: int) -> Callable[..., Array]:
    # On the host: there every number of blocks would be a program of its own.
    return lambda *parts: jnp.asarray(np.concatenate([np.asarray(it) for it in parts])[:sweeps])


def label_weights(
    chain_labels: Shaped[np.ndarray, "sweeps chains"],
    draw_labels: Shaped[np.ndarray, " k"],
    log_weights: Float[np.ndarray, " k"],
) -> WeightEstimate:
    """The weight of every label by both witnesses; by the chains alone if no draw has a weight.

    Raises as `weights_from_chains` does.
    """
    by_chains = weights_from_chains(chain_labels)
    if not np.isfinite(log_weights).any():
        return by_chains
    return combine(by_chains, weights_from_importance(draw_labels, log_weights))
