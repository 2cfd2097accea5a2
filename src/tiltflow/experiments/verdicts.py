"""Is the verdict right? Good and spoiled fits with known mode weights, each judged as a fit is.

Chains start half at rows and half at importance-weighted draws of the flow, run as for an
estimator, and are judged. A verdict is wrong if it trusts a weight that is off: outside its 95 %
interval widened to twice its length (about four standard errors, since of many right intervals of
95 % some miss), or for which there is no truth because the density is not one.
"""

from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.evaluation.assessment import assess
from tiltflow.evaluation.bracket import judge_closely
from tiltflow.evaluation.mode_weights import ModeWeights, with_intervals
from tiltflow.evaluation.verdict import Verdict
from tiltflow.evaluation.witnesses import call_witnesses, label_weights
from tiltflow.experiments.known_fits import CHAINS, Fit, kinds
from tiltflow.report.table import format_table
from tiltflow.sampler import sample
from tiltflow.sampling import adaptation
from tiltflow.sampling.chains import LogDensity, refresh
from tiltflow.sampling.kernels import local_moves, target_acceptance
from tiltflow.sampling.recording import frozen_sweeps, importance_start
from tiltflow.sampling.sweep import FrozenKernel

SWEEPS = 32
DRAWS = 65_536
LOCAL_STEPS = 10


class Outcome(NamedTuple):
    """The verdict, the largest error of a weight, and whether intervals allow the errors."""

    verdict: Verdict
    error: float
    covered: bool
    off: bool


def judge_fit(key: PRNGKeyArray, fit: Fit, *, draws: int = DRAWS, sweeps: int = SWEEPS) -> Outcome:
    """The verdict on a fit and its mode weights against the truth."""
    if fit.flow is None:
        result = sample(fit.log_density, fit.rows[:CHAINS], key=key, num_samples=CHAINS * sweeps)
        weights = result.mode_weights(lambda x: _labels(fit.target, x))
        return _outcome(fit, result.verdict, weights)
    tune_key, start_key, run_key = jax.random.split(key, 3)
    bounds_key = jax.random.fold_in(key, 3)
    half = CHAINS // 2
    drawn = importance_start(start_key, fit.log_density, fit.flow, half, 4 * half)
    start = jnp.concatenate([fit.rows[:half], drawn])
    step_size = fit.step * _tuned_step(tune_key, fit.log_density, fit.rows[:half])
    kernel = FrozenKernel("mala", LOCAL_STEPS, step_size)
    witnesses = call_witnesses(
        run_key,
        fit.log_density,
        fit.flow,
        frozen_sweeps(fit.log_density, fit.flow, start, kernel),
        sweeps=sweeps,
        draws=draws,
    )
    position = np.asarray(witnesses.recording.position)
    labels = _labels(fit.target, position.reshape(-1, position.shape[-1]))
    weights = label_weights(
        labels.reshape(position.shape[:2]),
        _labels(fit.target, np.asarray(witnesses.draws)),
        np.asarray(witnesses.log_weights, float),
    )
    verdict = judge_closely(
        bounds_key,
        assess(witnesses),
        fit.log_density,
        fit.flow,
        witnesses.recording.position[-1],
        kernel,
    )
    return _outcome(fit, verdict, with_intervals(weights))


def reproduce_verdicts(*, seeds: int, seed: int, quiet: bool, out: Path) -> None:
    """Print how often each kind of fit is trusted, and how far off its weights then are."""
    rows, wrong, alarms = [], 0, {True: [0, 0, 0], False: [0, 0, 0]}
    for kind in kinds():
        keys = [jax.random.key(seed + index) for index in range(seeds)]
        outcomes = [judge_fit(jax.random.fold_in(key, 1), kind.make(key)) for key in keys]
        status = [outcome.verdict.status for outcome in outcomes]
        counts = [status.count(name) for name in ("trusted", "doubtful", "failed")]
        alarms[kind.good] = [a + b for a, b in zip(alarms[kind.good], counts)]
        wrong += sum(o.off and o.verdict.status == "trusted" for o in outcomes)
        reasons = [o.verdict.reasons[0] for o in outcomes if o.verdict.reasons]
        rows.append(
            [
                kind.name,
                "good" if kind.good else "spoiled",
                *map(str, counts),
                f"{max(outcome.error for outcome in outcomes):.4f}",
                f"{np.mean([outcome.covered for outcome in outcomes]):.0%}",
                reasons[0].split(";")[0].split(":")[0] if reasons else "",
            ]
        )
        if not quiet:
            print("  ".join(rows[-1]), flush=True)
    columns = ["fit", "is", "trusted", "doubtful", "failed", "error", "in 95 %", "first reason"]
    table = format_table(columns, rows)
    (out / "verdicts.txt").write_text(table + "\n")
    print(table)
    for good, name in ((True, "good"), (False, "spoiled")):
        trusted, doubtful, failed = alarms[good]
        print(f"{name} fits: {trusted} trusted, {doubtful} doubtful, {failed} failed")
    print(f"trusted although a weight is off by more than its interval allows: {wrong}")


def _outcome(fit: Fit, verdict: Verdict, estimate: ModeWeights) -> Outcome:
    """A label that was not seen has the weight zero, and is missed if it has mass."""
    if np.isnan(fit.weights).any():
        return Outcome(verdict, np.nan, False, True)
    weights, intervals = np.zeros(len(fit.weights)), np.zeros((len(fit.weights), 2))
    weights[estimate.labels], intervals[estimate.labels] = estimate.weights, estimate.intervals
    low, high = intervals.T
    length = high - low
    within = (low <= fit.weights) & (fit.weights <= high)
    near = (low - length / 2 <= fit.weights) & (fit.weights <= high + length / 2)
    error = np.abs(weights - fit.weights).max()
    return Outcome(verdict, float(error), bool(within.all()), not near.all())


@eqx.filter_jit
def _label_rows(target: Any, points: Float[Array, "n d"]) -> Array:
    return jax.lax.map(target.label, points, batch_size=8192)


def _labels(target: Any, points: Float[np.ndarray, "n d"]) -> np.ndarray:
    return np.asarray(_label_rows(target, jnp.asarray(points)))


@eqx.filter_jit
def _tuned_step(
    key: PRNGKeyArray, log_density: LogDensity, position: Float[Array, "n d"]
) -> Float[Array, ""]:
    """The step size of MALA after a hundred moves of dual averaging from the rows."""

    def move(state: Any, key: PRNGKeyArray) -> tuple[Any, None]:
        chains, tuning = state
        step_size = adaptation.current(tuning)
        chains, info = local_moves("mala", key, chains, log_density, step_size, 1)
        rate = info.acceptance_rate
        return (chains, adaptation.update(tuning, rate, target_acceptance("mala"))), None

    start = refresh(position, log_density), adaptation.init(jnp.asarray(0.1))
    (_, tuning), _ = jax.lax.scan(move, start, jax.random.split(key, 100))
    return adaptation.final(tuning)
