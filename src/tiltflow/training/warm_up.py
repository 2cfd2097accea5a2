"""Warm-up of the sampler of a known log-density: exploration, a mixture, a flow, frozen kernels.

First the chains explore by local moves alone, in coordinates scaled by their gradients and then by
their spread (`adapted_coordinates.py`). A Gaussian mixture is fitted to the reservoir, once after
the exploration and once more when its draws, as global moves, have found the weights of the modes.
The flow stands on one Gaussian for each mode of it (`models/merging.py`), which also tell the modes
apart for the local kernel's preconditioner; where it then learns to propose but poorly, another one
on all components competes with it. Lessons end by acceptance rates and not by effective shares,
which would be sharper, but are all noise where tails are heavy (`lessons.py`). Everything that
adapts stops here: production runs frozen kernels.
"""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from blackjax.adaptation.step_size import DualAveragingAdaptationState
from flowjax.bijections import Affine
from flowjax.distributions import AbstractDistribution, Transformed
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.models.flows import trainable
from tiltflow.models.gaussian_mixture import (
    Fitted,
    GaussianMixture,
    best_mixture,
    log_prob_on_host,
    mixture_template,
    padded,
    with_wide_twins,
)
from tiltflow.models.merging import merged
from tiltflow.sampling import adaptation
from tiltflow.sampling.chains import LogDensity
from tiltflow.sampling.coordinates import Rescaled
from tiltflow.sampling.kernels import Preconditioner, learn_preconditioner
from tiltflow.sampling.quick_jit import quick_jit
from tiltflow.sampling.recording import (
    DRAWS_AT_ONCE,
    Sweeps,
    frozen_sweeps,
    weigh_draws,
    weigh_some,
)
from tiltflow.sampling.sweep import FrozenKernel, Recording
from tiltflow.training.adapted_coordinates import fisher_coordinates, spread_coordinates
from tiltflow.training.adaptive_sweeps import (
    Learning,
    WarmUpSettings,
    WarmUpState,
    initial_flow,
    initial_state,
    run_sweeps,
)
from tiltflow.training.ahead import CompileAhead
from tiltflow.training.bases import proposal_on, untaught_proposal
from tiltflow.training.global_move import choose_global_move
from tiltflow.training.lessons import acceptance, last_log_weights, teach
from tiltflow.training.steps import copy_arrays

WIDE_SHARE = 0.05
GOOD_ACCEPTANCE = 0.6
"""At less, a flow on one Gaussian for each mode may not be the best there is."""
MIXTURE_ROWS = 4000
FEW_COMPONENTS = 4
CHEAP_DIMENSION = 32
"""Up to here the mixture is padded to its largest size, above to a few components if that is
enough: the size is then known before it is fitted, and compilation can begin."""

OnReport = Callable[[dict[str, Any]], None]


class WarmedUp(NamedTuple):
    """The frozen sampler, in its own coordinates, and chains that have forgotten their start.

    `production` are its sweeps, from those chains on.
    """

    coordinates: Rescaled
    flow: AbstractDistribution
    kernel: FrozenKernel
    production: Sweeps
    reports: list[dict[str, Any]]


