"""A fitted model with its frozen kernels: its density, draws, witnesses, and the judgement by them.

Where the flow's proposals are refused, chains climb a ladder of the model's earlier states.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import AbstractBijection
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from tiltflow.data.preprocessing import FAR, to_model_units
from tiltflow.evaluation.annealed import LogNormalizerBounds
from tiltflow.evaluation.assessment import Assessment, assess
from tiltflow.evaluation.basin_weights import basin_weights
from tiltflow.evaluation.bracket import bracket, judge_closely
from tiltflow.evaluation.mode_weights import ModeWeights, label_rows, with_intervals
from tiltflow.evaluation.verdict import Verdict
from tiltflow.evaluation.witnesses import Witnesses, call_witnesses, label_weights
from tiltflow.models.energies import Energy
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import LogDensity
from tiltflow.sampling.ladder import ladder_sweeps
from tiltflow.sampling.production import draw_samples
from tiltflow.sampling.recording import Sweeps, frozen_sweeps, importance_start
from tiltflow.sampling.sweep import FrozenKernel
from tiltflow.sampling.tempering import stack_levels
from tiltflow.training.density import batched_log_density
from tiltflow.training.global_move import COLLAPSED

SAMPLE_SWEEPS = 20
WITNESS_CHAINS = 512
WITNESS_SWEEPS = 32
WITNESS_DRAWS = 65_536
WITNESS_SEED = 0


class FrozenModel(NamedTuple):
    """What a training left; `climbs` where chains use the ladder of the `earlier` energies."""

    model: TiltedEBM
    flow: AbstractDistribution
    step_size: Float[Array, ""]
    local_steps: int
    earlier: tuple[Energy, ...]
    climbs: bool = False

    @property
    def kernel(self) -> FrozenKernel:
        """The kernel of its chains."""
        return FrozenKernel("mala", self.local_steps, self.step_size)


def draw_rows(key: PRNGKeyArray, frozen: FrozenModel, chains: int) -> Float[Array, "chains d"]:
    """Ends of as many chains of the model, model units."""
    log_density = frozen.model.log_density
    if not frozen.climbs:
        return draw_samples(key, log_density, frozen.flow, frozen.kernel, chains, SAMPLE_SWEEPS)
    start_key, run_key = jax.random.split(key)
    start = importance_start(start_key, log_density, frozen.flow, chains, 4 * chains)
    sweeps = sweeps_from(frozen, start)
    state = sweeps.state
    for block in range(-(-SAMPLE_SWEEPS // sweeps.block)):
        state, _ = sweeps.run(jax.random.fold_in(run_key, block), state)
    return state[-1]


def draw_in_batches(key: PRNGKeyArray, frozen: FrozenModel, n: int) -> Float[np.ndarray, "n d"]:
    """As many draws as asked for, float64, model units; of as few programs as chains allow."""
    chains = min(1024, 1 << (n - 1).bit_length())
    draws = [
        np.asarray(draw_rows(jax.random.fold_in(key, batch), frozen, chains), dtype=float)
        for batch in range(-(-n // chains))
    ]
    return np.concatenate(draws)[:n]


def log_prob_of_rows(
    model: TiltedEBM,
    bijection: AbstractBijection,
    log_normalizer: float,
    rows: Float[np.ndarray, "n d"],
) -> Float[np.ndarray, " n"]:
    """The normalised log-density of rows, nats, user's units; -inf where float32 overflows."""
    z, log_det = to_model_units(bijection, rows)
    with np.errstate(over="ignore", invalid="ignore"):
        log_density = np.asarray(batched_log_density(model, jnp.asarray(z)))
        log_prob = log_density - log_normalizer + log_det
        # Nearer to the data a nan is a fault of the model, and shall be seen.
        is_near = np.abs(z).max(axis=1) <= FAR
    return np.where(is_near | (log_prob < np.inf), log_prob, -np.inf)


