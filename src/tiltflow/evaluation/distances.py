"""Distances between distributions that need no normaliser: by samples, and by scores.

    SW2(p, q)^2 = E_theta[ W2(theta . p, theta . q)^2 ],   theta uniform on the unit sphere
    F(p, q)     = 1/2 E_{x ~ p} | grad log p(x) - grad log q(x) |^2

(Bonneel, Rabin, Peyré, Pfister 2015, "Sliced and Radon Wasserstein barycenters of measures";
Hyvärinen 2005). W2 on a line is the distance of the two quantile functions, exactly. A published
shortcut compares second moments alone, and finds no distance between two points and a normal of
their variance. F is blind to the weights of modes that are far apart: it stands beside them.

Neither is invariant under a change of units: compare within one problem, in standardised ones.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tiltflow.sampling.chains import LogDensity


def sliced_wasserstein(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m d"],
    *,
    seed: int,
    x_weights: Float[np.ndarray, " n"] | None = None,
    y_weights: Float[np.ndarray, " m"] | None = None,
    projections: int = 128,
) -> float:
    """SW2 between two samples, weighted or not; nan where a row is not finite.

    Two samples of one distribution are not at distance 0: see what two samples of the truth give.
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    directions = np.random.default_rng(seed).standard_normal((projections, x.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    weights = [_normalised(x_weights, len(x)), _normalised(y_weights, len(y))]
    squares = [_squared_distance(x @ along, y @ along, *weights) for along in directions]
    return float(np.sqrt(np.mean(squares)))


def _normalised(weights: Float[np.ndarray, " n"] | None, n: int) -> Float[np.ndarray, " n"]:
    return np.full(n, 1 / n) if weights is None else weights / weights.sum()


def _squared_distance(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " m"],
    x_weights: Float[np.ndarray, " n"],
    y_weights: Float[np.ndarray, " m"],
) -> float:
    """W2^2 on the line: the integral of the squared gap of two quantile functions (steps)."""
    quantiles, levels = [], []
    for values, weights in ((x, x_weights), (y, y_weights)):
        order = np.argsort(values)
        quantiles.append(values[order])
        levels.append(np.cumsum(weights[order]))
    ends = np.sort(np.concatenate(levels))
    widths = np.diff(ends, prepend=0.0)
    # Sums of weights differ from 1 by rounding, so that a last level may lie beyond the other's.
    at_x, at_y = (
        values[np.minimum(np.searchsorted(level, ends), len(values) - 1)]
        for values, level in zip(quantiles, levels)
    )
    return float(widths @ (at_x - at_y) ** 2)


def fisher_divergence(
    log_prob: LogDensity, log_density: LogDensity, points: Float[np.ndarray, "n d"]
) -> float:
    """F from `log_prob`, of which `points` are draws, to `log_density`; nan or inf if a score is.

    Both take one point; pytrees, as bound methods of models are, are compiled once for all.
    """
    return float(np.mean(np.asarray(_gaps(log_prob, log_density, jnp.asarray(points)), float)))


@eqx.filter_jit
def _gaps(
    log_prob: LogDensity, log_density: LogDensity, points: Float[Array, "n d"]
) -> Float[Array, " n"]:
    def gap(x: Float[Array, " d"]) -> Float[Array, ""]:
        difference = jax.grad(log_prob)(x) - jax.grad(log_density)(x)
        return 0.5 * jnp.sum(difference**2)

    return jax.lax.map(gap, points, batch_size=8192)
