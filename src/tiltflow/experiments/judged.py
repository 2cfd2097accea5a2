"""A trained model against the truth, by every figure that can be had.

In the plane everything is by quadrature, on a grid that also looks far outside of the data. Above,
log Z, draws and weights come from `tiltflow.sample` on the model's log-density, started at rows of
the data: its verdict is kept, since a figure is worth no more than that. A base that is not tilted
is normalised and drawn from directly.

    KL(truth || model)   on fresh points of the truth, or by quadrature
    KL(model || truth)   on draws of the model, or by quadrature
    SW2                  between draws of the model and fresh points; `..._floor` between two
                         samples of the truth: smaller means nothing
    Fisher               at fresh points

The last two depend on units: those of the standardised data. Nothing here fails for a model that
ran away: its figures are nan or infinite, and the status says "broken".
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float

from tiltflow.data.targets import Target
from tiltflow.evaluation.diagnostics import diagnose_chains
from tiltflow.evaluation.distances import fisher_divergence, sliced_wasserstein
from tiltflow.evaluation.quadrature import (
    draw,
    kl_divergence,
    mode_weights,
    nested_grid_around,
    normalise,
)
from tiltflow.experiments.problem import (
    Problem,
    exact_log_prob,
    label_shares,
    labels_of,
    model_log_density,
    truth_in_model_units,
)
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampler import SampleResult, sample
from tiltflow.training.adaptive_sweeps import WarmUpSettings

POINTS = 20_000
CHAINS = 256
SAMPLES, DRAWS = 65_536, 8192
"""Draws that weights are counted by, whose standard error is .002, and those looked at one by one.

By 8192 a weight of .4 has an error of .004, more than most methods make.
"""
INTERVAL = 2 * 1.96
"""Standard errors from one end of a 95 % interval to the other."""


class NoEnergy(eqx.Module):
    """E = 0: the base alone, such as a flow by maximum likelihood."""

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Zero."""
        return jnp.zeros((), x.dtype)


class Judged(NamedTuple):
    """Figures of one model; divergences in nats, with the standard error of what was sampled.

    `weight_stderr` is that of the least certain of `weights`.
    `status` is that of the verdict on the sampler's run, "quadrature", "exact draws" or "broken";
    `reasons` are the verdict's.
    """

    status: str
    reasons: list[str]
    weights: list[float]
    weight_error_data: float
    weight_error_truth: float
    weight_stderr: float
    kl: float
    kl_stderr: float
    reverse_kl: float
    reverse_kl_stderr: float
    sliced_wasserstein: float
    sliced_wasserstein_floor: float
    fisher: float
    log_z: float
    log_z_stderr: float


class Seen(NamedTuple):
    """What was found out about a model: its log Z, draws in model units and its modes' weights.

    `independent` is how many independent draws the draws are worth; `weight_stderr` the standard
    error of the least certain weight.
    """

    status: str
    reasons: list[str]
    log_z: float
    log_z_stderr: float
    draws: Float[np.ndarray, "n d"]
    independent: float
    weights: Float[np.ndarray, " modes"]
    weight_stderr: float


def judge_model(
    problem: Problem,
    model: TiltedEBM,
    *,
    seed: int,
    flow: AbstractDistribution | None = None,
    settings: WarmUpSettings | None = None,
    points: int = POINTS,
) -> Judged:
    """Judge a model of the problem's standardised rows on `points` fresh points of its target.

    `flow`, for more than two dimensions, is what the sampler proposes from at first; it should be
    the same for all models of a problem, as the flow fitted to its data is.
    """
    fresh = to_model(problem, draw_truth(problem.target, seed + 77_777, points))
    if not np.isfinite(model_log_density(problem, model, to_user(problem, fresh[:1]))).all():
        return broken(problem, "the log-density is not finite at the data")
    if problem.target.dimension == 2:
        return _judge_in_the_plane(problem, model, fresh, seed)
    if isinstance(model.energy, NoEnergy):
        seen = _by_exact_draws(problem, model.base, seed)
    else:
        try:
            result = sample(
                model.log_density,
                problem.x[:CHAINS],
                key=jax.random.key(seed + 1),
                num_samples=SAMPLES,
                settings=settings,
                flow=flow,
            )
        except (ValueError, RuntimeError) as error:
            # The sampler refuses a density that is not finite at its starts, and much can break
            # on the way where it runs to infinity: that is a finding, and no reason to stop.
            return broken(problem, " ".join(str(error).split()))
        seen = _by_sampling(problem, result, seed)
    rows, draws = to_user(problem, fresh), to_user(problem, seen.draws)
    log_z = seen.log_z
    gaps = exact_log_prob(problem.target, rows) - model_log_density(problem, model, rows) + log_z
    reverse = (
        model_log_density(problem, model, draws) - log_z - exact_log_prob(problem.target, draws)
    )
    with np.errstate(invalid="ignore", over="ignore"):
        return _judged(
            problem,
            model,
            fresh,
            seen,
            seed,
            kl=float(gaps.mean()),
            kl_stderr=float(np.hypot(gaps.std() / np.sqrt(points), seen.log_z_stderr)),
            reverse_kl=float(reverse.mean()),
            reverse_kl_stderr=float(
                np.hypot(reverse.std() / np.sqrt(seen.independent), seen.log_z_stderr)
            ),
        )