def call_witnesses_of(frozen: FrozenModel, rows: Float[Array, "n d"]) -> Witnesses:
    """The same every time, from the model alone; half of the chains start at `rows` of the data.

    A mode that the flow misses has rows in it: those chains then stand against the others.
    """
    start_key, run_key = jax.random.split(jax.random.key(WITNESS_SEED))
    half = WITNESS_CHAINS // 2
    places = jnp.arange(half) % len(rows)
    log_density = frozen.model.log_density
    drawn = importance_start(start_key, log_density, frozen.flow, half, 4 * half)
    start = jnp.concatenate([rows[places], drawn])
    return call_witnesses(
        run_key,
        log_density,
        frozen.flow,
        sweeps_from(frozen, start),
        sweeps=WITNESS_SWEEPS,
        draws=WITNESS_DRAWS,
    )


def judge_fit(
    frozen: FrozenModel, rows: Float[Array, "n d"], stopped: str | None
) -> tuple[FrozenModel, Assessment, Verdict]:
    """The model with `climbs` decided, what its witnesses say, and the verdict.

    `stopped` tells what ran away in training.
    """
    frozen = frozen._replace(climbs=False)
    witnesses = call_witnesses_of(frozen, rows)
    rate = float(witnesses.recording.global_acceptance_rate.mean())
    if not rate >= COLLAPSED and frozen.earlier:
        frozen = frozen._replace(climbs=True)
        witnesses = call_witnesses_of(frozen, rows)
    assessment = assess(witnesses)
    verdict = judge_closely(
        jax.random.key(WITNESS_SEED),
        assessment,
        frozen.model.log_density,
        frozen.flow,
        witnesses.recording.position[-1],
        frozen.kernel,
        stopped,
    )
    return frozen, assessment, verdict


def weigh_modes(
    frozen: FrozenModel,
    witnesses: Witnesses,
    to_rows: Callable[[Float[np.ndarray, "n d"]], Shaped[np.ndarray, "n d"]],
    label_fn: Callable[[Shaped[np.ndarray, "n d"]], Any] | None,
    independent_rows: float | None,
) -> ModeWeights:
    """The weights of labels by `label_fn`, or else of basins, by both witnesses.

    `to_rows` takes points in model units to the rows that `label_fn` and the user see;
    `independent_rows`, if known, is how many the model was fitted to.
    """
    chains = np.asarray(witnesses.recording.position, float)
    draws = np.asarray(witnesses.draws, float)
    log_weights = np.asarray(witnesses.log_weights, float)
    if label_fn is None:
        estimate, centers = basin_weights(frozen.model.log_density, chains, draws, log_weights)
        return with_intervals(estimate, to_rows(centers), independent_rows)
    rows = chains.reshape(-1, chains.shape[-1])
    labels, draw_labels = (label_rows(label_fn, to_rows(each)) for each in (rows, draws))
    estimate = label_weights(labels.reshape(chains.shape[:2]), draw_labels, log_weights)
    return with_intervals(estimate, rows=independent_rows)


def bounds_of(key: PRNGKeyArray, frozen: FrozenModel, witnesses: Witnesses) -> LogNormalizerBounds:
    """Bounds of log Z by annealed paths; the upper one from where the witnesses' chains ended."""
    position = witnesses.recording.position[-1]
    return bracket(key, frozen.model.log_density, frozen.flow, position, frozen.kernel)


def sweeps_from(frozen: FrozenModel, start: Float[Array, "n d"]) -> Sweeps:
    """Sweeps of the model, or of all levels of the ladder from the same start."""
    if not frozen.climbs:
        return frozen_sweeps(frozen.model.log_density, frozen.flow, start, frozen.kernel)
    position = jnp.broadcast_to(start, (len(frozen.earlier) + 1, *start.shape))
    return ladder_sweeps(_levels(frozen), frozen.flow, position, frozen.kernel)


def _levels(frozen: FrozenModel) -> LogDensity:
    """The log-densities of the model's earlier states and its own, the last one."""
    energies = (*frozen.earlier, frozen.model.energy)
    return stack_levels([TiltedEBM(frozen.model.base, it).log_density for it in energies])
