"""All figures of the two witnesses of a density: log Z, diagnostics, and what the verdict needs.

log Z is taken from both by bridge sampling; importance sampling from the flow alone stands beside
it. A chain at log ratio r = log_density - log q accepts a proposal with probability

    a(r) = E_{y ~ q}[min(1, exp(r(y) - r))]

which the independent draws y tell for every r, however small it is: a chain for which a(r) is
next to nothing stands where the flow does not propose, and one is enough to know of a mode.

Regions are cells of k-means on the chains' draws; nobody has to name the modes. Their shares are
compared between chains and importance weights, and between the chains' two halves, which an
estimator starts at rows of data and at draws of the flow: a start that still shows.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from tiltflow.evaluation.bridge import bridge_sampling
from tiltflow.evaluation.diagnostics import (
    ChainDiagnostics,
    diagnose_chains,
    jump_rate,
    pareto_k,
)
from tiltflow.evaluation.log_normalizer import LogNormalizer, importance_sampling
from tiltflow.evaluation.mode_weights import (
    agreement,
    weights_from_chains,
    weights_from_importance,
)
from tiltflow.evaluation.witnesses import Witnesses
from tiltflow.sampling.sweep import Recording, unusable

REGIONS = 8
CLUSTERED_ROWS = 4000
NEARLY_EQUAL = 0.95
EXPECTED_MOVES = 0.1
"""A chain that expects fewer accepted proposals in its run is stuck."""


class Assessment(NamedTuple):
    """log Z by both witnesses and by the flow alone, the chains' diagnostics, and all figures."""

    log_normalizer: LogNormalizer
    importance: LogNormalizer
    diagnostics: ChainDiagnostics
    figures: dict[str, float]


def assess(witnesses: Witnesses) -> Assessment:
    """What the two witnesses say, and how far they agree.

    Raises:
        InputError: fewer than two chains or four recorded sweeps.
    """
    recording, draws, log_weights = witnesses
    bridge = bridge_sampling(log_weights, recording.log_ratio)
    importance = importance_sampling(log_weights)
    diagnostics = diagnose_chains(recording.position)
    rhat, bulk, tail = (np.asarray(each) for each in diagnostics)
    local = _mean(recording.local_acceptance_rate)
    regional, halves, jumps = _by_regions(recording, draws, log_weights)
    # Two exact estimates differ by rounding, of which nothing should be made.
    error = max(float(np.hypot(bridge.stderr, importance.stderr)), 1e-4)
    figures = {
        "rhat": float(rhat.max()),
        "ess_bulk": float(bulk.min()),
        "ess_tail": float(tail.min()),
        "pareto_k": _tail(log_weights, importance),
        "chain_pareto_k": float(pareto_k(recording.log_ratio.reshape(-1))),
        "importance_ess": float(importance.ess),
        "global_acceptance_rate": _mean(recording.global_acceptance_rate),
        "local_acceptance_rate": local,
        "local_acceptance_rate_high": local,
        "stuck_share": _stuck_share(recording, log_weights),
        "nan_share": max(_mean(unusable(np.asarray(log_weights))), _mean(recording.nan_share)),
        "inf_share": _mean(np.asarray(log_weights) == np.inf),
        "log_z": float(bridge.log_z),
        "log_z_stderr": float(bridge.stderr),
        "importance_log_z": float(importance.log_z),
        "log_z_disagreement": abs(float(bridge.log_z) - float(importance.log_z)) / error,
        "weight_disagreement": regional,
        "start_disagreement": halves,
        "jump_rate": jumps,
    }
    return Assessment(bridge, importance, diagnostics, figures)


def _mean(values: Any) -> float:
    return float(np.asarray(values).mean())


def _tail(log_weights: Float[Array, " k"], importance: LogNormalizer) -> float:
    """Pareto k of the weights, or 0 where they are equal but for a few per cent.

    The shape of a tail says nothing about harm where all of it carries no weight.
    """
    return 0.0 if float(importance.ess) > NEARLY_EQUAL else float(pareto_k(log_weights))


def _stuck_share(recording: Recording, log_weights: Float[Array, " k"]) -> float:
    """The share of the chains that, where they end, can hardly take a proposal, and took none.

    It is the later half of the sweeps that counts: a chain may have been trapped on the way.
    """
    later = len(recording.log_ratio) // 2
    probability = _acceptance(np.asarray(recording.log_ratio)[later:], np.asarray(log_weights))
    expected = len(recording.log_ratio) * probability.mean(axis=0)
    moved = np.asarray(recording.moved)[later:].any(axis=0)
    return float(np.mean(~moved & (expected < EXPECTED_MOVES)))


def _acceptance(
    log_ratio: Float[np.ndarray, "sweeps n"], log_weights: Float[np.ndarray, " k"]
) -> Float[np.ndarray, "sweeps n"]:
    """a(r) at every log ratio r of the chains; 1 where r is -inf, 0 where it is nan or +inf."""
    weights = np.sort(np.where(np.isfinite(log_weights), log_weights, -np.inf).astype(float))
    smaller = np.searchsorted(weights, log_ratio, side="left")
    total = np.concatenate([[-np.inf], np.logaddexp.accumulate(weights)])[smaller]
    finite = np.isfinite(log_ratio)
    # Of the smaller weights each counts as its ratio to r, of the others as one.
    ratios = np.exp(total - np.where(finite, log_ratio, 0.0)) * finite
    at_least = np.where(np.isnan(log_ratio), 0, len(weights) - smaller)
    return (ratios + at_least) / len(weights)


def _by_regions(
    recording: Recording, draws: Float[Array, "k d"], log_weights: Float[Array, " k"]
) -> tuple[float, float, float]:
    """What `REGIONS` cells that cover the chains tell.

    The largest standardised difference of their shares between chains and importance weights, then
    between the two halves of the chains; and how often a chain changes its cell in a sweep.
    """
    from sklearn.cluster import KMeans  # here, because it takes a second

    position = np.asarray(recording.position, dtype=float)
    if not (np.isfinite(np.asarray(log_weights)).any() and np.isfinite(position).all()):
        return float("nan"), float("nan"), float("nan")
    rows = position.reshape(-1, position.shape[-1])
    generator = np.random.default_rng(0)
    some = rows[generator.permutation(len(rows))[:CLUSTERED_ROWS]]
    cells = KMeans(min(REGIONS, len(some)), n_init="auto", random_state=0).fit(some)
    sweeps, chains, _ = position.shape
    labels = np.asarray(cells.predict(rows)).reshape(sweeps, chains)
    finite = np.isfinite(np.asarray(draws, float)).all(axis=1)
    by_importance = weights_from_importance(
        np.asarray(cells.predict(np.asarray(draws, float)[finite])),
        np.asarray(log_weights, float)[finite],
    )
    half = chains // 2
    first, second = weights_from_chains(labels[:, :half]), weights_from_chains(labels[:, half:])
    between = agreement(weights_from_chains(labels), by_importance)
    return between, agreement(first, second), jump_rate(labels)
