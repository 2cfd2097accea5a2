"""The share of mass of every basin of a log-density, by both witnesses."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from tiltflow.evaluation.basins import assign, find_modes
from tiltflow.evaluation.mode_weights import WeightEstimate
from tiltflow.evaluation.witnesses import label_weights
from tiltflow.sampling.chains import LogDensity


def basin_weights(
    log_density: LogDensity,
    chains: Float[np.ndarray, "sweeps chains d"],
    draws: Float[np.ndarray, "k d"],
    log_weights: Float[np.ndarray, " k"],
) -> tuple[WeightEstimate, Float[np.ndarray, "m d"]]:
    """Modes are found from the chains, by decreasing weight; their labels' weights and centres.

    Raises as `find_modes` does.
    """
    sweeps, n, d = chains.shape
    modes = find_modes(log_density, chains.reshape(-1, d))
    finite = np.isfinite(log_weights)
    labels: Int[np.ndarray, " k"] = np.zeros(len(draws), int)
    if len(modes.centers) > 1:  # of one mode all are
        labels[finite] = assign(log_density, draws[finite], modes)
    estimate = label_weights(modes.labels.reshape(sweeps, n), labels, log_weights)
    centers: Any = modes.centers[estimate.labels]
    return estimate, centers