def broken(problem: Problem, reason: str) -> Judged:
    """The figures of a model that has none."""
    nan = float("nan")
    return Judged("broken", [reason], [nan] * len(problem.share), *[nan] * 12)


def to_model(problem: Problem, rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows in model units."""
    return (rows - problem.mean) / problem.scale


def to_user(problem: Problem, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows in the target's own units."""
    return z * problem.scale + problem.mean


def draw_truth(target: Target, seed: int, n: int) -> Float[np.ndarray, "n d"]:
    """Fresh points of the target."""
    return np.asarray(_draw(target, jax.random.key(seed), n), dtype=float)


@eqx.filter_jit
def _draw(target: Target, key: Array, n: int) -> Float[Array, "n d"]:
    return target.sample(key, n)


def _judge_in_the_plane(
    problem: Problem, model: TiltedEBM, fresh: Float[np.ndarray, "n 2"], seed: int
) -> Judged:
    grid = nested_grid_around(problem.data)
    points = grid.points
    truth = exact_log_prob(problem.target, points)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        log_prob, log_z = normalise(grid, model_log_density(problem, model, points))
        if not np.isfinite(log_z):
            return broken(problem, f"log Z on the grid is {log_z}")
        labels = labels_of(problem.target, points)
        seen = Seen(
            status="quadrature",
            reasons=[],
            log_z=log_z,
            log_z_stderr=0.0,
            draws=to_model(problem, draw(grid, log_prob, len(fresh), seed=seed)),
            independent=len(fresh),
            weights=mode_weights(grid, log_prob, labels, len(problem.share)),
            weight_stderr=0.0,
        )
        return _judged(
            problem,
            model,
            fresh,
            seen,
            seed,
            kl=kl_divergence(grid, truth, log_prob),
            kl_stderr=0.0,
            reverse_kl=kl_divergence(grid, log_prob, truth),
            reverse_kl_stderr=0.0,
        )


def _by_exact_draws(problem: Problem, base: AbstractDistribution, seed: int) -> Seen:
    draws = np.asarray(_draw_base(base, jax.random.key(seed + 1)), dtype=float)
    weights = label_shares(problem.target, to_user(problem, draws))
    stderr = float(np.sqrt(weights * (1 - weights) / len(draws)).max())
    return Seen("exact draws", [], 0.0, 0.0, draws[:DRAWS], DRAWS, weights, stderr)


@eqx.filter_jit
def _draw_base(base: AbstractDistribution, key: Array) -> Float[Array, "n d"]:
    return base.sample(key, (SAMPLES,))


def _by_sampling(problem: Problem, result: SampleResult, seed: int) -> Seen:
    found = result.mode_weights(
        lambda rows: labels_of(problem.target, to_user(problem, np.asarray(rows, float)))
    )
    weights = np.zeros(len(problem.share))
    weights[found.labels] = found.weights
    sweeps, chains, _ = result.chains.shape
    worth = min(1.0, float(np.min(result.diagnostics.ess_bulk)) / (sweeps * chains))
    draws = np.asarray(result.samples, dtype=float)
    some = np.random.default_rng(seed).permutation(len(draws))[:DRAWS]
    return Seen(
        status=result.verdict.status,
        reasons=list(result.verdict.reasons),
        log_z=result.log_z,
        log_z_stderr=result.log_z_stderr,
        draws=draws[some],
        independent=max(1.0, min(len(some), len(draws) * worth)),
        weights=weights,
        weight_stderr=float(np.ptp(found.intervals, axis=1).max() / INTERVAL),
    )


def _judged(
    problem: Problem,
    model: TiltedEBM,
    fresh: Float[np.ndarray, "n d"],
    seen: Seen,
    seed: int,
    **divergences: float,
) -> Judged:
    """The figures that are had alike in any dimension, beside those that are not."""
    target, truth = problem.target, truth_in_model_units(problem)
    again = to_model(problem, draw_truth(target, seed + 99_999, len(seen.draws)))
    return Judged(
        status=seen.status,
        reasons=seen.reasons,
        weights=seen.weights.tolist(),
        weight_error_data=float(np.abs(seen.weights - problem.share).max()),
        weight_error_truth=float(np.abs(seen.weights - np.asarray(target.weights)).max()),
        weight_stderr=seen.weight_stderr,
        sliced_wasserstein=sliced_wasserstein(seen.draws, fresh, seed=seed),
        sliced_wasserstein_floor=sliced_wasserstein(again, fresh, seed=seed),
        fisher=fisher_divergence(truth.log_prob, model.log_density, fresh),
        log_z=seen.log_z,
        log_z_stderr=seen.log_z_stderr,
        **divergences,
    )


def judge_chains(positions: list[Float[np.ndarray, "chains d"]]) -> dict[str, Any]:
    """R-hat and effective draws of negative chains: the worst coordinate's.

    `positions` are the chains at the last reports of a training, some steps apart; the density has
    moved meanwhile, a little. `chains_ess` is the share of the draws; both nan for fewer than four.
    """
    if len(positions) < 4:
        return {"chains_rhat": float("nan"), "chains_ess": float("nan")}
    draws = np.stack(positions)
    found = diagnose_chains(jnp.asarray(draws))
    return {
        "chains_rhat": float(np.max(found.rhat)),
        "chains_ess": float(np.min(found.ess_bulk)) / (draws.shape[0] * draws.shape[1]),
    }
