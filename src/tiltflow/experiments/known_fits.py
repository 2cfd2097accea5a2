"""Fits with known mode weights, good ones and spoiled ones, for the verdict to be tried on.

A fit is a log-density, a proposal flow (the target's own mixture changed in one way, or one learnt
from the rows) and rows of data at which chains may start. Every spoiled fit leaves a trace in the
rows or in the flow's draws, however small: a mode that holds neither cannot be seen by them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution, StudentT
from jax.scipy.stats import norm, t
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data import mixtures
from tiltflow.data.funnel import Funnel
from tiltflow.data.targets import Rings, Target
from tiltflow.models.flows import coupling_flow, trainable
from tiltflow.models.gaussian_mixture import GaussianMixture, best_mixture
from tiltflow.sampling.chains import LogDensity

ROWS = 4000
CHAINS = 512
PLATEAU = -6.0


class Fit(NamedTuple):
    """What is judged: `weights` are the true ones of `target`'s labels, nan if there is no truth.

    `flow` None asks `tiltflow.sample` to find one, from the first `CHAINS` rows. The local step
    size is tuned on the rows and then multiplied by `step`.
    """

    target: Target
    log_density: LogDensity
    flow: AbstractDistribution | None
    rows: Float[Array, "n d"]
    weights: Float[np.ndarray, " m"]
    step: float = 1.0


class Kind(NamedTuple):
    """A kind of fit and how to make one from a key."""

    name: str
    good: bool
    make: Callable[[PRNGKeyArray], Fit]


class Banana(eqx.Module):
    """x_1 ~ N(0, 1), x_2 | x_1 ~ N(x_1^2 - 1, 1/4); the labels are its two arms."""

    dimension: int = 2

    @property
    def weights(self) -> Float[Array, " 2"]:
        """The exact share of mass of every arm."""
        return jnp.full(2, 0.5)

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n 2"]:
        """Independent points."""
        z = jax.random.normal(key, (n, 2))
        return z.at[:, 1].set(z[:, 0] ** 2 - 1 + 0.5 * z[:, 1])

    def log_prob(self, x: Float[Array, " 2"]) -> Float[Array, ""]:
        """Normalised log-density of one point, nats."""
        return norm.logpdf(x[0]) + norm.logpdf(x[1], x[0] ** 2 - 1, 0.5)

    def label(self, x: Float[Array, " 2"]) -> Array:
        """The arm of one point."""
        return (x[0] > 0).astype(int)


class Halves(eqx.Module):
    """Independent coordinates in two halves: Student t of `freedom`, or normal if that is None."""

    dimension: int = eqx.field(static=True)
    freedom: Float[Array, ""] | None = None

    @property
    def weights(self) -> Float[Array, " 2"]:
        """The exact share of mass of each half."""
        return jnp.full(2, 0.5)

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """Independent points."""
        shape = (n, self.dimension)
        if self.freedom is None:
            return jax.random.normal(key, shape)
        return jax.random.t(key, self.freedom, shape)

    def log_prob(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Normalised log-density of one point, nats."""
        return (norm.logpdf(x) if self.freedom is None else t.logpdf(x, self.freedom)).sum()

    def label(self, x: Float[Array, " d"]) -> Array:
        """0 below zero in the first coordinate, else 1."""
        return (x[0] > 0).astype(int)


