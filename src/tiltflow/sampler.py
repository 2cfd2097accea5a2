"""`tiltflow.sample`: draws, log Z and a verdict for a log-density that one has.

Adaptive flow MCMC (Gabrié, Rotskoff, Vanden-Eijnden 2022): warm up, freeze, run, judge.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.evaluation.annealed import LogNormalizerBounds
from tiltflow.evaluation.assessment import assess
from tiltflow.evaluation.basin_weights import basin_weights
from tiltflow.evaluation.bracket import bracket, judge_closely
from tiltflow.evaluation.diagnostics import ChainDiagnostics, diagnostic_programs, jump_rate
from tiltflow.evaluation.inference_data import to_inference_data
from tiltflow.evaluation.log_normalizer import LogNormalizer
from tiltflow.evaluation.mode_weights import ModeWeights, label_rows, with_intervals
from tiltflow.evaluation.verdict import Verdict
from tiltflow.evaluation.witnesses import call_witnesses, label_weights
from tiltflow.sampling.chains import LogDensity
from tiltflow.sampling.coordinates import Rescaled
from tiltflow.sampling.independent import check_proposal_is_deterministic
from tiltflow.sampling.program_room import make_room_for_programs
from tiltflow.sampling.sweep import FrozenKernel
from tiltflow.training.adaptive_sweeps import WarmUpSettings
from tiltflow.training.ahead import CompileAhead
from tiltflow.training.warm_up import warm_up

FEWEST_SWEEPS = 32
FEWEST_DRAWS = 8192


class Sampler(NamedTuple):
    """What the warm-up left: enough to run on."""

    coordinates: Rescaled
    flow: AbstractDistribution
    kernel: FrozenKernel
    position: Float[Array, "chains d"]


class SampleResult(NamedTuple):
    """Draws of the density and how far they can be trusted.

    `samples` are equally weighted, so `log_weights` is None. `chains` are all recorded draws of the
    Metropolis-corrected chains, from which `samples` were taken; `proposals` are independent draws
    of the flow (where `sampler.kernel` has a path, ends of annealed paths) with their
    `proposal_log_weights`. log Z in nats, of the log-density as given.
    """

    samples: Float[np.ndarray, "num_samples d"]
    log_weights: Float[np.ndarray, " num_samples"] | None
    log_z: float
    log_z_stderr: float
    importance: LogNormalizer
    diagnostics: ChainDiagnostics
    verdict: Verdict
    chains: Float[np.ndarray, "sweeps chains d"]
    proposals: Float[np.ndarray, "draws d"]
    proposal_log_weights: Float[np.ndarray, " draws"]
    sampler: Sampler
    reports: list[dict[str, Any]]

    def mode_weights(
        self, label_fn: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> ModeWeights:
        """The share of mass of every label, or of every mode, with 95 % intervals.

        `label_fn` takes points (n, d) and returns n labels. Without it, modes are the basins of
        the log-density, by decreasing weight. How both witnesses are pooled, and the intervals,
        with sources: `evaluation/mode_weights.py`.

        Raises:
            InputError: `label_fn` does not return one label for each point.
        """
        if label_fn is not None:
            draw_labels = label_rows(label_fn, self.proposals)
            labels = label_weights(
                self._chain_labels(label_fn), draw_labels, self.proposal_log_weights
            )
            return with_intervals(labels)
        coordinates = self.sampler.coordinates
        estimate, centers = basin_weights(
            coordinates,
            coordinates.rows_from_user(self.chains),
            coordinates.rows_from_user(self.proposals),
            np.asarray(self.proposal_log_weights, float),
        )
        return with_intervals(estimate, coordinates.rows_to_user(centers))

    def jump_rate(self, label_fn: Callable[[np.ndarray], np.ndarray]) -> float:
        """The share of the sweeps after which a chain's label is another; label_fn as above."""
        return jump_rate(self._chain_labels(label_fn))

    def to_inference_data(self, names: list[str] | None = None) -> Any:
        """The chains as an `arviz.InferenceData`, a variable for each name (x0, x1, ...).

        Raises:
            InputError: the names are not one for each coordinate, each once.
            ImportError: ArviZ is not installed (`pip install 'tiltflow[arviz]'`).
        """
        d = self.chains.shape[2]
        return to_inference_data(self.chains, names or [f"x{i}" for i in range(d)])

    def _chain_labels(self, label_fn: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        sweeps, chains, d = self.chains.shape
        return label_rows(label_fn, self.chains.reshape(-1, d)).reshape(sweeps, chains)

    def annealed_bounds(self, key: PRNGKeyArray) -> LogNormalizerBounds:
        """Bounds of log Z from below and from above, nats, with their standard errors.

        By annealed paths (Neal 2001; Grosse, Ghahramani and Adams 2015) from fresh draws of the
        flow, and back from where the chains ended; the upper bound holds as far as these are draws
        of the density. Computed anew at each call.
        """
        coordinates, flow, kernel, position = self.sampler
        return bracket(key, coordinates, flow, position, kernel)


def sample(
    log_density: LogDensity,
    initial_positions: Float[Array, "chains d"] | Float[np.ndarray, "chains d"],
    *,
    key: PRNGKeyArray,
    num_samples: int,
    settings: WarmUpSettings | None = None,
    flow: AbstractDistribution | None = None,
    on_report: Callable[[dict[str, Any]], None] | None = None,
) -> SampleResult:
    """Sample a log-density, multimodal or not, and estimate its normaliser.

    Chains start at `initial_positions` (chains, d); put some into every mode you know of. They are
    moved by the local kernel while a flow learns to propose jumps between modes; then all is
    frozen, and what is returned comes from frozen kernels. Pass the same function object again, or
    a JAX pytree that can be called, and nothing is compiled twice.

    Args:
        log_density: one point (d,) -> scalar, nats; a differentiable JAX function.
        initial_positions: (chains, d), at least two chains, each where the density is not zero.
        key: a typed key, `jax.random.key(seed)`.
        num_samples: draws to return.
        settings: length and rates of the warm-up.
        flow: a flowjax distribution of shape (d,) to propose from, in the units of log_density; it
            is taught further. None makes a coupling flow on a Gaussian mixture.
        on_report: called with a dictionary after every chunk of the warm-up.

    Raises:
        InputError: a ValueError that names the argument, before any long work.
    """
    position = check_arguments(log_density, initial_positions, key, num_samples, flow)
    make_room_for_programs()
    warm_key, run_key, pick_key, bounds_key = (jax.random.fold_in(key, part) for part in range(4))
    settings = settings or WarmUpSettings()
    sweeps = max(FEWEST_SWEEPS, -(-num_samples // len(position)))
    with CompileAhead() as ahead:
        warmed = warm_up(
            warm_key,
            log_density,
            position,
            settings,
            ahead,
            flow=flow,
            afterwards=diagnostic_programs(sweeps, len(position)),
            on_report=on_report,
        )
        witnesses = call_witnesses(
            run_key,
            warmed.coordinates,
            warmed.flow,
            warmed.production,
            sweeps=sweeps,
            draws=max(FEWEST_DRAWS, sweeps * len(position)),
            path=warmed.kernel.path,
        )
    assessment = assess(witnesses)
    recording, proposals, log_weights = witnesses
    sampler = Sampler(
        warmed.coordinates,
        warmed.flow,
        warmed.kernel,
        jnp.asarray(np.asarray(recording.position)[-1]),
    )
    coordinates, flow, kernel, position = sampler
    verdict = judge_closely(bounds_key, assessment, coordinates, flow, position, kernel)
    chains = coordinates.rows_to_user(recording.position)
    rows = chains.reshape(-1, chains.shape[-1])
    seed = np.asarray(jax.random.key_data(pick_key))
    picked = np.random.default_rng(seed).choice(len(rows), num_samples, replace=False)
    return SampleResult(
        samples=rows[picked],
        log_weights=None,
        log_z=float(assessment.log_normalizer.log_z),
        log_z_stderr=float(assessment.log_normalizer.stderr),
        importance=assessment.importance,
        diagnostics=assessment.diagnostics,
        verdict=verdict,
        chains=chains,
        proposals=coordinates.rows_to_user(proposals),
        proposal_log_weights=np.asarray(log_weights),
        sampler=sampler,
        reports=warmed.reports,
    )


def check_arguments(
    log_density: Any,
    initial_positions: Any,
    key: Any,
    num_samples: int,
    flow: AbstractDistribution | None = None,
) -> Float[Array, "chains d"]:
    """The positions as an array, or an `InputError` that names what is wrong."""
    if not callable(log_density):
        raise InputError(f"log_density: a {type(log_density).__name__} cannot be called")
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise InputError("key: not a typed key; make one with jax.random.key(seed)")
    if num_samples < 1:
        raise InputError(f"num_samples: {num_samples} asked for; ask for one or more")
    position = jnp.asarray(initial_positions, dtype=float)
    if position.ndim != 2 or position.shape[1] < 1:
        raise InputError(
            f"initial_positions: shape {position.shape} instead of (chains, d); give one row for "
            "every chain"
        )
    if len(position) < 2:
        raise InputError(
            f"initial_positions: {len(position)} chain; give at least two, better some hundreds"
        )
    bad = np.flatnonzero(~np.isfinite(np.asarray(position)).all(axis=1))
    if len(bad):
        raise InputError(f"initial_positions: row {bad[0]} is not finite; move it or leave it out")
    _check_log_density(log_density, position)
    if flow is not None:
        if flow.shape != position.shape[1:] or flow.cond_shape is not None:
            conditional = "" if flow.cond_shape is None else ", conditional,"
            raise InputError(
                f"flow: has shape {flow.shape}{conditional} where initial_positions have dimension "
                f"{position.shape[1]}; give an unconditional one of shape ({position.shape[1]},)"
            )
        check_proposal_is_deterministic(flow, key, position)
    return position


def _check_log_density(log_density: Callable[..., Any], position: Float[Array, "chains d"]) -> None:
    point = jax.ShapeDtypeStruct(position.shape[1:], position.dtype)
    try:
        value = jax.eval_shape(log_density, point)
    except Exception as error:  # whatever the user's function raises is about its argument
        raise InputError(
            f"log_density: fails on one point of shape {point.shape}: {error}"
        ) from error
    shape = getattr(value, "shape", None)
    if shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        found = f"shape {shape}" if shape != () else f"type {value.dtype}"
        raise InputError(
            f"log_density: returns {found} for one point; return a scalar of floating type"
        )
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(log_density)))(position)
    values, gradients = np.asarray(values), np.asarray(gradients)
    for wrong, what in (
        (np.isnan(values), "nan"),
        (values == np.inf, "+inf"),
    ):
        if wrong.any():
            raise InputError(
                f"log_density: is {what} at row {np.argmax(wrong)} of initial_positions "
                f"({wrong.sum()} of {len(values)} rows); mend it there"
            )
    outside = values == -np.inf
    if outside.any():
        raise InputError(
            f"initial_positions: row {np.argmax(outside)} lies outside the support, where "
            f"log_density is -inf ({outside.sum()} of {len(values)} rows); move it inside"
        )
    broken = ~np.isfinite(gradients).all(axis=1)
    if broken.any():
        raise InputError(
            f"log_density: its gradient is not finite at row {np.argmax(broken)} of "
            f"initial_positions ({broken.sum()} of {len(values)} rows); mend it there"
        )
    if not gradients.any():
        raise InputError(
            "log_density: its gradient is zero at all initial_positions; it must be differentiable"
        )
