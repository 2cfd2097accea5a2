"""Benchmark: `tiltflow.sample` against the package flowMC 0.6.4, on the same targets and starts.

flowMC (Wong, Gabrié, Foreman-Mackey 2023, JOSS) alternates MALA and independent Metropolis steps
with proposals of a rational-quadratic spline flow that learns from the chains. It runs here with
its own defaults (4 coupling layers, 8 bins, conditioners of 32, 32, step sizes adapted) but for
the batch, for which 10 000 rows would be slower still; `Budget` says how long. tiltflow runs with
its own defaults and returns as many draws as flowMC does.

Every run has a process of its own, so that "first" is what a user waits for, the sampler's
imports and its compilation included. "Warm" is a second sampler in the same process, for the same
target from another key; draws, effective sample sizes and weights are those of this second run.
An effective sample size is that of the worst coordinate or of the worst mode's indicator.
"""

import importlib.util
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from tqdm import tqdm

from tiltflow.data.errors import InputError
from tiltflow.data.mixtures import GaussianMixture, four_modes, two_modes
from tiltflow.evaluation.diagnostics import effective_sample_sizes
from tiltflow.evaluation.mode_weights import ModeWeights
from tiltflow.report.table import format_table
from tiltflow.sampling.chains import LogDensity

if TYPE_CHECKING:
    from tiltflow.sampler import SampleResult

CHAINS = 20
"""As in flowMC's own examples."""
T = TypeVar("T")
Labels = Callable[[Float[np.ndarray, "n d"]], Int[np.ndarray, " n"]]


class Budget(NamedTuple):
    """How long flowMC runs: loops of local and global steps; the flow learns in training loops."""

    training_loops: int = 20
    production_loops: int = 10
    local_steps: int = 10
    global_steps: int = 10
    epochs: int = 10
    batch_size: int = 2000


class Case(NamedTuple):
    """A target with known weights of its m modes; chains start around `centers` in turn."""

    log_density: LogDensity
    label: Callable[[Float[Array, " d"]], Int[Array, ""]]
    weights: Float[np.ndarray, " m"]
    centers: Float[np.ndarray, "k d"]
    spread: float


class Run(NamedTuple):
    """Draws along the chains of one sampler, and its own estimate of weights if it has one."""

    draws: Float[np.ndarray, "draws chains d"]
    seconds_first: float
    seconds_warm: float
    mode_weights: Callable[[Labels], ModeWeights] | None = None


class Figures(NamedTuple):
    """One line of the table."""

    seconds_first: float
    seconds_warm: float
    ess_coordinate: float
    ess_mode: float
    weight_error: float


class DualMoon(eqx.Module):
    """flowMC's own example: a shell of radius 2 in d = 5, cut into four equal moons.

    log p(x) = −((|x| − 2) / .1)² / 2 + f(x_0; .8) + f(x_1; .6) + const,
    f(u; s) = log sum_± exp(−((u ± 3) / s)² / 2)
    (github GW-JAX-Team/flowMC, "dual moon" tutorial).
    """

    def log_density(self, x: Float[Array, " 5"]) -> Float[Array, ""]:
        """Unnormalised log-density of one point, nats."""
        shell = -(((jnp.linalg.norm(x) - 2) / 0.1) ** 2) / 2
        moons = -(((x[:2] + jnp.array([[-3.0], [3.0]])) / jnp.array([0.8, 0.6])) ** 2) / 2
        return shell + logsumexp(moons, axis=0).sum()

    def label(self, x: Float[Array, " 5"]) -> Int[Array, ""]:
        """The moon, 0 to 3, by the signs of the first two coordinates."""
        return 2 * (x[0] > 0).astype(int) + (x[1] > 0)


def _dual_moon() -> Case:
    moon = DualMoon()
    return Case(moon.log_density, moon.label, np.full(4, 0.25), np.zeros((1, 5)), 1.0)


def _mixture(target: GaussianMixture) -> Case:
    weights, centers = (np.asarray(part, np.float64) for part in (target.weights, target.means))
    return Case(target.log_prob, target.label, weights, centers, float(target.scale_trils[0, 0, 0]))


CASES: dict[str, Callable[[], Case]] = {
    "two modes, d = 2": lambda: _mixture(two_modes()),
    "dual moon, d = 5": _dual_moon,
    "four modes, d = 16": lambda: _mixture(four_modes(16, 3.5)),
    "four modes, d = 64": lambda: _mixture(four_modes(64, 4.0)),
}


def bench_flowmc(*, seed: int, quiet: bool) -> None:
    """Print both samplers' figures for every target.

    Raises:
        InputError: flowMC is not installed.
    """
    _require_flowmc()
    runs = [(name, side) for name in CASES for side in SIDES]
    rows = []
    for name, side in tqdm(runs, disable=quiet, leave=False):
        # Spawned, not forked: a forked process would inherit what this one has compiled.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            figures = pool.submit(measure, name, side, CHAINS, seed, Budget()).result()
        rows.append([name, side, *_cells(figures)])
    columns = ["target", "sampler", "first, s", "warm, s"]
    columns += ["ESS/s, coordinate", "ESS/s, mode", "weight error"]
    print(
        f"the same targets, starts and number of draws, {CHAINS} chains; ESS/s of a warm run, its "
        "training included"
    )
    print(format_table(columns, rows))


