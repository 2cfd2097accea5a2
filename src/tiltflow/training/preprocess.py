"""Choosing the preprocessing: part of the model, so held-out likelihood decides.

Whether to bend the columns is decided by a small full mixture, which is blind to affine maps;
whether to whiten, by the proposal flow after a short fit on the mixture that it will stand on (a
flow on a smaller one chose against whitening on parkinsons, where that gains a nat). Both are
scored in the user's units, so that the Jacobian counts; with few rows the simpler one stays unless
it is clearly beaten.
"""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import AbstractBijection, Chain
from jaxtyping import Float

from tiltflow.data.errors import InputError
from tiltflow.data.folds import simplest_within_error, validation_splits
from tiltflow.data.preprocessing import fit_preprocessing, preprocessing_template, to_model_units
from tiltflow.models.gaussian_mixture import best_mixture, small_mixture
from tiltflow.training.bases import fit_proposal
from tiltflow.training.checkpoints import UNSAVED, Stage

SHORT_FIT = 1500
"""Steps of the fit that decides on whitening; after 500, HTRU_2 has 0.4 nats still to gain."""
PREPROCESSINGS = ("standardise", "whiten", "gaussianise", "gaussianise+whiten")


def choose_preprocessing(
    name: str,
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    columns: list[str],
    *,
    seed: int,
    stage: Stage = UNSAVED,
) -> tuple[str, AbstractBijection]:
    """Fit the preprocessing called `name`, or for `"auto"` the best of `PREPROCESSINGS`.

    Raises:
        InputError: a column is constant in all rows of both; whitening was asked for and the
            table is singular.
    """

    def choose() -> tuple[AbstractBijection, dict[str, Any]]:
        chosen, bijection = _choose(name, x, held_out, columns, seed, stage)
        return bijection, {"name": chosen}

    bijection, record = stage.once(
        choose, lambda record: steps_template(record["name"], x.shape[1])
    )
    return record["name"], bijection


def _choose(
    name: str,
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    columns: list[str],
    seed: int,
    stage: Stage,
) -> tuple[str, AbstractBijection]:
    # All rows but a few may have the same value in a column, and all of these may be held out.
    rows = x if _all_vary(x) else np.concatenate([x, held_out])
    if name != "auto":
        return name, fit_steps(name, rows, columns)
    fitted = {kind: fit_steps(kind, rows, columns) for kind in ("standardise", "gaussianise")}
    splits = [split for split in validation_splits(x, held_out) if _all_vary(split[0])]
    marginal = "standardise"
    if splits:
        marginal = simplest_within_error(
            {
                kind: np.concatenate(
                    [
                        # With one split its training rows are `x`, fitted already.
                        _mixture_scores(it if a is x else fit_steps(kind, a), a, b, seed)
                        for a, b in splits
                    ]
                )
                for kind, it in fitted.items()
            }
        )
    fitted = {marginal: fitted[marginal]}
    whitened = "whiten" if marginal == "standardise" else f"{marginal}+whiten"
    # A table that cannot be whitened can still be standardised.
    with contextlib.suppress(InputError):
        fitted[whitened] = fit_steps(whitened, rows, columns)
    best = simplest_within_error(
        {kind: _flow_scores(it, x, held_out, seed, stage.part(kind)) for kind, it in fitted.items()}
    )
    return best, fitted[best]


def _all_vary(x: Float[np.ndarray, "n d"]) -> bool:
    """Whether no column has one value in all rows."""
    return bool((x.min(axis=0) < x.max(axis=0)).all())


def _mixture_scores(
    bijection: AbstractBijection,
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    seed: int,
) -> Float[np.ndarray, " m"]:
    """Log-likelihood of each held-out row, user's units, of a small full mixture."""
    z, z_held_out, log_det = _both_in_model_units(bijection, x, held_out)
    mixture = small_mixture(z, seed=seed)
    return np.asarray(mixture.log_prob(jnp.asarray(z_held_out)), dtype=float) + log_det


def _flow_scores(
    bijection: AbstractBijection,
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    seed: int,
    stage: Stage,
) -> Float[np.ndarray, " m"]:
    """Log-likelihood of each held-out row, user's units, of the proposal flow after a short fit."""
    z, z_held_out, log_det = _both_in_model_units(bijection, x, held_out)
    mixture = best_mixture(z, z_held_out, seed=seed).density
    fit = fit_proposal(
        jax.random.key(seed), mixture, z, z_held_out, max_steps=SHORT_FIT, stage=stage
    )
    return np.asarray(fit.flow.log_prob(jnp.asarray(z_held_out)), dtype=float) + log_det


def _both_in_model_units(
    bijection: AbstractBijection, x: Float[np.ndarray, "n d"], held_out: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"], Float[np.ndarray, " m"]]:
    """Both parts in model units, and the log-determinant at every held-out row."""
    z, _ = to_model_units(bijection, x)
    z_held_out, log_det = to_model_units(bijection, held_out)
    return z, z_held_out, log_det


def fit_steps(
    name: str, x: Float[np.ndarray, "n d"], columns: list[str] | None = None
) -> AbstractBijection:
    """Fit the steps of `name` ("a" or "a+b") one after the other; raises as `fit_preprocessing`."""
    bijections = []
    for kind in name.split("+"):
        bijections.append(fit_preprocessing(x, kind, columns))  # pyright: ignore[reportArgumentType]
        x, _ = to_model_units(bijections[-1], x)
    return bijections[0] if len(bijections) == 1 else Chain(bijections)


def steps_template(name: str, dimension: int) -> AbstractBijection:
    """A bijection of the same structure as `fit_steps` makes, to be filled."""
    bijections = [preprocessing_template(kind, dimension) for kind in name.split("+")]  # pyright: ignore[reportArgumentType]
    return bijections[0] if len(bijections) == 1 else Chain(bijections)
