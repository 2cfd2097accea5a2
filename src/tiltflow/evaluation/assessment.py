"""All figures of the two witnesses of a density: log Z, diagnostics, and what the verdict needs.

log Z is taken from both by bridge sampling; importance sampling from the flow alone stands beside
it.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.cluster import KMeans

from tiltflow.evaluation.bridge import bridge_sampling
from tiltflow.evaluation.diagnostics import ChainDiagnostics, diagnose_chains, pareto_k
from tiltflow.evaluation.log_normalizer import LogNormalizer, importance_sampling
from tiltflow.evaluation.mode_weights import (
    agreement,
    weights_from_chains,
    weights_from_importance,
)
from tiltflow.evaluation.witnesses import Witnesses
from tiltflow.sampling.recording import Recording

REGIONS = 8
CLUSTERED_ROWS = 4000
NEARLY_EQUAL = 0.95


class Assessment(NamedTuple):
    """log Z by both witnesses and by the flow alone, the chains' diagnostics, and all figures."""

    log_normalizer: LogNormalizer
    importance: LogNormalizer
    diagnostics: ChainDiagnostics
    figures: dict[str, float]


def assess(witnesses: Witnesses) -> Assessment:
    """What the two witnesses say, and how far they agree."""
    recording, draws, log_weights = witnesses
    bridge = bridge_sampling(log_weights, recording.log_ratio)
    importance = importance_sampling(log_weights)
    diagnostics = diagnose_chains(recording.position)
    local = float(recording.local_acceptance_rate.mean())
    error = float(jnp.hypot(bridge.stderr, importance.stderr))
    # Two exact estimates differ by rounding, of which nothing should be made.
    error = max(error, 1e-4)
    figures = {
        "rhat": float(diagnostics.rhat.max()),
        "ess_bulk": float(diagnostics.ess_bulk.min()),
        "ess_tail": float(diagnostics.ess_tail.min()),
        "pareto_k": _tail(log_weights, importance),
        "chain_pareto_k": float(pareto_k(recording.log_ratio.ravel())),
        "importance_ess": float(importance.ess),
        "global_acceptance_rate": float(recording.global_acceptance_rate.mean()),
        "local_acceptance_rate": local,
        "local_acceptance_rate_high": local,
        "stuck_share": float(1 - recording.moved.any(axis=0).mean()),
        "nan_share": float(jnp.mean(jnp.isnan(log_weights) | (log_weights == jnp.inf))),
        "log_z": float(bridge.log_z),
        "log_z_stderr": float(bridge.stderr),
        "importance_log_z": float(importance.log_z),
        "log_z_disagreement": abs(float(bridge.log_z - importance.log_z)) / error,
        "weight_disagreement": _regional_disagreement(recording, draws, log_weights),
    }
    return Assessment(bridge, importance, diagnostics, figures)


def _tail(log_weights: Float[Array, " k"], importance: LogNormalizer) -> float:
    """Pareto k of the weights, or 0 where they are equal but for a few per cent.

    The shape of a tail says nothing about harm where all of it carries no weight.
    """
    return 0.0 if float(importance.ess) > NEARLY_EQUAL else float(pareto_k(log_weights))


def _regional_disagreement(
    recording: Recording, draws: Float[Array, "k d"], log_weights: Float[Array, " k"]
) -> float:
    """The largest standardised difference of the shares of `REGIONS` cells that cover the chains.

    The cells are those of k-means on a part of the chains' draws; nobody has to name the modes.
    """
    if not np.isfinite(np.asarray(log_weights)).any():
        return float("nan")
    position = np.asarray(recording.position, dtype=float)
    rows = position.reshape(-1, position.shape[-1])
    generator = np.random.default_rng(0)
    some = rows[generator.permutation(len(rows))[:CLUSTERED_ROWS]]
    cells = KMeans(min(REGIONS, len(some)), n_init="auto", random_state=0).fit(some)
    by_chains = weights_from_chains(np.asarray(cells.predict(rows)).reshape(position.shape[:2]))
    finite = np.isfinite(np.asarray(draws, float)).all(axis=1)
    by_importance = weights_from_importance(
        np.asarray(cells.predict(np.asarray(draws, float)[finite])),
        np.asarray(log_weights, float)[finite],
    )
    return agreement(by_chains, by_importance)
