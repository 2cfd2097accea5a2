"""A closer look at log Z where the flow is in doubt: annealed bounds, and the verdict with them.

The bounds cost a compilation and gradients of both densities, so that they are asked for only where
a figure of the flow or of log Z is beyond its limit; they add reasons and take none away.
"""

import math

import jax
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.evaluation.annealed import LogNormalizerBounds, annealed_bounds
from tiltflow.evaluation.assessment import Assessment
from tiltflow.evaluation.verdict import Verdict, doubts, judge
from tiltflow.sampling.chains import LogDensity
from tiltflow.sampling.sweep import FrozenKernel, path_of

TEMPERATURES = 16
STANDARD_ERRORS = 3.0
ASKED_BY = {
    "pareto_k",
    "chain_pareto_k",
    "importance_ess",
    "global_acceptance_rate",
    "stuck_share",
    "log_z_disagreement",
    "log_z_stderr",
}


def bracket(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    position: Float[Array, "n d"],
    kernel: FrozenKernel,
) -> LogNormalizerBounds:
    """Bounds of log Z from n independent chains of the kernel at `position` and n draws.

    By the kernel's own path, or one of `TEMPERATURES`.
    """
    path_key, run_key = jax.random.split(key)
    path = kernel.path
    if path is None:
        path = path_of(path_key, log_density, flow, position, kernel, TEMPERATURES)
    return annealed_bounds(run_key, log_density, flow, position, path)


def judge_closely(
    key: PRNGKeyArray,
    assessment: Assessment,
    log_density: LogDensity,
    flow: AbstractDistribution,
    position: Float[Array, "n d"],
    kernel: FrozenKernel,
    ran_away: str | None = None,
) -> Verdict:
    """The verdict, by the bounds of log Z as well where something of it is in doubt.

    `position` is where the chains of the witnesses ended, all else what they were called with.
    """
    figures = assessment.figures
    if ASKED_BY & {each.figure for each in doubts(figures)}:
        bounds = bracket(key, log_density, flow, position, kernel)
        figures = figures | bracket_figures(bounds, figures["log_z"])
    return judge(figures, ran_away)


def bracket_figures(bounds: LogNormalizerBounds, log_z: float) -> dict[str, float]:
    """The bounds, how far apart they are, and how far log Z lies beyond their errors."""
    lower, lower_stderr, upper, upper_stderr = map(float, bounds[:4])
    below = lower - STANDARD_ERRORS * lower_stderr - log_z
    above = log_z - upper - STANDARD_ERRORS * upper_stderr
    return {
        "log_z_lower": lower,
        "log_z_upper": upper,
        # Infinite bounds, with infinite errors, exclude nothing.
        "bracket_excess": max(0.0, *(each for each in (below, above) if not math.isnan(each))),
        "bracket_width": upper - lower,
    }
