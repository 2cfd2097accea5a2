"""A target with its data: what every experiment trains on and is judged by."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, Int

from tiltflow.data.targets import Target
from tiltflow.evaluation.log_normalizer import (
    importance_sampling,
    normalised_weights,
)
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.recording import weigh_draws
from tiltflow.training.density import Density, batched_log_density


class Problem(NamedTuple):
    """Rows of a target, standardised by their own mean and scale, and split.

    `share` is each mode's share of all the rows.
    """

    target: Target
    data: Float[np.ndarray, "n d"]
    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    x: Float[np.ndarray, "n d"]
    held_out: Float[np.ndarray, "m d"]
    share: Float[np.ndarray, " modes"]


def make_problem(target: Target, *, rows: int, seed: int, held_out: float = 0.1) -> Problem:
    """Draw `rows` points and set `held_out` of them apart."""
    data = np.asarray(target.sample(jax.random.key(seed), rows), dtype=float)
    mean, scale = data.mean(axis=0), data.std(axis=0)
    standardised = (data - mean) / scale
    split = round(held_out * rows)
    return Problem(
        target=target,
        data=data,
        mean=mean,
        scale=scale,
        x=standardised[split:],
        held_out=standardised[:split],
        share=label_shares(target, data),
    )


def all_rows(problem: Problem) -> Float[np.ndarray, "n d"]:
    """Those to train on and those held out, standardised."""
    return np.concatenate([problem.x, problem.held_out])


def label_shares(target: Target, points: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " modes"]:
    """The share of the points in every mode of the target."""
    labels = labels_of(target, points)
    return np.bincount(labels, minlength=len(target.weights)) / len(points)


def labels_of(target: Target, points: Float[np.ndarray, "n d"]) -> Int[np.ndarray, " n"]:
    """The mode that each point belongs to."""
    return np.asarray(_labels(target, jnp.asarray(points)))


def exact_log_prob(target: Target, points: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    """The target's own log-density at each point."""
    return np.asarray(_log_probs(target, jnp.asarray(points)), dtype=float)


def model_log_density(
    problem: Problem, model: TiltedEBM, points: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """The model's unnormalised log-density in the target's own units."""
    z = (points - problem.mean) / problem.scale
    values = np.asarray(batched_log_density(model, jnp.asarray(z)), dtype=float)
    return values - np.log(problem.scale).sum()


class Standardised(AbstractDistribution):
    """The target itself in model units, of shape (d,): a normalised density to draw from."""

    shape: tuple[int, ...]
    cond_shape: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    target: Target
    mean: Float[Array, " d"]
    scale: Float[Array, " d"]

    def __init__(
        self,
        target: Target,
        mean: Float[np.ndarray, " d"],
        scale: Float[np.ndarray, " d"],
    ):
        """`mean` and `scale` are the rows' by which model units are made."""
        self.shape = (target.dimension,)
        self.target = target
        self.mean, self.scale = jnp.asarray(mean, float), jnp.asarray(scale, float)

    def _log_prob(self, x: Any, condition: Any = None) -> Array:
        return self.target.log_prob(self.mean + self.scale * x) + jnp.log(self.scale).sum()

    def _sample(self, key: Any, condition: Any = None) -> Array:
        return (self.target.sample(key, 1)[0] - self.mean) / self.scale


def truth_in_model_units(problem: Problem) -> Standardised:
    """The density that the standardised rows were drawn from."""
    return Standardised(problem.target, problem.mean, problem.scale)


class Judgement(NamedTuple):
    """A fitted density against the truth, on fresh points; KLs in nats with standard errors.

    `weights` come from importance-weighted draws of the flow.
    """

    kl: float
    kl_stderr: float
    base_kl: float
    flow_kl: float
    weights: Float[np.ndarray, " modes"]
    weight_error_data: float
    weight_error_truth: float
    acceptance_rate: float
    importance_ess: float


def judge(
    problem: Problem, density: Density, start_flow: eqx.Module, *, seed: int, points: int = 20_000
) -> Judgement:
    """Judge `density` on fresh points of the target; `start_flow` is the flow before any chain."""
    target = problem.target
    fresh = np.asarray(target.sample(jax.random.key(seed + 77_777), points), dtype=float)
    truth = exact_log_prob(target, fresh)
    y, log_weights = weigh_draws(
        jax.random.key(seed + 1), density.model.log_density, density.flow, 131_072
    )
    estimate = importance_sampling(log_weights)
    gap = truth - (model_log_density(problem, density.model, fresh) - float(estimate.log_z))
    z = jnp.asarray((fresh - problem.mean) / problem.scale)
    log_scale = np.log(problem.scale).sum()
    base_gap = truth - (np.asarray(_rows_log_prob(density.model.base, z)) - log_scale)
    flow_gap = truth - (np.asarray(_rows_log_prob(start_flow, z)) - log_scale)
    labels = labels_of(target, np.asarray(y) * problem.scale + problem.mean)
    weights = np.bincount(
        labels,
        weights=np.asarray(normalised_weights(log_weights)),
        minlength=len(target.weights),
    )
    last = [report for report in density.reports if "global_acceptance_rate" in report][-1]
    return Judgement(
        kl=float(gap.mean()),
        kl_stderr=float(np.hypot(gap.std() / np.sqrt(points), estimate.stderr)),
        base_kl=float(base_gap.mean()),
        flow_kl=float(flow_gap.mean()),
        weights=weights,
        weight_error_data=float(np.abs(weights - problem.share).max()),
        weight_error_truth=float(np.abs(weights - np.asarray(target.weights)).max()),
        acceptance_rate=last["global_acceptance_rate"],
        importance_ess=float(estimate.ess),
    )


@eqx.filter_jit
def _labels(target: Target, points: Float[Array, "n d"]) -> Int[Array, " n"]:
    return jax.lax.map(target.label, points, batch_size=8192)


@eqx.filter_jit
def _log_probs(target: Target, points: Float[Array, "n d"]) -> Float[Array, " n"]:
    return jax.lax.map(target.log_prob, points, batch_size=8192)


@eqx.filter_jit
def _rows_log_prob(distribution: Any, points: Float[Array, "n d"]) -> Float[Array, " n"]:
    return jax.lax.map(distribution.log_prob, points, batch_size=8192)
