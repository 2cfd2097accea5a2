"""The modes of a log-density and the basin of every point, found by carrying points uphill.

Ascent: steepest ascent in coordinates in which the gradients g have E[g gᵀ] = I, with the step
length of Barzilai and Borwein (1988, equation 5) and Armijo's condition; a step that fails is
taken again, shorter. No step is longer than a quarter of the distance from the point to its fifth
neighbour at the start, so that narrow modes are not leapt over: where points end is then their
basin. One gradient for each step; under vmap a line search makes all points wait for the slowest.

Merging: two ends are one mode where a path between them dips less than `barrier` nats below the
lower end (clustering by persistence: Chazal, Guibas, Oudot and Skraba 2013, algorithm 1). Paths
are polygons through neighbours, before, on and after their way up, so that they can follow a bent
mode. The depth that counts is that below the lower of the two *merged* modes: a chain of ripples
joins, but a bump in the valley between two modes is no bridge.

One nat is the barrier between two equal normals 3.7 standard deviations apart. Closer ones overlap
so much (3 % of each lies in the other) that their shares say little, and what a learned
log-density ripples by is less.

Points beside those that were carried up need no ascent where their neighbours agree and no dip is
on the straight way to the nearest.

Shapes: n points in d dimensions, k of them carried up to find the m modes.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.spatial.distance import cdist

from tiltflow.data.errors import InputError
from tiltflow.sampling.chains import LogDensity

MOST_STARTS = 512
CHUNK = 512
LEVELS = (1, 3, 12)
NEIGHBOURS = 6
ROUNDS = 8
STILL_CLIMBING = 1e-3
STRIDE = 0.25
ON_A_SEGMENT = 32
LEVEL_GROUND = 0.1
AT_ONCE = 8192


class Modes(NamedTuple):
    """Modes by decreasing share of the points, their log-densities, and every point's mode.

    `paths` (levels, k, d) are the points carried up, from start to end, `path_labels` their modes
    and `scale` the factor L of the metric, in which L z is as long as z; `assign` needs them.
    """

    centers: Float[np.ndarray, "m d"]
    log_density: Float[np.ndarray, " m"]
    labels: Int[np.ndarray, " n"]
    paths: Float[np.ndarray, "levels k d"]
    path_labels: Int[np.ndarray, " k"]
    scale: Float[np.ndarray, "d d"]


def find_modes(
    log_density: LogDensity, points: Float[np.ndarray, "n d"], *, barrier: float = 1.0
) -> Modes:
    """The modes that the points lie in; up to 512 of the points, evenly spaced, find them.

    `log_density` takes one point; give a bound method of a module, not a new closure, so that it
    is compiled once. A point where it is not finite goes to the mode of its neighbours. Points
    that end apart from the modes found first join in a second search.

    Raises:
        InputError: fewer than two points, or cells that are not finite; the log-density is finite
            at fewer than two of the points.
    """
    points = np.asarray(points, float)
    if points.ndim != 2 or len(points) < 2 or not np.isfinite(points).all():
        raise InputError(
            f"points: found shape {points.shape}, {np.sum(~np.isfinite(points))} cells not finite; "
            "give at least two rows of finite numbers"
        )
    chosen = np.unique(np.linspace(0, len(points) - 1, MOST_STARTS).astype(int))
    scale = _metric(log_density, points[chosen])
    modes = _search(log_density, points[chosen], scale, barrier)
    labels, depth = _assign(log_density, points, modes)
    apart = np.setdiff1d(np.flatnonzero(depth > barrier), chosen)
    if len(apart):
        chosen = np.concatenate([chosen, apart[:MOST_STARTS]])
        modes = _search(log_density, points[chosen], scale, barrier)
        labels, _ = _assign(log_density, points, modes)
    count = np.bincount(labels, minlength=len(modes.centers))
    order = np.argsort(-count, kind="stable")
    rank = np.argsort(order)
    return modes._replace(
        centers=modes.centers[order],
        log_density=modes.log_density[order],
        labels=rank[labels],
        path_labels=rank[modes.path_labels],
    )


def assign(
    log_density: LogDensity, points: Float[np.ndarray, "n d"], modes: Modes
) -> Int[np.ndarray, " n"]:
    """The mode of every point: of its neighbours, or where it ends uphill."""
    return _assign(log_density, np.asarray(points, float), modes)[0]


def _assign(log_density: LogDensity, points: Any, modes: Modes) -> tuple[Any, Any]:
    """The mode of every point and the barrier to it; infinite where the density is not finite."""
    labels, sure = _by_neighbours(log_density, points, modes)
    depth = np.zeros(len(points))
    rest = np.flatnonzero(~sure)
    if len(rest):
        labels[rest], depth[rest] = _by_ascent(log_density, points[rest], modes)
    return labels, depth


def _by_neighbours(log_density: LogDensity, points: Any, modes: Modes) -> tuple[Any, Any]:
    """The mode of the nearest start, and whether that is sure without an ascent.

    It is where the nearest starts are all of this mode, and the straight way to the nearest dips
    less than `LEVEL_GROUND`: most points, at a tenth of the price. A point of density zero has
    nothing to dip from.
    """
    starts = _whitened(modes.paths[0], modes.scale)
    nearest = np.zeros(len(points), int)
    alike = np.zeros(len(points), bool)
    for first in range(0, len(points), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        distance = cdist(_whitened(points[part], modes.scale), starts)
        count = min(NEIGHBOURS, len(starts))
        near = np.argpartition(distance, count - 1, axis=1)[:, :count]
        of_near = modes.path_labels[near]
        nearest[part] = distance.argmin(axis=1)
        alike[part] = (of_near == of_near[:, :1]).all(axis=1)
    labels = modes.path_labels[nearest]
    asked = np.flatnonzero(alike)
    if not len(asked):
        return labels, alike
    here, there = points[asked], nearest[asked]
    heights = _values(log_density, modes.paths[0])[there]
    lower = np.minimum(_values(log_density, here), heights)
    alike[asked] = _lowest(log_density, here, modes.paths[0][there]) >= lower - LEVEL_GROUND
    return labels, alike


def _by_ascent(log_density: LogDensity, points: Any, modes: Modes) -> tuple[Any, Any]:
    """Carried uphill: the mode of the end with the least barrier, and that barrier."""
    starts, ends = modes.paths[0], modes.paths[-1]
    radius = _radius(cdist(_whitened(points, modes.scale), _whitened(starts, modes.scale)))
    levels, heights = _ascend(log_density, points, modes.scale, radius)
    distance = cdist(_whitened(levels[-1], modes.scale), _whitened(ends, modes.scale))
    near = np.argsort(distance, axis=1, kind="stable")[:, :4]
    here = np.repeat(levels[-1], near.shape[1], axis=0)
    saddle = _lowest(log_density, here, ends[near.ravel()]).reshape(near.shape)
    # Both ends of the segment bound the saddle, so the lower of them is found on it too.
    lower = np.minimum(heights[:, None], _values(log_density, ends)[near])
    depth = np.full(lower.shape, np.inf)
    np.subtract(lower, saddle, out=depth, where=np.isfinite(lower))
    best = np.argmin(depth, axis=1)
    rows = np.arange(len(points))
    labels = modes.path_labels[near[rows, best]]
    return labels, np.where(np.isfinite(heights), depth[rows, best], 0.0)


def _search(log_density: LogDensity, starts: Any, scale: Any, barrier: float) -> Modes:
    """Carry the starts up and merge their ends."""
    starts = starts[np.isfinite(_values(log_density, starts))]
    if len(starts) < 2:
        raise InputError(
            f"log_density: finite at {len(starts)} of the points; give at least 2 where it is"
        )
    between = cdist(_whitened(starts, scale), _whitened(starts, scale))
    radius = _radius(between, itself=True)
    levels, heights = _ascend(log_density, starts, scale, radius)
    keep = np.isfinite(heights)
    levels, heights, radius = levels[:, keep], heights[keep], radius[keep]
    edges, saddles = _neighbour_edges(log_density, levels, scale)
    labels = _persistent(heights, edges, saddles, barrier)
    peaks = np.unique(labels)
    climbing = np.zeros(len(peaks), bool)
    for _ in range(ROUNDS):
        peaks = np.unique(labels)
        # A stray point may still be on its way along a narrow ridge.
        further, top = _ascend(log_density, levels[-1][peaks], scale, radius[peaks])
        climbing = top - heights[peaks] > STILL_CLIMBING
        levels[-1][peaks], heights[peaks] = further[-1], np.maximum(top, heights[peaks])
        if len(peaks) == 1:
            break
        more = _edges_between(levels, labels, peaks, scale)
        level, pairs = more[:, 0], more[:, 1:]
        edges = np.concatenate([edges, pairs])
        low = _lowest(log_density, levels[level, pairs[:, 0]], levels[level, pairs[:, 1]])
        saddles = np.concatenate([saddles, low])
        labels = _persistent(heights, edges, saddles, barrier)
        if len(np.unique(labels)) == len(peaks) and not climbing.any():
            break
    else:
        labels = _without_strays(levels[-1], labels, peaks[climbing], scale)
    peaks, path_labels = np.unique(labels, return_inverse=True)
    none = np.zeros(0, int)
    return Modes(levels[-1][peaks], heights[peaks], none, levels, path_labels, scale)


def _without_strays(ends: Any, labels: Any, climbing: Any, scale: Any) -> Any:
    """What is on its way up to the last is no top: it joins the mode of the nearest end that is."""
    stray = np.isin(labels, climbing)
    if not stray.any() or stray.all():
        return labels
    whitened = _whitened(ends, scale)
    nearest = cdist(whitened[stray], whitened[~stray]).argmin(axis=1)
    joined = labels.copy()
    joined[stray] = labels[~stray][nearest]
    return joined


def _neighbour_edges(log_density: LogDensity, levels: Any, scale: Any) -> tuple[Any, Any]:
    """Pairs of neighbours at the start and at the end, joined at their best level, with saddles."""
    pairs = []
    for points in (levels[0], levels[-1]):
        distance = cdist(_whitened(points, scale), _whitened(points, scale))
        np.fill_diagonal(distance, np.inf)
        near = np.argsort(distance, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(points) - 1)]
        rows = np.repeat(np.arange(len(points)), near.shape[1])
        pairs.append(np.sort(np.stack([rows, near.ravel()], axis=1), axis=1))
    pairs = np.unique(np.concatenate(pairs), axis=0)
    saddles = [_lowest(log_density, up[pairs[:, 0]], up[pairs[:, 1]]) for up in levels]
    return pairs, np.max(saddles, axis=0, initial=-np.inf)


def _edges_between(levels: Any, labels: Any, peaks: Any, scale: Any) -> Any:
    """Rows (level, i, j): each mode's nearest pairs with its eight nearest modes, and the peaks."""
    whitened = [_whitened(points, scale) for points in levels]
    distance = cdist(whitened[-1][peaks], whitened[-1][peaks])
    edges = set()
    for a, row in enumerate(distance):
        for b in np.argsort(row, kind="stable")[1:9]:
            edges.add((len(levels) - 1, peaks[a], peaks[b]))
            i, j = np.flatnonzero(labels == peaks[a]), np.flatnonzero(labels == peaks[b])
            for level, points in enumerate(whitened):
                gap = cdist(points[i], points[j])
                for nearest in np.argsort(gap, axis=None)[:3]:
                    one, other = np.unravel_index(nearest, gap.shape)
                    edges.add((level, i[one], j[other]))
    return np.array(sorted(edges), int)