class Blown(eqx.Module):
    """A target whose energy went wrong where x_0 > `beyond`; where not to normalise it.

    "nan" and "inf" (density infinite) from there on; "plateau": a density that grows again.
    """

    target: Any
    beyond: Float[Array, ""]
    what: str = eqx.field(static=True)

    def log_prob(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """The broken log-density of one point."""
        good, excess = self.target.log_prob(x), x[0] - self.beyond
        if self.what == "plateau":
            return jnp.where(excess > 0, jnp.logaddexp(good, PLATEAU + excess), good)
        return jnp.where(excess > 0, jnp.nan if self.what == "nan" else jnp.inf, good)


def _mixture(
    target: mixtures.GaussianMixture,
    *,
    stretch: float = 1.0,
    shift: float = 0.0,
    weights: Any = None,
) -> GaussianMixture:
    """The target as a flow, its components stretched and shifted by their own deviations."""
    roots = np.asarray(target.scale_trils, float)
    means = np.asarray(target.means, float) + shift * roots.sum(axis=2)
    weights = np.asarray(target.weights, float) if weights is None else np.asarray(weights)
    return GaussianMixture(weights, means, stretch**2 * roots @ roots.transpose(0, 2, 1))


def _learnt(rows: Float[Array, "n d"], components: int = 32) -> GaussianMixture:
    x = np.asarray(rows, float)
    held_out = len(x) // 5
    return best_mixture(x[held_out:], x[:held_out], seed=0, max_components=components).density


def _of(target: Any, **changes: Any) -> Callable[[PRNGKeyArray], Fit]:
    """Fits of `target`: a flow given, or learnt from the rows if none is."""

    def make(key: PRNGKeyArray) -> Fit:
        rows = target.sample(key, ROWS)
        given = changes if "flow" in changes else changes | {"flow": _learnt(rows)}
        fit = Fit(target, target.log_prob, None, rows, np.asarray(target.weights, float))
        return fit._replace(**given)

    return make


def _one_round(dimension: int) -> mixtures.GaussianMixture:
    return mixtures.gaussian_mixture(np.zeros((1, dimension)), np.eye(dimension)[None], np.ones(1))


def _two(first: float = 2 / 3) -> mixtures.GaussianMixture:
    two = mixtures.two_modes()
    return mixtures.GaussianMixture(two.means, two.scale_trils, np.array([first, 1 - first]))


def _first_mode_alone(target: mixtures.GaussianMixture) -> GaussianMixture:
    """A flow of as many components, all in the first mode."""
    means, roots = np.asarray(target.means, float), np.asarray(target.scale_trils, float)
    m = len(means)
    covariances = np.stack([roots[0] @ roots[0].T] * m)
    return GaussianMixture(np.full(m, 1 / m), np.stack([means[0]] * m), covariances)


def _without_last(target: mixtures.GaussianMixture) -> GaussianMixture:
    """A flow that puts the last mode's share into the first."""
    weights = np.asarray(target.weights, float)
    means, roots = np.asarray(target.means, float), np.asarray(target.scale_trils, float)
    means, roots = np.stack([*means[:-1], means[0]]), np.stack([*roots[:-1], roots[0]])
    return GaussianMixture(weights, means, roots @ roots.transpose(0, 2, 1))


def _rows_in(
    target: mixtures.GaussianMixture, shares: list[float], chains: int = CHAINS // 2, **changes: Any
) -> Callable[[PRNGKeyArray], Fit]:
    """The rows at which chains start lie in the modes in shares that are not the weights."""
    counts = np.round(chains * np.asarray(shares)).astype(int)

    def make(key: PRNGKeyArray) -> Fit:
        modes = np.repeat(np.arange(len(counts)), counts)
        noise = jax.random.normal(key, (len(modes), target.dimension))
        moves = jnp.einsum("nij,nj->ni", target.scale_trils[modes], noise)
        return _of(target, **changes)(key)._replace(rows=target.means[modes] + moves)

    return make


def _spiked(scale: float, place: float, share: float) -> Callable[[PRNGKeyArray], Fit]:
    """An energy with a narrow deep hole, `place` deviations from a mode, that no row ever saw."""

    def make(key: PRNGKeyArray) -> Fit:
        two = _two()
        hole = two.means[0] - place * jnp.array([1.0, 0.0]) * two.scale_trils[0, 0, 0]
        spiked = mixtures.GaussianMixture(
            jnp.concatenate([two.means, hole[None]]),
            jnp.concatenate([two.scale_trils, scale * jnp.eye(2)[None]]),
            jnp.append(two.weights * (1 - share), share),
        )
        return _of(spiked, flow=_mixture(two), rows=two.sample(key, ROWS))(key)

    return make


def _blown(what: str, beyond: float) -> Callable[[PRNGKeyArray], Fit]:
    two = _two()
    broken = Blown(two, jnp.asarray(beyond), what)

    def make(key: PRNGKeyArray) -> Fit:
        fit = _of(two, flow=_mixture(two, stretch=1.1))(key)
        rows = fit.rows[np.asarray(fit.rows[:, 0] <= beyond)]
        return fit._replace(log_density=broken.log_prob, rows=rows, weights=np.full(2, np.nan))

    return make


def _damaged(key: PRNGKeyArray) -> Fit:
    """A flow that was stored and came back with noise on its parameters."""
    two = _two()
    flow_key, noise_key, rows_key = jax.random.split(key, 3)
    parameters, static = trainable(coupling_flow(flow_key, _mixture(two)))
    leaves, structure = jax.tree.flatten(parameters)
    keys = jax.random.split(noise_key, len(leaves))
    noisy = [x + 0.5 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)]
    flow: Any = eqx.combine(jax.tree.unflatten(structure, noisy), static)
    return _of(two, flow=flow)(rows_key)


def _one_gaussian(target: Any) -> Callable[[PRNGKeyArray], Fit]:
    def make(key: PRNGKeyArray) -> Fit:
        rows = target.sample(key, ROWS)
        return _of(target, flow=_learnt(rows, components=1), rows=rows)(key)

    return make


def _crooked(key: PRNGKeyArray) -> Fit:
    """Covariances of the flow that are wrong in every direction, d = 32."""
    four = mixtures.four_modes(32, 10.0)
    scales = np.geomspace(0.3, 3.0, 32)
    means = np.asarray(four.means, float)
    flow = GaussianMixture(
        np.asarray(four.weights, float), means, np.stack([np.diag(scales**2)] * 4)
    )
    return _of(four, flow=flow)(key)


