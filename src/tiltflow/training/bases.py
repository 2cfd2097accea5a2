"""Choosing the base density, and the first fit of the proposal flow, by held-out likelihood.

The base is part of the model and must generalise; the proposal is part of the sampler and only
has to overlap with the model. Both are fitted here, before the energy. The proposal always stands
on the best Gaussian mixture: a flow cannot tear one bump into several without leaving bridges.

A base that is a flow is this one or, where that is better on held-out rows, a mixture of flows or a
flow on one Gaussian; it then proposes as well. The last is for rows of one mode, in which a mixture
has laid its components side by side.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from flowjax.bijections import Affine
from flowjax.distributions import AbstractDistribution, Transformed
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.data.folds import FEW_HELD_OUT, simplest_within_error
from tiltflow.models.flows import SPLINE_MAX_DIMENSION, bounded_relu, coupling_flow
from tiltflow.models.gaussian_mixture import (
    Fitted,
    GaussianMixture,
    best_gaussian,
    best_mixture,
    mixture_in,
    mixture_template,
    most_components,
    small_mixture,
)
from tiltflow.models.mixture_of_flows import MixtureOfFlows
from tiltflow.sampling.quick_jit import quick_jit
from tiltflow.training.checkpoints import UNSAVED, Stage, replay
from tiltflow.training.maximum_likelihood import FlowFit, fit_flow

BaseKind = Literal["auto", "gaussian", "mixture", "flow"]
MIXTURE_OF_FLOWS = "mixture of flows"
ON_ONE_GAUSSIAN = "flow on one Gaussian"
FEWEST_COLUMNS = 5
"""Of a table that a flow on one Gaussian is fitted to; fewer are what mixtures are good at."""


class Start(NamedTuple):
    """The base of the model, its kind and description, and the fitted proposal flow.

    The log-likelihoods are held-out means in model units; `base_log_likelihood` is that of the
    base fitted to the training rows alone; a Gaussian or mixture is then fitted to all rows.
    """

    base: AbstractDistribution
    kind: str
    description: str
    flow: AbstractDistribution
    base_log_likelihood: float


def untaught_proposal(
    key: PRNGKeyArray,
    mixture: AbstractDistribution,
    transformer: Literal["auto", "spline", "affine"] = "auto",
    activation: Callable[[Array], Array] = jax.nn.relu,
) -> AbstractDistribution:
    """An unfitted proposal: a coupling flow on `mixture`, which stays as it is.

    In one dimension, where nothing can be coupled, an affine map of it.
    """
    frozen = paramax.non_trainable(mixture)
    if mixture.shape == (1,):
        return Transformed(frozen, Affine(jnp.zeros(1), jnp.ones(1)))
    return coupling_flow(key, frozen, transformer=transformer, activation=activation)


proposal_on = quick_jit(0)(untaught_proposal)
"""The same, compiled as a whole: layer by layer it is seconds."""


def proposal_for_rows(key: PRNGKeyArray, mixture: AbstractDistribution) -> AbstractDistribution:
    """An unfitted proposal that no outlier among rows can ruin."""
    return proposal_on(key, mixture, activation=bounded_relu)


def fit_proposal(
    key: PRNGKeyArray,
    mixture: AbstractDistribution,
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    *,
    max_steps: int = 4000,
    on_report: Callable[[dict[str, Any]], None] | None = None,
    stage: Stage = UNSAVED,
) -> FlowFit:
    """A proposal on `mixture`, fitted to the rows `x`."""
    flow_key, fit_key = jax.random.split(key)
    return fit_flow(
        fit_key,
        proposal_for_rows(flow_key, mixture),
        jnp.asarray(x),
        jnp.asarray(held_out),
        learning_rate=3e-3,
        weight_decay=1.0,
        max_steps=max_steps,
        on_report=on_report,
        stage=stage,
    )


mixture_of_flows_on = quick_jit(0)(MixtureOfFlows)
"""An unfitted mixture of flows on a Gaussian mixture, compiled as a whole."""


def choose_base(
    key: PRNGKeyArray,
    kind: str,
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    *,
    seed: int,
    on_report: Callable[[dict[str, Any]], None] | None = None,
    stage: Stage = UNSAVED,
) -> Start:
    """Fit the proposal and the base of the kind asked for; `"auto"` takes the best held-out one.

    What `stage` has saved is not done again; its reports are given once more.

    Raises:
        InputError: `kind` is not one of those of `BaseKind`.
    """
    if kind not in ("auto", "gaussian", "mixture", "flow"):
        raise InputError(f"base: '{kind}' is not known; use auto, gaussian, mixture or flow")
    if saved := stage.saved():
        base, flow = saved.fill(densities_template(saved.record["densities"], x.shape[1]))
        replay(saved.record["reports"], on_report)
        return Start(base=base, flow=flow, **saved.record["start"])
    reports: list[dict[str, Any]] = []

    def tell(report: dict[str, Any]) -> None:
        reports.append(report)
        if on_report:
            on_report(report)

    start = _choose_base(key, kind, x, held_out, seed, tell, stage)
    record = start._asdict()
    densities = record.pop("base"), record.pop("flow")
    of_densities = describe_densities(*densities)
    stage.done(densities, {"densities": of_densities, "start": record, "reports": reports})
    return start


def describe_densities(base: AbstractDistribution, flow: AbstractDistribution) -> dict[str, Any]:
    """What `densities_template` needs, as JSON, to make both anew."""
    mixture = isinstance(base, GaussianMixture)
    return {
        "base_components": _components(base) if mixture else None,
        "proposal_components": _components(flow),
        "mixture_of_flows": isinstance(flow, MixtureOfFlows),
        "bounded_proposal": any(leaf is bounded_relu for leaf in jax.tree.leaves(flow)),
    }


def densities_template(
    record: dict[str, Any], dimension: int
) -> tuple[AbstractDistribution, AbstractDistribution]:
    """The shapes of a base and a proposal as `describe_densities` saw them, to be filled."""
    mixture = mixture_template(record["proposal_components"], dimension)
    # The flows of models written before had ReLUs without bound.
    activation = bounded_relu if record.get("bounded_proposal") else jax.nn.relu
    make = (
        MixtureOfFlows
        if record["mixture_of_flows"]
        else partial(untaught_proposal, activation=activation)
    )
    flow = eqx.filter_eval_shape(make, jax.random.key(0), mixture)
    components = record["base_components"]
    base = flow if components is None else mixture_template(components, dimension)
    return base, flow


def _components(distribution: Any) -> int:
    """How many components the Gaussian mixture in `distribution` has."""
    mixture = mixture_in(distribution)
    assert mixture is not None
    return len(mixture.log_weights)


def _choose_base(
    key: PRNGKeyArray,
    kind: str,
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    seed: int,
    on_report: Callable[[dict[str, Any]], None],
    stage: Stage,
) -> Start:
    most = most_components(x.shape[1])
    mixture = best_mixture(x, held_out, seed=seed, max_components=most)
    flows = _fit_flows(key, kind, mixture, x, held_out, seed, on_report, stage)
    simple = {}
    if kind in ("auto", "gaussian"):
        simple["gaussian"] = best_gaussian(x, held_out)
    if kind in ("auto", "mixture"):
        simple["mixture"] = mixture
    held_out_array = jnp.asarray(held_out)

    def score(density: AbstractDistribution) -> Float[np.ndarray, " m"]:
        return np.asarray(density.log_prob(held_out_array), dtype=float)

    scores = {}
    if simple:
        best = simplest_within_error({name: fitted.scores for name, fitted in simple.items()})
        scores[best] = score(simple[best].density)
    for name, (fitted, _) in flows.items():
        # A flow that training did not improve is what it stands on, at ten times the price.
        asked_for = kind == "flow" and name == "flow"
        if asked_for or (kind in ("auto", "flow") and fitted.steps > 0):
            scores[name] = score(fitted.flow)
    best = chosen = simplest_within_error(scores)
    if best in flows:
        found, description = flows[best]
        base = flow = found.flow
        chosen = "flow"
    else:
        # The held-out rows have chosen; now they may help to fit. The tilt is judged on them all
        # the same, relative to the base, which they are in on both sides.
        base, description = (
            simple[best].fit(np.concatenate([x, held_out])),
            simple[best].description,
        )
        flow = flows["flow"][0].flow
    means = {name: float(values.mean()) for name, values in scores.items()}
    on_report({"stage": "base", "base": best, "description": description, **means})
    return Start(base, chosen, description, flow, float(scores[best].mean()))


def _fit_flows(
    key: PRNGKeyArray,
    kind: str,
    mixture: Fitted,
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    seed: int,
    on_report: Callable[[dict[str, Any]], None],
    stage: Stage,
) -> dict[str, tuple[FlowFit, str]]:
    """The proposal, which is "flow", and what else may be a base; each with its description."""
    fit = fit_proposal(
        key,
        mixture.density,
        x,
        held_out,
        on_report=_staged(on_report, "proposal"),
        stage=stage.part("proposal"),
    )
    flows = {"flow": (fit, f"coupling flow, {fit.steps} steps, on {mixture.description}")}
    if kind not in ("auto", "flow"):
        return flows
    # Few held-out rows could not tell it from a flow on a mixture.
    can_tell = x.shape[1] >= FEWEST_COLUMNS and len(held_out) >= FEW_HELD_OUT
    if can_tell and _components(mixture.density) > 1:
        gaussian = best_gaussian(x, held_out)
        one = fit_proposal(
            jax.random.fold_in(key, 3),
            gaussian.density,
            x,
            held_out,
            on_report=_staged(on_report, ON_ONE_GAUSSIAN),
            stage=stage.part(ON_ONE_GAUSSIAN),
        )
        description = f"coupling flow, {one.steps} steps, on one Gaussian, {gaussian.description}"
        flows[ON_ONE_GAUSSIAN] = one, description
    several = _fit_mixture_of_flows(
        jax.random.fold_in(key, 2),
        x,
        held_out,
        seed,
        _staged(on_report, MIXTURE_OF_FLOWS),
        stage.part(MIXTURE_OF_FLOWS),
    )
    if several is not None:
        flows[MIXTURE_OF_FLOWS] = several, f"{MIXTURE_OF_FLOWS}, {several.steps} steps"
    return flows


def _fit_mixture_of_flows(
    key: PRNGKeyArray,
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    seed: int,
    on_report: Callable[[dict[str, Any]], None],
    stage: Stage,
) -> FlowFit | None:
    """One on a few components, or none where splines serve better, or there are no modes."""
    if x.shape[1] <= SPLINE_MAX_DIMENSION:
        return None
    modes = small_mixture(x, seed=seed)
    if len(modes.log_weights) == 1:
        return None
    flow_key, fit_key = jax.random.split(key)
    return fit_flow(
        fit_key,
        mixture_of_flows_on(flow_key, modes),
        jnp.asarray(x),
        jnp.asarray(held_out),
        learning_rate=1e-2,
        weight_decay=1.0,
        max_steps=2000,
        patience=5,
        on_report=on_report,
        stage=stage,
    )


def _staged(
    on_report: Callable[[dict[str, Any]], None], stage: str
) -> Callable[[dict[str, Any]], None]:
    return lambda report: on_report({"stage": stage, **report})
