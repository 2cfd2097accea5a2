"""Choosing the preprocessing: part of the model, so held-out likelihood decides.

Every candidate is scored, in the user's units, by the diagonal mixture that the proposal flow
will stand on: where that fits well, chains cross and energies start close.
"""

import numpy as np
from flowjax.bijections import AbstractBijection, Chain
from jaxtyping import Float

from tiltflow.data.errors import InputError
from tiltflow.data.preprocessing import fit_preprocessing, preprocessing_template, to_model_units
from tiltflow.training.bases import diagonal_components, diagonal_mixture_score

PREPROCESSINGS = ("standardise", "whiten", "gaussianise", "gaussianise+whiten")


def choose_preprocessing(
    name: str,
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    columns: list[str],
    *,
    seed: int,
) -> tuple[str, AbstractBijection]:
    """Fit the preprocessing called `name`, or for `"auto"` the best of `PREPROCESSINGS`.

    Raises:
        InputError: a column is constant, or whitening was asked for and the table is singular.
    """
    if name != "auto":
        return name, fit_steps(name, x, columns)
    best_name, best, best_score = "standardise", None, -np.inf
    for candidate in PREPROCESSINGS:
        try:
            bijection = fit_steps(candidate, x, columns)
        except InputError:
            # A table that cannot be whitened can still be standardised.
            if candidate == "standardise":
                raise
            continue
        z, _ = to_model_units(bijection, x)
        z_held_out, log_det = to_model_units(bijection, held_out)
        components = diagonal_components(len(x))
        score = diagonal_mixture_score(z, z_held_out, components, seed) + log_det.mean()
        if score > best_score:
            best_name, best, best_score = candidate, bijection, score
    assert best is not None
    return best_name, best


def fit_steps(
    name: str, x: Float[np.ndarray, "n d"], columns: list[str] | None = None
) -> AbstractBijection:
    """Fit the steps of `name` ("a" or "a+b") one after the other."""
    bijections = []
    for kind in name.split("+"):
        bijections.append(fit_preprocessing(x, kind, columns))  # pyright: ignore[reportArgumentType]
        x, _ = to_model_units(bijections[-1], x)
    return bijections[0] if len(bijections) == 1 else Chain(bijections)


def steps_template(name: str, dimension: int) -> AbstractBijection:
    """A bijection of the same structure as `fit_steps` makes, to be filled."""
    bijections = [preprocessing_template(kind, dimension) for kind in name.split("+")]  # pyright: ignore[reportArgumentType]
    return bijections[0] if len(bijections) == 1 else Chain(bijections)