def measure(name: str, side: str, chains: int, seed: int, budget: Budget) -> Figures:
    """Run one sampler twice on the target called `name`, and judge the second run."""
    case = CASES[name]()
    start_key, run_key = jax.random.split(jax.random.key(seed))
    positions = initial_positions(start_key, case, chains)
    return judge(SIDES[side](run_key, case.log_density, positions, budget), case)


def initial_positions(key: PRNGKeyArray, case: Case, chains: int) -> Float[Array, "chains d"]:
    """As many chains around every centre, whatever its weight: users know modes, not weights."""
    centers = jnp.asarray(case.centers, float)[jnp.arange(chains) % len(case.centers)]
    return centers + case.spread * jax.random.normal(key, centers.shape)


def judge(run: Run, case: Case) -> Figures:
    """Effective sample sizes of the draws and the largest error of the weights."""
    label = jax.jit(jax.vmap(case.label))
    draws, chains, dimension = run.draws.shape
    rows = run.draws.reshape(-1, dimension)
    labels = np.asarray(label(jnp.asarray(rows)))
    indicators = labels.reshape(draws, chains, 1) == np.arange(len(case.weights))
    # A mode that no draw is in, or all are, is not known at all.
    unknown = (indicators == indicators[0, 0]).all(axis=(0, 1))
    ess_mode = np.where(unknown, 0.0, effective_sample_sizes(indicators))

    weights = indicators.mean(axis=(0, 1))
    if run.mode_weights:
        found = run.mode_weights(lambda x: np.asarray(label(jnp.asarray(x))))
        weights = np.zeros_like(weights)
        weights[found.labels] = found.weights
    return Figures(
        seconds_first=run.seconds_first,
        seconds_warm=run.seconds_warm,
        ess_coordinate=float(effective_sample_sizes(run.draws).min()),
        ess_mode=float(ess_mode.min()),
        weight_error=float(np.abs(weights - case.weights).max()),
    )


def run_flowmc(
    key: PRNGKeyArray,
    log_density: LogDensity,
    initial_positions: Float[Array, "chains d"],
    budget: Budget,
) -> Run:
    """Two samplers of flowMC, one after the other.

    Raises:
        InputError: flowMC is not installed.
    """
    _require_flowmc()
    chains, dimension = initial_positions.shape

    def once(key: PRNGKeyArray) -> Float[np.ndarray, "draws chains d"]:
        from flowMC.resource_strategy_bundle.RQSpline_MALA import (  # pyright: ignore[reportMissingImports]
            RQSpline_MALA_Bundle,
        )
        from flowMC.Sampler import Sampler  # pyright: ignore[reportMissingImports]

        flow_key, run_key = jax.random.split(key)
        bundle = RQSpline_MALA_Bundle(
            flow_key,
            chains,
            dimension,
            lambda x, data: log_density(x),
            budget.local_steps,
            budget.global_steps,
            budget.training_loops,
            budget.production_loops,
            budget.epochs,
            batch_size=budget.batch_size,
        )
        sampler = Sampler(
            n_dim=dimension,
            n_chains=chains,
            rng_key=run_key,
            resource_strategy_bundles=bundle,
            checkpoint_interval=0,  # else it writes into the working folder
        )
        sampler.sample(initial_positions, {})
        return np.swapaxes(np.asarray(sampler.resources["positions_production"].data), 0, 1)

    return Run(*_twice(once, key))


def run_tiltflow(
    key: PRNGKeyArray,
    log_density: LogDensity,
    initial_positions: Float[Array, "chains d"],
    budget: Budget,
) -> Run:
    """Two calls of `tiltflow.sample` for as many draws as flowMC returns."""
    steps = budget.local_steps + budget.global_steps
    num_samples = len(initial_positions) * steps * budget.production_loops

    def once(key: PRNGKeyArray) -> "SampleResult":
        from tiltflow import sample

        return sample(log_density, initial_positions, key=key, num_samples=num_samples)

    result, first, warm = _twice(once, key)
    return Run(result.chains, first, warm, result.mode_weights)


SIDES = {"flowMC": run_flowmc, "tiltflow": run_tiltflow}


def _twice(once: Callable[[PRNGKeyArray], T], key: PRNGKeyArray) -> tuple[T, float, float]:
    """The second result, and the seconds of the first and of the second."""
    first_key, warm_key = jax.random.split(key)
    started = time.perf_counter()
    once(first_key)
    between = time.perf_counter()
    result = once(warm_key)
    return result, between - started, time.perf_counter() - between


def _require_flowmc() -> None:
    if importlib.util.find_spec("flowMC") is None:
        raise InputError("flowMC: not installed; pip install flowMC==0.6.4")


def _cells(figures: Figures) -> list[str]:
    return [
        f"{figures.seconds_first:.1f}",
        f"{figures.seconds_warm:.1f}",
        f"{figures.ess_coordinate / figures.seconds_warm:.1f}",
        f"{figures.ess_mode / figures.seconds_warm:.1f}",
        f"{figures.weight_error:.4f}",
    ]
