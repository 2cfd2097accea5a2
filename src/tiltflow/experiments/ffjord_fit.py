"""One training of a flow in the plane and its judgement by quadrature, for `ffjord_2d.py`.

Rows are standardised by their own mean and scale. The state that is best on held-out rows is kept,
and judged on rows that nothing else has seen.
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution, AbstractTransformed, StandardNormal
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tiltflow.data.targets import Target
from tiltflow.evaluation.quadrature import Grid, kl_divergence, proposal_quality
from tiltflow.experiments.clock import clock
from tiltflow.experiments.density_images import Image
from tiltflow.experiments.problem import exact_log_prob
from tiltflow.models.batch_likelihood import batch_likelihood
from tiltflow.models.continuous import continuous_flow, continuous_flows, with_integration
from tiltflow.models.energy_flow import EnergyFlow, normalise_activations
from tiltflow.models.energy_flow_architectures import coupled_energy_flow
from tiltflow.models.flows import coupling_flow, trainable
from tiltflow.models.integration import Integration
from tiltflow.models.vector_fields import ConcatSquashField
from tiltflow.training.flow_objective import FlowObjective
from tiltflow.training.maximum_likelihood import fit_flow

TOLERANCE = 1e-5
ROWS, HELD_OUT, TEST = 50_000, 4096, 8192
CELLS, PIECE = 192, 4096
"""Cells on a side, and points that are judged in one solve, with one step size."""
CHUNKS = 20
WIDTHS = (64, 64, 64)
FIRST_WEIGHTS = 4.0
"""Times as large as usual: the arms of two spirals are a thirtieth of the data's deviation wide,
and with the usual weights a field is slow to become as narrow."""
LAYERS, WIDTH = 8, 45
"""Of the coupling flow: as many parameters as the field has, within half a per cent."""
SIZES = (TOLERANCE, ROWS, HELD_OUT, TEST, CELLS, PIECE, WIDTHS, FIRST_WEIGHTS, LAYERS, WIDTH)
"""All that decides figures beside a method and a density."""


@dataclass(frozen=True)
class Budget:
    """How long, and how, a method trains; `averaging` is the moving average's decay."""

    steps: int
    batch_size: int
    learning_rate: float
    averaging: float = 0.99


@dataclass(frozen=True)
class Method:
    """A loss and how its field is integrated in training, None where there is no field.

    `guess` is how many seconds a cell takes.
    """

    name: str
    objective: FlowObjective
    integration: Integration | None
    budget: Budget
    guess: float

    def new_flow(self, key: PRNGKeyArray) -> AbstractDistribution:
        """The flow before training: a standard normal."""
        base = StandardNormal((2,))
        if self.integration is None:
            return coupling_flow(key, base, layers=LAYERS, width=WIDTH)
        flow = continuous_flow(key, base, widths=WIDTHS, integration=self.integration)
        return eqx.tree_at(_first_weights, flow, replace_fn=lambda weights: FIRST_WEIGHTS * weights)


@dataclass(frozen=True)
class AffineMethod(Method):
    """A method of a deep coupling flow of affine maps, the kind that FFJORD was compared with.

    `layers` and `width` give it as many parameters as the field has.
    """

    layers: int = 32
    width: int = 71

    def new_flow(self, key: PRNGKeyArray) -> AbstractDistribution:
        """Affine couplings alone: a standard normal before training.

        By tanh: thirty-two layers that grow each with a ReLU come to steps that are not finite, and
        to points of no density where the truth has mass.
        """
        return coupling_flow(
            key,
            StandardNormal((2,)),
            layers=self.layers,
            width=self.width,
            transformer="affine",
            activation=jnp.tanh,
        )


@dataclass(frozen=True)
class EnergyFlowMethod(Method):
    """A method of an energy flow (`models/energy_flow.py`), which nothing is integrated for.

    `blocks` and `width` give it as many parameters as the field has.
    """

    blocks: int = 10
    width: int = 227

    def new_flow(self, key: PRNGKeyArray) -> AbstractDistribution:
        """Affine couplings with linear layers between: random rotations of a normal."""
        return coupled_energy_flow(key, 2, blocks=self.blocks, width=self.width)


def _first_weights(flow: Any) -> Any:
    # Not an array's type: it is also asked for the place alone, which holds something else.
    (each,) = continuous_flows(flow)
    assert isinstance(each.field, ConcatSquashField)
    return each.field.layers[0].linear.weight