def kinds() -> list[Kind]:
    """All kinds of fits, the good ones first."""
    two, four, eight = _two(), mixtures.four_modes(16, 10.0), mixtures.eight_gaussians()
    four_32, student = mixtures.four_modes(32, 10.0), Halves(2, jnp.asarray(5.0))
    tilted = np.array([[1.0, 0.95], [0.95, 1.0]])
    correlated = mixtures.gaussian_mixture(
        np.array([[-3.0, 3.0], [3.0, -3.0]]), np.stack([tilted, tilted]), np.array([0.6, 0.4])
    )
    lone = _first_mode_alone(two)
    good = {
        "two modes": _of(two),
        "two modes, .97/.03": _of(_two(0.97)),
        "two modes, flow half as wide again": _of(two, flow=_mixture(two, stretch=1.5)),
        "two correlated modes": _of(correlated),
        "four modes, d = 16": _of(four, flow=_mixture(four, stretch=1.1)),
        "four modes, d = 32": _of(four_32, flow=_mixture(four_32, stretch=1.1)),
        "warped modes, d = 4": _of(mixtures.warped_modes(4, 12.0)),
        "eight Gaussians": _of(eight),
        "rings": _of(Rings((1.0, 2.5), 0.2)),
        "normal, d = 1": _of(Halves(1)),
        "normal, d = 2": _of(Halves(2)),
        "normal, d = 64": _of(Halves(64)),
        "banana": _of(Banana()),
        "Student t, 5 degrees": _of(
            student, flow=StudentT(jnp.full(2, 5.0), jnp.zeros(2), jnp.full(2, 1.2))
        ),
        "two modes by sample": _of(two, flow=None),
        "banana by sample": _of(Banana(), flow=None),
    }
    spoiled = {
        "flow misses a mode": _of(two, flow=lone),
        "flow misses a mode of 2 %": _of(_two(0.98), flow=lone),
        "2 chains alone in a mode of 10 %": _rows_in(_two(0.9), [254 / 256, 2 / 256], flow=lone),
        "1 chain alone in a mode of 5 %": _rows_in(_two(0.95), [255 / 256, 1 / 256], flow=lone),
        "flow misses one of eight modes": _of(eight, flow=_without_last(eight)),
        "flow misses a mode, d = 16": _of(four, flow=_without_last(four)),
        "flow starves a mode": _of(two, flow=_mixture(two, weights=[0.999, 0.001])),
        "flow starves a mode more": _of(two, flow=_mixture(two, weights=[1 - 1e-5, 1e-5])),
        "flow too narrow": _of(two, flow=_mixture(two, stretch=0.3)),
        "flow too narrow, d = 16": _of(four, flow=_mixture(four, stretch=0.6)),
        "flow too wide": _of(two, flow=_mixture(two, stretch=30.0)),
        "flow too wide, d = 16": _of(four, flow=_mixture(four, stretch=2.0)),
        "flow shifted": _of(two, flow=_mixture(two, shift=4.0)),
        "flow shifted a little": _of(two, flow=_mixture(two, shift=1.5)),
        "flow's covariance wrong, d = 32": _crooked,
        "wrong start, few global moves": _rows_in(
            two, [0.2, 0.8], flow=_mixture(two, stretch=60.0)
        ),
        "wrong start, flow narrow": _rows_in(
            four, [0.1, 0.2, 0.3, 0.4], flow=_mixture(four, stretch=0.7)
        ),
        "step far too large": _of(two, flow=_mixture(two, stretch=0.5), step=1e4),
        "step far too small": _of(two, flow=_mixture(two, stretch=0.5), step=1e-6),
        "nothing moves": _of(two, flow=_mixture(two, shift=60.0), step=1e8),
        "energy with a hole": _spiked(0.02, 3.0, 0.3),
        "energy with a hole hardly met": _spiked(0.01, 2.5, 0.3),
        "nan in a half space": _blown("nan", 0.0),
        "nan in a tail": _blown("nan", 1.7),
        "+inf in a tail": _blown("inf", 2.0),
        "+inf far out": _blown("inf", 2.2),
        "density grows outwards": _blown("plateau", 2.0),
        "heavy tails, light flow": _of(
            Halves(2, jnp.asarray(1.5)), flow=_mixture(_one_round(2), stretch=2.0)
        ),
        "funnel, Gaussian flow": _one_gaussian(Funnel()),
        "funnel of scale sqrt 3": _one_gaussian(Funnel(10, 3**0.5)),
        "flow damaged in its file": _damaged,
        "sample, 1 % of starts in a mode": _rows_in(two, [0.99, 0.01], chains=CHAINS, flow=None),
    }
    return [Kind(name, True, make) for name, make in good.items()] + [
        Kind(name, False, make) for name, make in spoiled.items()
    ]