def warm_up(
    key: PRNGKeyArray,
    log_density: LogDensity,
    position: Float[Array, "n d"],
    settings: WarmUpSettings,
    ahead: CompileAhead,
    *,
    flow: AbstractDistribution | None = None,
    afterwards: Sequence[tuple[Any, ...]] = (),
    on_report: OnReport | None = None,
) -> WarmedUp:
    """Adapt a sampler of `log_density` to n chains that start at `position`.

    `flow`, in the coordinates of `log_density`, is taught instead of a coupling flow on a mixture.
    `afterwards` are programs and their arguments, to be compiled by `ahead` after its own.
    """
    explore_key, again_key, flow_key, mixture_key, teach_key, components_key, compare_key = (
        jax.random.fold_in(key, stage) for stage in range(7)
    )
    reports: list[dict[str, Any]] = []
    d = position.shape[1]
    size = settings.max_components if d <= CHEAP_DIMENSION else FEW_COMPONENTS

    # A stand-in for the flow, built without being computed: the compiler asks for shapes alone.
    coordinates = Rescaled(log_density, jnp.zeros(d), jnp.ones(d))
    template = mixture_template(1, d)
    stand_in = _zeros(
        _proposal, flow_key, coordinates, flow, _base(template, size), untaught_proposal
    )
    untaught, static = initial_flow(stand_in)
    state = initial_state(coordinates, position, untaught, settings)
    inputs = (coordinates, static, settings, _learning(), explore_key)
    compiled = ahead.submit(run_sweeps, inputs, state)
    if flow is None:
        ahead.submit(proposal_on, flow_key, _base(template, size), "affine")
    local = (state.reservoir, state.seen, state.preconditioner, padded(template, size))
    ahead.submit(_learn_scale, *local)
    weighs = ahead.submit(weigh_some, flow_key, coordinates, stand_in, DRAWS_AT_ONCE)
    for program in afterwards:
        ahead.submit(*program)

    def report(**figures: Any) -> None:
        reports.append(figures)
        if on_report:
            on_report(figures)

    def run(
        stage: str,
        key: PRNGKeyArray,
        static: PyTree,
        index: int,
        state: WarmUpState,
        *,
        proposes: bool = True,
        rate: float = 0.0,
    ) -> tuple[WarmUpState, Recording]:
        chunk_key = jax.random.fold_in(key, index)
        learning = _learning(proposes=proposes, rate=rate)
        state, recording = run_sweeps((coordinates, static, settings, learning, chunk_key), state)
        report(
            stage=stage,
            step=index + 1,
            global_acceptance_rate=acceptance(recording),
            local_acceptance_rate=float(np.asarray(recording.local_acceptance_rate).mean()),
        )
        return state, recording

    coordinates, state = fisher_coordinates(coordinates, state, settings)
    importlib.import_module("sklearn.mixture")  # takes a second, and is needed next
    compiled.result()
    for stage, stage_key in (("explore", explore_key), ("explore again", again_key)):
        for index in range(settings.exploration_chunks):
            state, _ = run(stage, stage_key, static, index, state, proposes=False)
        if stage == "explore":
            coordinates, state = spread_coordinates(coordinates, _newest(state), state, settings)

    fitted = _search_mixture(state, settings)
    if len(fitted.density.log_weights) > size:
        size = settings.max_components

    def stand_on(
        base: GaussianMixture, modes: GaussianMixture, state: WarmUpState
    ) -> tuple[WarmUpState, PyTree]:
        proposal = _proposal(flow_key, coordinates, flow, _base(base, size))
        return _with_flow(state, padded(modes, size), proposal)

    mixture = _refit_mixture(state, [fitted.density], fitted)
    state, static = stand_on(mixture, merged(mixture), state)
    for index in range(settings.mixture_chunks):
        state, _ = run("mixture", mixture_key, static, index, state)

    mixture = _refit_mixture(state, [mixture], fitted)
    modes = merged(mixture)
    state, static = stand_on(modes, modes, state)
    lesson = partial(run, "flow", teach_key, static)
    state, best, at_chains = teach(lesson, state, settings)
    several = flow is None and len(modes.log_weights) < len(mixture.log_weights)
    if several and reports[-1]["global_acceptance_rate"] < GOOD_ACCEPTANCE:
        candidates = [(best, static)]
        state, static = stand_on(mixture, modes, state)
        lesson = partial(run, "flow on components", components_key, static)
        state, best, _ = teach(lesson, state, settings)
        candidates.append((best, static))
        trials = []
        for index, (average, fixed) in enumerate(candidates):
            state = state._replace(flow=state.flow._replace(average=copy_arrays(average)))
            state, recording = run("compare", compare_key, fixed, index, state)
            trials.append(recording)
        winner = int(np.argmax([acceptance(each) for each in trials]))
        best, static = candidates[winner]
        at_chains = last_log_weights(trials[winner])
    taught = eqx.combine(best, static)
    weighs.result()
    weights = weigh_draws(teach_key, coordinates, taught, DRAWS_AT_ONCE)[1]
    kernel = FrozenKernel(
        settings.local_kernel,
        settings.local_steps,
        adaptation.final(state.adaptation),
        # A copy, because production is given its state to overwrite.
        copy_arrays(state.preconditioner),
    )
    kernel, tried = choose_global_move(
        jax.random.fold_in(key, 7),
        coordinates,
        taught,
        kernel,
        state.chains.position,
        at_chains,
        weights,
    )
    if tried:
        report(**tried)
    production = _production(coordinates, taught, kernel, state, static, settings)
    return WarmedUp(coordinates, taught, kernel, production, reports)


def _learning(*, proposes: bool = True, rate: float = 0.0, adapts: bool = True) -> Learning:
    # By way of NumPy: from Python's numbers come weak types, and a second program.
    rate_array = np.asarray(rate, jnp.result_type(float))
    return Learning(
        *(jnp.asarray(each) for each in (np.bool_(proposes), rate_array, np.bool_(adapts)))
    )


