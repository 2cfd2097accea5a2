"""Is the verdict right? Good and spoiled fits with known mode weights, each judged as a fit is.

A fit is a known log-density, a proposal flow, and rows of data. Chains start half at rows and half
at importance-weighted draws of the flow, run as for an estimator, and are judged. A verdict is
wrong if it trusts a weight that is off: beyond its 95 % interval widened to twice its length
(about four standard errors, since of many right intervals of 95 % some miss), or for
which there is no truth because the density is not one.

A mode that holds neither rows nor draws of the flow cannot be seen by any of this; every spoiled
fit here leaves a trace in one of them, however small.
"""

from collections.abc import Callable
from pathlib import Path
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
from tiltflow.evaluation.assessment import assess
from tiltflow.evaluation.mode_weights import ModeWeights, with_intervals
from tiltflow.evaluation.verdict import Verdict, judge
from tiltflow.evaluation.witnesses import call_witnesses, label_weights
from tiltflow.models.flows import coupling_flow, trainable
from tiltflow.models.gaussian_mixture import GaussianMixture, best_mixture
from tiltflow.report.table import format_table
from tiltflow.sampler import sample
from tiltflow.sampling import adaptation
from tiltflow.sampling.chains import LogDensity, refresh
from tiltflow.sampling.kernels import local_moves, target_acceptance
from tiltflow.sampling.recording import FrozenKernel, importance_start

ROWS = 4000
CHAINS = 512
SWEEPS = 32
DRAWS = 65_536
LOCAL_STEPS = 10
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


class Outcome(NamedTuple):
    """The verdict, the largest error of a weight, and whether intervals allow the errors."""

    verdict: Verdict
    error: float
    covered: bool
    off: bool


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


def _two(first: float = 2 / 3) -> mixtures.GaussianMixture:
    two = mixtures.two_modes()
    return mixtures.GaussianMixture(two.means, two.scale_trils, [first, 1 - first])


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
    correlated = mixtures.gaussian_mixture([[-3, 3], [3, -3]], [tilted, tilted], [0.6, 0.4])
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
        "energy with a hole hardly met": _spiked(0.01, 4.0, 0.3),
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


def judge_fit(key: PRNGKeyArray, fit: Fit, *, draws: int = DRAWS, sweeps: int = SWEEPS) -> Outcome:
    """The verdict on a fit and its mode weights against the truth."""
    if fit.flow is None:
        result = sample(fit.log_density, fit.rows[:CHAINS], key=key, num_samples=CHAINS * sweeps)
        weights = result.mode_weights(lambda x: _labels(fit.target, x))
        return _outcome(fit, result.verdict, weights)
    tune_key, start_key, run_key = jax.random.split(key, 3)
    half = CHAINS // 2
    drawn = importance_start(start_key, fit.log_density, fit.flow, half, 4 * half)
    start = jnp.concatenate([fit.rows[:half], drawn])
    step_size = fit.step * _tuned_step(tune_key, fit.log_density, fit.rows[:half])
    witnesses = call_witnesses(
        run_key,
        fit.log_density,
        fit.flow,
        start,
        FrozenKernel("mala", LOCAL_STEPS, step_size),
        sweeps=sweeps,
        draws=draws,
    )
    position = np.asarray(witnesses.recording.position)
    labels = _labels(fit.target, position.reshape(-1, position.shape[-1]))
    weights = label_weights(
        labels.reshape(position.shape[:2]),
        _labels(fit.target, np.asarray(witnesses.draws)),
        np.asarray(witnesses.log_weights, float),
    )
    return _outcome(fit, judge(assess(witnesses).figures), with_intervals(weights))


def reproduce_verdicts(*, seeds: int, seed: int, quiet: bool, out: Path) -> None:
    """Print how often each kind of fit is trusted, and how far off its weights then are."""
    rows, wrong, alarms = [], 0, {True: [0, 0, 0], False: [0, 0, 0]}
    for kind in kinds():
        keys = [jax.random.key(seed + index) for index in range(seeds)]
        outcomes = [judge_fit(jax.random.fold_in(key, 1), kind.make(key)) for key in keys]
        status = [outcome.verdict.status for outcome in outcomes]
        counts = [status.count(name) for name in ("trusted", "doubtful", "failed")]
        alarms[kind.good] = [a + b for a, b in zip(alarms[kind.good], counts)]
        wrong += sum(o.off and o.verdict.status == "trusted" for o in outcomes)
        reasons = [o.verdict.reasons[0] for o in outcomes if o.verdict.reasons]
        rows.append(
            [
                kind.name,
                "good" if kind.good else "spoiled",
                *map(str, counts),
                f"{max(outcome.error for outcome in outcomes):.4f}",
                f"{np.mean([outcome.covered for outcome in outcomes]):.0%}",
                reasons[0].split(";")[0].split(":")[0] if reasons else "",
            ]
        )
        if not quiet:
            print("  ".join(rows[-1]), flush=True)
    columns = ["fit", "is", "trusted", "doubtful", "failed", "error", "in 95 %", "first reason"]
    table = format_table(columns, rows)
    (out / "verdicts.txt").write_text(table + "\n")
    print(table)
    for good, name in ((True, "good"), (False, "spoiled")):
        trusted, doubtful, failed = alarms[good]
        print(f"{name} fits: {trusted} trusted, {doubtful} doubtful, {failed} failed")
    print(f"trusted although a weight is off by more than its interval allows: {wrong}")


def _one_round(dimension: int) -> mixtures.GaussianMixture:
    return mixtures.gaussian_mixture(np.zeros((1, dimension)), [np.eye(dimension)], [1.0])


def _outcome(fit: Fit, verdict: Verdict, estimate: ModeWeights) -> Outcome:
    """A label that was not seen has the weight zero, and is missed if it has mass."""
    if np.isnan(fit.weights).any():
        return Outcome(verdict, np.nan, False, True)
    weights, intervals = np.zeros(len(fit.weights)), np.zeros((len(fit.weights), 2))
    weights[estimate.labels], intervals[estimate.labels] = estimate.weights, estimate.intervals
    low, high = intervals.T
    length = high - low
    within = (low <= fit.weights) & (fit.weights <= high)
    near = (low - length / 2 <= fit.weights) & (fit.weights <= high + length / 2)
    error = np.abs(weights - fit.weights).max()
    return Outcome(verdict, float(error), bool(within.all()), not near.all())


@eqx.filter_jit
def _label_rows(target: Any, points: Float[Array, "n d"]) -> Array:
    return jax.lax.map(target.label, points, batch_size=8192)


def _labels(target: Any, points: Float[np.ndarray, "n d"]) -> np.ndarray:
    return np.asarray(_label_rows(target, jnp.asarray(points)))


@eqx.filter_jit
def _tuned_step(
    key: PRNGKeyArray, log_density: LogDensity, position: Float[Array, "n d"]
) -> Float[Array, ""]:
    """The step size of MALA after a hundred moves of dual averaging from the rows."""

    def move(state: Any, key: PRNGKeyArray) -> tuple[Any, None]:
        chains, tuning = state
        step_size = adaptation.current(tuning)
        chains, rate, _ = local_moves("mala", key, chains, log_density, step_size, 1)
        return (chains, adaptation.update(tuning, rate, target_acceptance("mala"))), None

    start = refresh(position, log_density), adaptation.init(jnp.asarray(0.1))
    (_, tuning), _ = jax.lax.scan(move, start, jax.random.split(key, 100))
    return adaptation.final(tuning)
