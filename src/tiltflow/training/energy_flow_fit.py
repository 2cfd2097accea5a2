"""Fitting an energy flow after preprocessing (Chao et al. 2023: "match after preprocessing").

    log p_user(x) = log p_model(z) + log|dz/dx|,      z = preprocessing(x)

Scores and noise are of z: a score matched through the preprocessing would be dominated by its
derivatives (a logit's are huge near black and white). The Jacobian is only in what is reported.
Before training, `ActNorm` layers are set by rows, and every layer must be invertible, then and
afterwards.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flowjax.bijections import AbstractBijection
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.data.preprocessing import to_model_units
from tiltflow.models.checked_flows import log_prob_in_parts
from tiltflow.models.energy_flow import EnergyFlow, check_invertible, normalise_activations
from tiltflow.training.flow_losses import FlowLoss
from tiltflow.training.flow_objective import LIKELIHOOD, Minimise
from tiltflow.training.maximum_likelihood import check_fit, fit_flow

AVERAGING = 0.999
ROWS_TO_NORMALISE = 4096


class EnergyFlowFit(NamedTuple):
    """The flow in model units, its mean held-out log-likelihood in the user's units, and steps.

    `skipped` are steps that were not finite; `stopped` is as in `FlowFit`.
    """

    flow: EnergyFlow
    held_out_log_likelihood: float
    steps: int
    skipped: int
    stopped: str | None = None


def fit_energy_flow(
    key: PRNGKeyArray,
    flow: EnergyFlow,
    X: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    *,
    preprocessing: AbstractBijection,
    loss: FlowLoss = LIKELIHOOD.of,
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    max_steps: int = 10_000,
    chunk: int = 200,
    patience: int = 10,
    averaging: float = AVERAGING,
    on_report: Callable[[dict[str, Any]], None] | None = None,
) -> EnergyFlowFit:
    """Fit `flow` to rows in the user's units; the best state on the held-out rows is kept.

    Raises:
        InputError: rows that the preprocessing does not take (pixels out of range); a layer that is
            singular, before training or after; a held-out likelihood that was never finite.
    """
    z, _ = _in_model_units(preprocessing, X, "X")
    z_held_out, log_det = _in_model_units(preprocessing, held_out, "held_out")
    flow = normalise_activations(flow, z[:ROWS_TO_NORMALISE])
    check_invertible(flow)
    jacobian = float(log_det.mean())

    def report(figures: dict[str, Any]) -> None:
        if on_report:
            in_user_units = figures["held_out_log_likelihood"] + jacobian
            on_report({**figures, "held_out_log_likelihood": in_user_units})

    fit = fit_flow(
        key,
        flow,
        z,
        z_held_out,
        learning_rate=learning_rate,
        batch_size=batch_size,
        max_steps=max_steps,
        chunk=chunk,
        patience=patience,
        objective=Minimise(loss),
        averaging=averaging,
        on_report=report,
    )
    check_fit(fit)
    assert isinstance(fit.flow, EnergyFlow)
    check_invertible(fit.flow)
    score = fit.held_out_log_likelihood + jacobian
    return EnergyFlowFit(fit.flow, score, fit.steps, fit.skipped, fit.stopped)


def user_log_prob(
    flow: AbstractDistribution, preprocessing: AbstractBijection, X: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """The log-density of rows in the user's units, in nats.

    Raises:
        InputError: rows that the preprocessing does not take.
    """
    z, log_det = _in_model_units(preprocessing, X, "X")
    return np.asarray(log_prob_in_parts(flow, z), float) + log_det


def _in_model_units(
    preprocessing: AbstractBijection, X: Float[np.ndarray, "n d"], name: str
) -> tuple[Float[Array, "n d"], Float[np.ndarray, " n"]]:
    if X.shape[1:] != preprocessing.shape:
        raise InputError(
            f"{name}: found rows of {X.shape[1]} numbers for a preprocessing of "
            f"{preprocessing.shape[0]}; give flat rows of that length"
        )
    z, log_det = to_model_units(preprocessing, X)
    bad = ~np.isfinite(z).all(axis=1)
    if bad.any():
        raise InputError(
            f"{name}: row {int(bad.argmax()) + 1} is not finite after preprocessing "
            f"({bad.sum()} such rows); bring its values into the range, or drop it"
        )
    return jnp.asarray(z), log_det