def _production(
    coordinates: Rescaled,
    flow: AbstractDistribution,
    kernel: FrozenKernel,
    state: WarmUpState,
    static: PyTree,
    settings: WarmUpSettings,
) -> Sweeps:
    """Sweeps of the frozen kernel: by the warm-up's own program, if its moves are the same."""
    if kernel.proposals > 1 or kernel.path is not None:
        return frozen_sweeps(coordinates, flow, state.chains.position, kernel)
    nothing = _learning(adapts=False)

    def run(key: PRNGKeyArray, state: WarmUpState) -> tuple[WarmUpState, Recording]:
        return run_sweeps((coordinates, static, settings, nothing, key), state)

    average = copy_arrays(trainable(flow)[0])
    return Sweeps(state._replace(flow=state.flow._replace(average=average)), run, settings.chunk)


def _proposal(
    key: PRNGKeyArray,
    coordinates: Rescaled,
    flow: AbstractDistribution | None,
    base: GaussianMixture,
    make: Callable[..., AbstractDistribution] = proposal_on,
) -> AbstractDistribution:
    """The user's flow in the sampler's coordinates, or an untaught one on `base`."""
    if flow is None:
        # Splines propose a little better, and take three times as long (docs/decisions.md).
        return make(key, base, "affine")
    to_sampler = Affine(-coordinates.centre / coordinates.scale, 1 / coordinates.scale)
    return Transformed(flow, paramax.non_trainable(to_sampler))


def _zeros(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, with zeros in place of all numbers."""
    shapes = eqx.filter_eval_shape(function, *arguments)

    def fill(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        return jnp.asarray(np.zeros(leaf.shape, leaf.dtype))

    return jax.tree.map(fill, shapes)


def _with_flow(
    state: WarmUpState, mixture: GaussianMixture, flow: AbstractDistribution
) -> tuple[WarmUpState, PyTree]:
    """The state with an untaught flow, and its fixed part; the step size starts anew.

    In the new local coordinates the modes, told apart by the mixture, are round.
    """
    untaught, static = initial_flow(flow)
    scale, step_size = _learn_scale(state.reservoir, state.seen, state.preconditioner, mixture)
    state = state._replace(preconditioner=scale, adaptation=step_size, flow=untaught)
    return state, static


def _newest(state: WarmUpState) -> Float[np.ndarray, "rows d"]:
    """The newer half of what is in the reservoir, newest first."""
    rows = np.asarray(state.reservoir, dtype=float)
    filled = min(int(state.seen), len(rows))
    return rows[(int(state.seen) - 1 - np.arange(max(1, filled // 2))) % len(rows)]


def _search_mixture(state: WarmUpState, settings: WarmUpSettings) -> Fitted:
    """The kind of mixture that stands under the flow, by a search on few rows."""
    rows = np.random.default_rng(0).permutation(_newest(state))[:MIXTURE_ROWS]
    held_out = len(rows) // 4
    return best_mixture(
        rows[held_out:],
        rows[:held_out],
        seed=0,
        max_components=settings.max_components,
        quick=True,
    )


def _refit_mixture(
    state: WarmUpState, known: list[GaussianMixture], fitted: Fitted
) -> GaussianMixture:
    """A mixture of the kind of `fitted` on the newer half of the reservoir, or a known one.

    EM may end in a worse optimum than before: the likeliest one, on these rows, is kept.
    """
    rows = _newest(state)
    return max(*known, fitted.fit(rows), key=lambda mixture: log_prob_on_host(mixture, rows).mean())


def _base(mixture: GaussianMixture, size: int) -> GaussianMixture:
    """What the flow stands on, of one size for all mixtures of up to `size` components."""
    return padded(with_wide_twins(mixture, WIDE_SHARE), 2 * size)


@quick_jit(0)
def _learn_scale(
    reservoir: Float[Array, "rows d"],
    seen: Array,
    preconditioner: Preconditioner,
    mixture: GaussianMixture,
) -> tuple[Preconditioner, DualAveragingAdaptationState]:
    filled = jnp.arange(len(reservoir)) < seen
    rows = jnp.where(filled[:, None], reservoir, jnp.nan)
    labels = jax.vmap(lambda x: jnp.argmax(mixture.joint_log_prob(x)))(reservoir)
    kind = "dense" if preconditioner.scale.ndim == 2 else "diagonal"
    learnt = learn_preconditioner(rows, kind, labels)
    return copy_arrays((learnt, adaptation.init(adaptation.first_step_size(reservoir))))
