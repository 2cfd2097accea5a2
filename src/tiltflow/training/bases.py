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
    """The base of the model, its kind and description, and the fitted proposal flow."""

    base: AbstractDistribution
    kind: str
    description: str
    flow: AbstractDistribution
    held_out_log_likelihood: dict[str, float]


def diagonal_components(rows: int) -> int:
    """Components of the mixture under the proposal: fewer where rows are few."""
    return max(1, min(PROPOSAL_COMPONENTS, rows // 10))


def diagonal_mixture_score(
    x: Float[np.ndarray, "n d"], held_out: Float[np.ndarray, "m d"], components: int, seed: int
) -> float:
    """Mean held-out log-likelihood of the mixture under the proposal, before any training."""
    mixture = diagonal_mixture(x, components=components, seed=seed)
    return float(mixture.log_prob(jnp.asarray(held_out)).mean())


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
    if kind in ("auto", "flow"):
        candidates["flow"] = (fit.flow, f"coupling flow, {fit.steps} steps")
    held_out_array = jnp.asarray(held_out)
    scores = {
        name: float(base.log_prob(held_out_array).mean()) for name, (base, _) in candidates.items()
    }
    best = max(scores, key=lambda name: scores[name])
    base, description = candidates[best]
    if on_report:
        on_report({"stage": "base", "base": best, "description": description, **scores})
    return Start(base, best, description, fit.flow, scores)


def _staged(
    on_report: Callable[[dict[str, Any]], None] | None, stage: str
) -> Callable[[dict[str, Any]], None] | None:
    return None if on_report is None else lambda report: on_report({"stage": stage, **report})