def _persistent(heights: Any, edges: Any, saddles: Any, barrier: float) -> Any:
    """Every end's mode, named by its highest end, after merging along edges from high to low."""
    parent = list(range(len(heights)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for edge in np.argsort(-saddles, kind="stable"):
        a, b = map(root, edges[edge].tolist())
        low, high = (a, b) if heights[a] < heights[b] else (b, a)
        if heights[low] - saddles[edge] <= barrier:
            parent[low] = high
    return np.array([root(i) for i in range(len(heights))])


def _metric(log_density: LogDensity, points: Any) -> Any:
    """Factor L of the inverse of E[g gᵀ], g the gradients at the points.

    For separate modes that is the mean precision *within* a mode, where the covariance would be
    that between modes. A hundredth of the points' own precision is added, for plateaus.
    """
    n, d = points.shape
    variance = np.maximum(points.var(axis=0), np.finfo(float).tiny ** 0.5)
    gradients = _in_chunks(_gradients, log_density, (points,), None) * variance**0.5
    norm = np.linalg.norm(gradients, axis=1)
    limit = 4 * np.median(norm[norm > 0]) if (norm > 0).any() else 1.0
    gradients *= np.minimum(1.0, limit / np.maximum(norm, limit))[:, None]
    precision = gradients.T @ gradients / n
    share = d / (n + d)
    precision = (1 - share) * precision + share * np.diag(np.diag(precision)) + 0.01 * np.eye(d)
    root = np.linalg.cholesky(precision)
    return variance[:, None] ** 0.5 * np.linalg.inv(root).T


def _whitened(points: Any, scale: Any) -> Any:
    return np.linalg.solve(scale, points.T).T


def _radius(distance: Any, *, itself: bool = False) -> Any:
    """The distance to the fifth neighbour; never zero, as between repeated points."""
    place = min(5 if itself else 4, distance.shape[1] - 1)
    radius = STRIDE * np.partition(distance, place, axis=1)[:, place]
    return np.where(radius > 0, radius, 1e-3)


def _ascend(log_density: LogDensity, points: Any, scale: Any, radius: Any) -> tuple[Any, Any]:
    """Points on their way, the start first: (levels, n, d); and the log-densities of the ends."""
    levels, heights = _in_chunks(_climb, log_density, (points, radius), scale)
    return np.concatenate([points[None], np.moveaxis(levels, 0, 1)]), heights


def _lowest(log_density: LogDensity, a: Any, b: Any) -> Any:
    """The lowest log-density on the segment of each pair of points; −inf where not finite."""
    return _in_chunks(_dip, log_density, (a, b), None)


def _values(log_density: LogDensity, points: Any) -> Any:
    return _in_chunks(_height, log_density, (points,), None)


def _in_chunks(function: Any, log_density: LogDensity, rows: Any, scale: Any) -> Any:
    """Apply a compiled function to all rows, in chunks of one size: it is compiled once."""
    n = len(rows[0])
    scale = None if scale is None else jnp.asarray(scale, float)
    results = []
    for place in np.arange(-(-n // CHUNK) * CHUNK).reshape(-1, CHUNK):
        chunk = [jnp.asarray(row[np.minimum(place, n - 1)], float) for row in rows]
        results.append(jax.tree.map(np.asarray, function(log_density, *chunk, scale)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:n].astype(float), *results)


def _finite(value: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.where(jnp.isfinite(value), value, -jnp.inf)


@eqx.filter_jit
def _height(log_density: LogDensity, points: Float[Array, "n d"], scale: None) -> Array:
    return jax.vmap(lambda x: _finite(log_density(x)))(points)


@eqx.filter_jit
def _dip(
    log_density: LogDensity, a: Float[Array, "n d"], b: Float[Array, "n d"], scale: None
) -> Float[Array, " n"]:
    place = jnp.linspace(0.0, 1.0, ON_A_SEGMENT)[:, None]

    def one(ends: tuple[Array, Array]) -> Float[Array, ""]:
        segment = (1 - place) * ends[0] + place * ends[1]
        return jax.vmap(lambda x: _finite(log_density(x)))(segment).min()

    return jax.vmap(one)((a, b))


@eqx.filter_jit
def _gradients(log_density: LogDensity, points: Float[Array, "n d"], scale: None) -> Array:
    gradient = jax.vmap(jax.grad(log_density))(points)
    return jnp.where(jnp.isfinite(gradient).all(axis=1, keepdims=True), gradient, 0.0)


@eqx.filter_jit
def _climb(
    log_density: LogDensity,
    points: Float[Array, "n d"],
    radius: Float[Array, " n"],
    scale: Float[Array, "d d"],
) -> tuple[Float[Array, "n levels d"], Float[Array, " n"]]:
    def value_and_gradient(x: Float[Array, " d"]) -> tuple[Array, Array]:
        value, gradient = jax.value_and_grad(log_density)(x)
        gradient = scale.T @ gradient
        return jnp.where(jnp.isfinite(gradient).all(), _finite(value), -jnp.inf), gradient

    def one(row: tuple[Array, Array]) -> tuple[Array, Array]:
        x, limit = row

        def step(state: Any, _: None) -> tuple[Any, None]:
            x, value, gradient, length = state
            norm = jnp.linalg.norm(gradient) + jnp.finfo(x.dtype).tiny
            move = jnp.minimum(length, limit / norm) * gradient
            new, slope = x + scale @ move, move @ gradient
            new_value, new_gradient = value_and_gradient(new)
            accepted = new_value >= value + 0.1 * slope
            curvature = move @ (gradient - new_gradient)
            bowl = curvature > 0
            longer = jnp.where(bowl, move @ move / jnp.where(bowl, curvature, 1.0), 4 * length)
            length = jnp.where(accepted, longer, 0.25 * jnp.minimum(length, limit / norm))
            kept = (x, value, gradient), (new, new_value, new_gradient)
            return (*jax.tree.map(lambda a, b: jnp.where(accepted, b, a), *kept), length), None

        value, gradient = value_and_gradient(x)
        gradient = jnp.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        # Newton step of the mean mode, in this metric; a top stays where it is.
        state = (x, value, gradient, jnp.ones_like(value))

        def eight_steps(state: Any, _: None) -> tuple[Any, Array]:
            state, _ = jax.lax.scan(step, state, length=8)
            return state, state[0]

        state, levels = jax.lax.scan(eight_steps, state, length=max(LEVELS))
        return levels[np.array(LEVELS) - 1], state[1]

    return jax.vmap(one)((points, radius))
