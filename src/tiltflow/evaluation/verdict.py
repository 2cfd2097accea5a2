"""The verdict on a density or a sampler: whether its figures may be believed, and if not, why.

Every figure is measured twice where it can be: once by the chains and once by the importance
weights of the flow's independent draws. They err in different ways (chains by not crossing, a flow
by not covering), so that their agreement is the best evidence there is. What the limits rest on,
for 512 chains of 32 sweeps after 16 not recorded, and 65 536 draws:

- R-hat of many short chains is sqrt(1 + (tau - 1) / 16), tau the integrated autocorrelation time
  in sweeps; it scatters by 0.002. The 1.01 of Vehtari et al. (2021) asks for the precision of
  four chains; here the chains' spread gives the error, and only the start must be forgotten. 1.15
  is tau = 6: of an error of the start 2 % is left when the record begins, 0.3 % in its mean. But
  chains locked in two modes show no more than 1.4 by ranks, in a rare mode 1.03: therefore the
- stuck chains. One that expects less than 0.1 accepted proposals in its run stands for a mass
  that neither chains nor draws can weigh, so that a single one is a doubt. Where the log-weights
  are normal and worth 20 % of the draws, 3e-5 of the mass lies so deep.
- Regions: the largest of 8 |z|. For independent draws its median is 1.7 and its 99 % quantile
  3.1; normal |z| exceed 4 in 5 of 10 000 verdicts.
- Pareto k of the weights 0.7 (Vehtari et al. 2024). Where the weights have the tail index k under
  the flow, they have k / (1 - k) under the density, which the chains are drawn from: 2.3.
- log Z: both estimates share the draws, so that they differ by less than their errors say; 3.5
  has room. 0.1 nats is what a log-likelihood is compared by.
- Acceptance of 5 % leaves 9 % of the start after 48 sweeps. 400 effective draws: Vehtari et al.
  (2021), so that the figures above can be believed.
- Annealed bounds of log Z are asked for where something of flow or log Z is in doubt already: their
  excess counts beyond three standard errors, and a bracket wider than those 0.1 nats is told.
- nan counts as zero mass: wrong by about its share. +inf has no mass that could be known.

No figure sees mass that neither a chain's start nor any of the draws has met: a hole of the energy
that fewer than one in 100 000 proposals hits may hold most of the mass and be trusted away.
"""

import math
from typing import Any, Literal, NamedTuple, get_args

Status = Literal["trusted", "doubtful", "failed"]


class Verdict(NamedTuple):
    """The status, one sentence for every reason, and the figures it was judged by."""

    status: Status
    reasons: tuple[str, ...]
    figures: dict[str, float]


class Criterion(NamedTuple):
    """A figure, its limits for doubt and for failure, and the sentence with the figure in it."""

    figure: str
    doubtful: float
    failed: float
    above: bool
    sentence: str


