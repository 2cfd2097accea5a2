"""Choosing the base density, and the first fit of the proposal flow, by held-out likelihood.

The base is part of the model and must generalise; the proposal is part of the sampler and only
has to overlap with the model. Both are fitted here, before the energy. The proposal always stands
on a Gaussian mixture: a flow cannot tear one bump into several without leaving bridges.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.models.flows import coupling_flow
from tiltflow.models.gaussian_mixture import best_gaussian, best_mixture, diagonal_mixture
from tiltflow.training.maximum_likelihood import fit_flow

BaseKind = Literal["auto", "gaussian", "mixture", "flow"]
PROPOSAL_COMPONENTS = 8


class Start(NamedTuple):
    """The base of the model, its kind and description, and the fitted proposal flow.

    The log-likelihoods are held-out means in model units; `base_log_likelihood` is that of the
    base fitted to the training rows alone.
    """

    base: AbstractDistribution
    kind: str
    description: str
    flow: AbstractDistribution
    base_log_likelihood: float


def diagonal_components(rows: int) -> int:
    """Components of the mixture under the proposal: fewer where rows are few."""
    return max(1, min(PROPOSAL_COMPONENTS, rows // 10))


def proposal_on(key: PRNGKeyArray, mixture: AbstractDistribution) -> AbstractDistribution:
    """An unfitted proposal: a coupling flow on `mixture`; in one dimension the mixture itself."""
    return mixture if mixture.shape == (1,) else coupling_flow(key, mixture)


def choose_base(
    key: PRNGKeyArray,
    kind: BaseKind,
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    *,
    seed: int,
    on_report: Callable[[dict[str, Any]], None] | None = None,
) -> Start:
    """Fit the proposal and the base of the kind asked for; `"auto"` takes the best held-out one.

    Raises:
        InputError: `kind` is not one of those of `BaseKind`.
    """
    if kind not in ("auto", "gaussian", "mixture", "flow"):
        raise InputError(f"base: '{kind}' is not known; use auto, gaussian, mixture or flow")
    flow_key, fit_key = jax.random.split(key)
    mixture = diagonal_mixture(x, components=diagonal_components(len(x)), seed=seed)
    fit = fit_flow(
        fit_key,
        proposal_on(flow_key, mixture),
        jnp.asarray(x),
        jnp.asarray(held_out),
        on_report=_staged(on_report, "proposal"),
    )
    candidates: dict[str, tuple[AbstractDistribution, str]] = {}
    if kind in ("auto", "gaussian"):
        candidates["gaussian"] = best_gaussian(x, held_out)
    if kind in ("auto", "mixture"):
        candidates["mixture"] = best_mixture(x, held_out, seed=seed)
    # A flow that training did not improve is the mixture it stands on, at ten times the price.
    if kind == "flow" or (kind == "auto" and fit.steps > 0):
        candidates["flow"] = (fit.flow, f"coupling flow, {fit.steps} steps")
    held_out_array = jnp.asarray(held_out)
    scores = {
        name: np.asarray(base.log_prob(held_out_array), dtype=float)
        for name, (base, _) in candidates.items()
    }
    best = simplest_within_error(scores)
    base, description = candidates[best]
    if on_report:
        means = {name: float(score.mean()) for name, score in scores.items()}
        on_report({"stage": "base", "base": best, "description": description, **means})
    return Start(base, best, description, fit.flow, float(scores[best].mean()))


def simplest_within_error(scores: dict[str, Float[np.ndarray, " m"]]) -> str:
    """The first candidate that no later one beats by more than one standard error.

    Candidates come from simple to flexible, with their log-likelihoods of the same held-out rows;
    differences are paired row by row (the one-standard-error rule, Breiman et al. 1984).
    """
    names = list(scores)
    best = names[0]
    for name in names[1:]:
        difference = scores[name] - scores[best]
        error = difference.std() / np.sqrt(len(difference))
        if difference.mean() > error:
            best = name
    return best


def _staged(
    on_report: Callable[[dict[str, Any]], None] | None, stage: str
) -> Callable[[dict[str, Any]], None] | None:
    return None if on_report is None else lambda report: on_report({"stage": stage, **report})