def parameters_of(flow: AbstractDistribution) -> int:
    """How many numbers training changes."""
    return sum(leaf.size for leaf in jax.tree.leaves(trainable(flow)[0]))


def fit_and_judge(
    target: Target, half_side: float, method: Method, seed: int
) -> tuple[dict[str, Any], Image]:
    """Figures of one cell, and the learned density as an image.

    `seconds` (`clock.py`) are those of training steps and of watching them, without compilation.
    """
    data_key, flow_key, fit_key = jax.random.split(jax.random.key(seed), 3)
    rows = np.asarray(target.sample(data_key, ROWS + HELD_OUT + TEST))
    mean, scale = rows[:ROWS].mean(axis=0), rows[:ROWS].std(axis=0)
    x = jnp.asarray((rows - mean) / scale)
    budget = method.budget
    chunk = max(1, budget.steps // CHUNKS)
    reports: list[dict[str, Any]] = []
    times: list[float] = []

    def on_report(report: dict[str, Any]) -> None:
        reports.append(report)
        times.append(clock())

    flow = method.new_flow(flow_key)
    if isinstance(flow, EnergyFlow):
        flow = normalise_activations(flow, x[:HELD_OUT])
    fit = fit_flow(
        fit_key,
        flow,
        x[:ROWS],
        x[ROWS : ROWS + HELD_OUT],
        learning_rate=budget.learning_rate,
        batch_size=budget.batch_size,
        max_steps=budget.steps,
        chunk=chunk,
        patience=CHUNKS,
        objective=method.objective,
        averaging=budget.averaging,
        on_report=on_report,
    )
    # The first chunk may have compiled; the others are alike.
    each = (times[-1] - times[0]) / max(len(times) - 1, 1)
    model = fit.flow
    figures: dict[str, Any] = {
        "parameters": parameters_of(model),
        "steps": budget.steps,
        "kept_step": fit.steps,
        "skipped": fit.skipped,
        "stopped": fit.stopped,
        "seconds": each * len(times),
    }
    if method.integration is not None:
        if "evaluations" in reports[-1]:
            figures["calls_training"] = reports[-1]["evaluations"]
        model = with_integration(model, Integration(tolerance=TOLERANCE))
    shift = float(np.log(scale).sum())
    grid = grid_of(half_side)
    points = jnp.asarray((grid.points - mean) / scale, x.dtype)
    test, calls = evaluate(model, x[-TEST:])
    log_prob = evaluate(model, points)[0] - shift
    if method.integration is not None:
        figures["calls"] = calls
    # A piece is one solve: where it fails, all of its rows are without a density, and KL is none.
    figures["failed_rows"] = int((~np.isfinite(np.concatenate([test, log_prob]))).sum())
    figures["nll"] = shift - float(test.mean())
    truth = exact_log_prob(target, grid.points)
    figures["kl"] = kl_divergence(grid, truth, log_prob)
    figures |= proposal_quality(grid, truth, log_prob)._asdict()
    figures["mass"] = float(np.exp(log_prob + grid.log_cell).sum())
    if method.integration is not None and method.integration.steps is not None:
        own = evaluate(fit.flow, points)[0] - shift
        figures["kl_own_steps"] = kl_divergence(grid, truth, own)
    return figures, Image(grid.x, grid.y, grid.image(log_prob))


def grid_of(half_side: float) -> Grid:
    """The square around the origin, in cells."""
    axis = half_side * (2 * (np.arange(CELLS) + 0.5) / CELLS - 1)
    return Grid(axis, axis)


def evaluate(
    model: AbstractDistribution, x: Float[Array, "n 2"]
) -> tuple[Float[np.ndarray, " n"], float]:
    """Log-probabilities of rows by the exact trace, and the mean number of calls of a piece."""
    pieces = [_evaluate(model, x[i : i + PIECE]) for i in range(0, len(x), PIECE)]
    log_prob, calls = zip(*pieces)
    return np.concatenate(log_prob).astype(float), float(np.mean(calls))


@eqx.filter_jit
def _evaluate(
    model: AbstractDistribution, x: Float[Array, "n 2"]
) -> tuple[Float[Array, " n"], Int[Array, ""]]:
    if not continuous_flows(model):
        return model.log_prob(x), jnp.asarray(0)
    assert isinstance(model, AbstractTransformed)
    result = batch_likelihood(model, x)
    return result.log_prob, result.evaluations