CRITERIA = (
    Criterion(
        "nan_share",
        0.001,
        0.1,
        True,
        "{value:.2%} of the proposals met a log-density that is nan or +inf: mend the "
        "log-density there.",
    ),
    Criterion(
        "inf_share",
        0.0,
        0.001,
        True,
        "{value:.2%} of the proposals met a log-density that is +inf, which has no mass that could "
        "be known: mend the log-density there.",
    ),
    Criterion(
        "rhat",
        1.15,
        1.5,
        True,
        "The chains disagree with one another (R-hat {value:.3f}): some have not crossed between "
        "modes; run longer, or start chains in every mode.",
    ),
    Criterion(
        "ess_bulk",
        400.0,
        50.0,
        False,
        "The chains are worth only {value:.0f} independent draws in their worst coordinate: run "
        "longer.",
    ),
    Criterion(
        "ess_tail",
        200.0,
        20.0,
        False,
        "The tails are worth only {value:.0f} independent draws in their worst coordinate: run "
        "longer.",
    ),
    Criterion(
        "pareto_k",
        0.7,
        1.5,
        True,
        "A few proposals carry most of the importance weight (Pareto k {value:.2f}): the flow does "
        "not cover the density's tails; train it longer or make it larger.",
    ),
    Criterion(
        "chain_pareto_k",
        2.3,
        math.inf,
        True,
        "A few points of the chains lie where the flow hardly ever proposes (Pareto k "
        "{value:.2f}): the flow misses a part of the density; train it longer.",
    ),
    Criterion(
        "importance_ess",
        0.02,
        0.0005,
        False,
        "Only {value:.2%} of the proposals count: the flow does not follow the density; train it "
        "longer or make it larger.",
    ),
    Criterion(
        "global_acceptance_rate",
        0.05,
        0.002,
        False,
        "Only {value:.1%} of the flow's proposals were accepted, so that chains hardly cross: "
        "train the flow longer or make it larger.",
    ),
    Criterion(
        "local_acceptance_rate",
        0.15,
        0.01,
        False,
        "Only {value:.1%} of the local moves were accepted: lower the step size.",
    ),
    Criterion(
        "local_acceptance_rate_high",
        0.98,
        1.01,
        True,
        "{value:.1%} of the local moves were accepted: the step size is too small to move.",
    ),
    Criterion(
        "stuck_share",
        0.0,
        0.1,
        True,
        "{value:.1%} of the chains can take no proposal of the flow: they stand where it does not "
        "propose, as in a mode that it misses; train it longer.",
    ),
    Criterion(
        "log_z_disagreement",
        3.5,
        20.0,
        True,
        "Two estimates of log Z, by importance sampling and by bridge sampling, differ by "
        "{value:.1f} of their standard errors: one of them misses a part of the density; run "
        "longer.",
    ),
    Criterion(
        "weight_disagreement",
        4.0,
        20.0,
        True,
        "The shares of regions by the chains and by the importance weights differ by {value:.1f} "
        "standard errors: one of them misses a mode; train the flow longer or start chains there.",
    ),
    Criterion(
        "start_disagreement",
        4.0,
        20.0,
        True,
        "The shares of regions by one half of the chains and by the other differ by {value:.1f} "
        "standard errors: they have not forgotten where they started; run longer.",
    ),
    Criterion(
        "log_z_stderr",
        0.1,
        1.0,
        True,
        "log Z is known to {value:.2f} nats only: use more draws.",
    ),
    Criterion(
        "bracket_excess",
        0.0,
        math.inf,
        True,
        "log Z lies {value:.2f} nats outside of the bounds that annealed paths between flow and "
        "density give: it is wrong, or the chains are not draws of the density.",
    ),
    Criterion(
        "bracket_width",
        0.1,
        math.inf,
        True,
        "Annealed paths between flow and density leave log Z open by {value:.2f} nats.",
    ),
)


def judge(figures: dict[str, float], ran_away: str | None = None) -> Verdict:
    """The verdict by the figures that are there; one that is not a number counts as the worst.

    `ran_away` says which quantity training lost and came back from; that alone is a doubt.
    """
    beyond = doubts(figures)
    failed = [c for c in beyond if _beyond(figures[c.figure], c.failed, c.above)]
    status: Status = "failed" if failed else "doubtful" if beyond else "trusted"
    reasons = [each.sentence.format(value=figures[each.figure]) for each in beyond]
    if ran_away is not None:
        status = "failed" if status == "failed" else "doubtful"
        reasons.append(f"Training ran away and stopped at its last good state: {ran_away}.")
    return Verdict(status, tuple(reasons), figures)


def doubts(figures: dict[str, float]) -> list[Criterion]:
    """The criteria whose figures are there and beyond the limit for doubt."""
    return [
        each
        for each in CRITERIA
        if each.figure in figures and _beyond(figures[each.figure], each.doubtful, each.above)
    ]


def _beyond(value: float, limit: float, above: bool) -> bool:
    return math.isnan(value) or (value > limit if above else value < limit)


def read_verdict(stored: dict[str, Any]) -> Verdict:
    """The verdict that `Verdict._asdict` became in JSON.

    Raises:
        ValueError: the status is not one of the three.
    """
    if stored["status"] not in get_args(Status):
        raise ValueError(f"verdict: status {stored['status']!r} is not known")
    figures = {str(name): float(value) for name, value in stored["figures"].items()}
    return Verdict(stored["status"], tuple(map(str, stored["reasons"])), figures)
