"""Coordinates that a warm-up adapts, in which every direction is about one wide.

First by the Fisher information of the log-density's gradients (Titsias 2023), which a few chains
tell before they have moved; then by the spread of where they have been.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from tiltflow.sampling.coordinates import Rescaled
from tiltflow.training.adaptive_sweeps import WarmUpSettings, WarmUpState, initial_state


def fisher_coordinates(
    coordinates: Rescaled, state: WarmUpState, settings: WarmUpSettings
) -> tuple[Rescaled, WarmUpState]:
    """Scale 1 / sqrt(E[g_j^2]): for a Gaussian, the inverse root of its precision's diagonal."""
    square = np.mean(np.asarray(state.chains.gradient, float) ** 2, axis=0)
    # A direction without any slope keeps the steepest one's scale, or one.
    steepest = square.max() if square.max() > 0 else 1.0
    square = np.where(square > 0, square, steepest)
    centre = np.asarray(state.chains.position, float).mean(axis=0)
    return _moved(coordinates, centre, 1 / np.sqrt(square), state, settings)


def spread_coordinates(
    coordinates: Rescaled,
    rows: Float[np.ndarray, "rows d"],
    state: WarmUpState,
    settings: WarmUpSettings,
) -> tuple[Rescaled, WarmUpState]:
    """Coordinates in which the rows have median zero and width one.

    The width is half of the central 68 %: a deviation would be that of the tails where they are
    heavy, and then most points lie at zero.
    """
    low, middle, high = np.quantile(rows, [0.16, 0.5, 0.84], axis=0)
    width = np.where(high > low, (high - low) / 2, 1.0)
    return _moved(coordinates, middle, width, state, settings)


def _moved(
    coordinates: Rescaled,
    centre: Float[np.ndarray, " d"],
    scale: Float[np.ndarray, " d"],
    state: WarmUpState,
    settings: WarmUpSettings,
) -> tuple[Rescaled, WarmUpState]:
    """New coordinates, given in the old ones; a state with the chains where they are, no more."""
    position = (np.asarray(state.chains.position, float) - centre) / scale
    kind = state.chains.position.dtype
    refined = coordinates.refined(jnp.asarray(centre, kind), jnp.asarray(scale, kind))
    return refined, initial_state(refined, jnp.asarray(position, kind), state.flow, settings)
