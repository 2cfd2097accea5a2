"""A density at a coarser scale: convolved with a normal, by draws of it.

    q(x) = E_{y ~ p} N(x; y, diag(scale * spread)^2)

`spread` are the standard deviations of the columns among rows of the fit: those of the draws would
grow with the few that a heavy tail throws far. It is a kernel density estimate (Parzen 1962) of the
draws, whose noise is that of their number. What a density is at a point says how much there is of
it in the closest neighbourhood, which a narrow bump of few rows makes large; q says how much there
is within reach, as detectors by distance ask (Knorr and Ng 1998).
"""

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from tiltflow.data.settings import check_positive

BATCH = 1024


def smoothed_log_density(
    draws: Float[np.ndarray, "m d"],
    x: Float[np.ndarray, "n d"],
    spread: Float[np.ndarray, " d"],
    scale: float,
) -> Float[np.ndarray, " n"]:
    """Log q of each row of `x`, nats, in the units of the draws; normalised as these are.

    Raises:
        InputError: `scale` is not above 0, or has no end.
    """
    check_positive(scale=scale)
    # A column that is constant among the rows has the width of a number's last digits.
    last_digits = np.finfo(float).eps * np.abs(draws).max(axis=0) + np.finfo(float).tiny
    width = scale * np.maximum(spread, last_digits)
    constant = np.log(len(draws)) + np.log(np.sqrt(2 * np.pi) * width).sum()
    scaled = draws / width
    found = np.empty(len(x))
    for i in range(0, len(x), BATCH):
        with np.errstate(over="ignore"):  # as far as that the density is 0
            points = x[i : i + BATCH] / width
        squares = cdist(points, scaled, "sqeuclidean")
        found[i : i + BATCH] = logsumexp(-0.5 * squares, axis=1)
    return found - constant
