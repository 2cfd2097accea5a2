"""Maximum likelihood of continuous flows, with the regularisers that make them cheap.

    loss = -mean log p(x) + lambda_K mean int |T f|^2 ds + lambda_J mean int |T df/dx|_F^2 ds

(FFJORD: Grathwohl et al. 2019; the regularisers, RNODE: Finlay et al. 2020.) The integrals are over
s from 0 to 1 (`models/integration.py`), so that a longer end time T does not evade them. Every step
draws fresh noise for every point, and the trace and the Jacobian's norm share it. Held-out rows are
judged by the exact trace, at the cost of as many products as there are coordinates, or, as images
need it, by noise that is the same every time: the mean then has an error, but no bias. `fit_flow`
does the rest: a batch whose solve failed is a skipped step, counted, and a chunk of nothing else
ends in the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from flowjax.distributions import AbstractTransformed
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.models.batch_likelihood import Trace, batch_likelihood
from tiltflow.models.batch_norm import with_statistics
from tiltflow.models.failed_solves import check_solves
from tiltflow.training.maximum_likelihood import FlowFit, check_fit, fit_flow

SCORE_SEED = 0


@dataclass(frozen=True)
class ContinuousLikelihood:
    """The loss above; weights are lambda_K and lambda_J. `score_trace` is that of held-out rows.

    Raises:
        InputError: the trace is not known, or a weight is negative.
    """

    trace: Trace = "rademacher"
    kinetic_energy: float = 0.0
    jacobian_norm: float = 0.0
    score_trace: Trace = "exact"

    def __post_init__(self) -> None:
        for name in ("trace", "score_trace"):
            if (trace := getattr(self, name)) not in ("exact", "gaussian", "rademacher"):
                raise InputError(f"{name}: '{trace}' is not known; use exact, gaussian, rademacher")
        for name in ("kinetic_energy", "jacobian_norm"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}: found {getattr(self, name)}; give a weight >= 0")

    def loss(
        self, key: PRNGKeyArray, flow: Any, batch: Float[Array, "b d"]
    ) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        """Of one batch, with the regularisers and the number of calls of the field as figures."""
        regularised = self.kinetic_energy > 0 or self.jacobian_norm > 0
        result = batch_likelihood(
            flow, batch, key, trace=self.trace, regularisers=regularised, training=True
        )
        loss = -result.log_prob.mean()
        figures = {"evaluations": result.evaluations}
        if result.kinetic_energy is not None and result.jacobian_norm is not None:
            figures["kinetic_energy"] = result.kinetic_energy.mean()
            figures["jacobian_norm"] = result.jacobian_norm.mean()
            loss = loss + self.kinetic_energy * figures["kinetic_energy"]
            loss = loss + self.jacobian_norm * figures["jacobian_norm"]
        return loss, (with_statistics(flow, result.statistics), figures)

    def score(self, flow: Any, x: Float[Array, "n d"]) -> Array:
        """The mean log-likelihood, (), by the exact trace, or by `score_trace` with one noise."""
        key = jax.random.key(SCORE_SEED)
        return batch_likelihood(flow, x, key, trace=self.score_trace).log_prob.mean()

    def diagnose(self, flow: Any, x: Float[Array, "n d"]) -> None:
        """Integrate the rows once more and say what failed, by an `InputError`."""
        check_solves(flow, x)


def fit_continuous_flow(
    key: PRNGKeyArray,
    flow: AbstractTransformed,
    x: Float[Array, "n d"],
    held_out: Float[Array, "m d"],
    *,
    objective: ContinuousLikelihood | None = None,
    weight_decay: float = 1e-5,
    on_report: Callable[[dict[str, Any]], None] | None = None,
    **options: Any,
) -> FlowFit:
    """`fit_flow` for a stack of continuous flows, after a check that it can be integrated at all.

    `options` are those of `fit_flow`. Reports carry `evaluations`, the mean number of calls of the
    vector fields by a training step's solve.

    Raises:
        InputError: the start, or a whole chunk of training, cannot be integrated, or no held-out
            likelihood was ever finite; why, and what to do.
    """
    check_solves(flow, x[: options.get("batch_size", 512)])
    fit = fit_flow(
        key,
        flow,
        x,
        held_out,
        objective=objective or ContinuousLikelihood(),
        weight_decay=weight_decay,
        on_report=on_report,
        **options,
    )
    check_fit(fit)
    return fit
