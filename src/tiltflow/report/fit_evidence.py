"""What the report of a fit shows beside the estimator's attributes, all in the user's units.

Weights, log Z and the plots of the chains come from one call of the two witnesses.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from tiltflow.data.errors import InputError
from tiltflow.data.preprocessing import to_model_units, to_user_units
from tiltflow.evaluation.bridge import bridge_sampling
from tiltflow.evaluation.diagnostics import diagnose_chains
from tiltflow.evaluation.log_normalizer import importance_sampling
from tiltflow.evaluation.mode_weights import ModeWeights
from tiltflow.extreme_rows import ExtremeRows, find_extremes
from tiltflow.frozen import WITNESS_SEED, bounds_of, weigh_modes

if TYPE_CHECKING:
    from tiltflow.estimator import BalancedEBM


class LogZEstimate(NamedTuple):
    """One way to log Z, nats: what it is called, what it says, its error, how to read it."""

    name: str
    value: float
    stderr: float
    remark: str


class FitEvidence(NamedTuple):
    """Rows of the table and draws of the density, and what is made of them.

    `draws` are the chains of the witnesses, their columns not put back on a grid; the first half
    of the chains started at rows of the table, the other half at draws of the flow. Where no
    weights could be found, `weights` says why.
    """

    rows: Float[np.ndarray, "n d"]
    extremes: ExtremeRows
    samples: Float[np.ndarray, "m d"]
    draws: Float[np.ndarray, "sweeps chains d"]
    draw_log_prob: Float[np.ndarray, "sweeps chains"]
    rhat: Float[np.ndarray, " d"]
    ess_bulk: Float[np.ndarray, " d"]
    ess_tail: Float[np.ndarray, " d"]
    weights: ModeWeights | str
    weights_of: str
    log_z: tuple[LogZEstimate, ...]


def gather(
    estimator: "BalancedEBM",
    samples: Float[np.ndarray, "m d"],
    label_fn: Callable[[Shaped[np.ndarray, "n d"]], Any] | None = None,
) -> FitEvidence:
    """All of it, from a fitted estimator and samples of it."""
    witnesses = estimator._call_witnesses()
    recording = witnesses.recording
    position = np.asarray(recording.position, float)
    flat = to_user_units(estimator._bijection, position.reshape(-1, position.shape[-1]))
    draws = flat.reshape(position.shape)
    _, log_det = to_model_units(estimator._bijection, flat)
    draw_log_prob = np.asarray(recording.log_density, float) + log_det.reshape(position.shape[:2])
    # In units of their spread, so that the default precision loses no digits of a large mean.
    spread = np.maximum(flat.std(axis=0), np.finfo(float).tiny)
    found = diagnose_chains(jnp.asarray((draws - flat.mean(axis=0)) / spread, float))
    rhat, ess_bulk, ess_tail = (np.asarray(each, float) for each in found)
    rows = estimator._kept_rows
    return FitEvidence(
        rows=rows,
        extremes=estimator._extremes or find_extremes(estimator._log_prob, rows, None, len(rows)),
        samples=samples,
        draws=draws,
        draw_log_prob=draw_log_prob - estimator.log_normalizer_,
        rhat=rhat,
        ess_bulk=ess_bulk,
        ess_tail=ess_tail,
        weights=_weights(estimator, witnesses, label_fn),
        weights_of="modes" if label_fn is None else "labels",
        log_z=_log_z(estimator, witnesses),
    )


def _weights(
    estimator: "BalancedEBM", witnesses: Any, label_fn: Callable[..., Any] | None
) -> ModeWeights | str:
    frozen, to_rows, rows = estimator._frozen, estimator._to_rows, estimator.independent_rows_
    if label_fn is not None:
        return weigh_modes(frozen, witnesses, to_rows, label_fn, rows)
    try:
        return weigh_modes(frozen, witnesses, to_rows, None, rows)
    except InputError as error:  # the report of a fit that failed says so, and is written
        return f"No modes were found: {error}."


def _log_z(estimator: "BalancedEBM", witnesses: Any) -> tuple[LogZEstimate, ...]:
    importance = importance_sampling(witnesses.log_weights)
    bridge = bridge_sampling(witnesses.log_weights, witnesses.recording.log_ratio)
    bounds = bounds_of(jax.random.key(WITNESS_SEED), estimator._frozen, witnesses)
    return (
        LogZEstimate(
            "reported",
            estimator.log_normalizer_,
            estimator.log_normalizer_stderr_,
            "the surer one of several",
        ),
        LogZEstimate(
            "bridge sampling",
            float(bridge.log_z),
            float(bridge.stderr),
            "chains and draws of the flow together",
        ),
        LogZEstimate(
            "importance sampling",
            float(importance.log_z),
            float(importance.stderr),
            "draws of the flow alone",
        ),
        LogZEstimate(
            "annealed, from below",
            float(bounds.lower),
            float(bounds.lower_stderr),
            "a lower bound",
        ),
        LogZEstimate(
            "annealed, from above",
            float(bounds.upper),
            float(bounds.upper_stderr),
            "an upper bound",
        ),
    )
