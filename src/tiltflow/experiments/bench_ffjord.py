"""Benchmark: a training step of FFJORD here, against the design of its authors in PyTorch.

The same concat-squash field 64-64-64 in the plane, the same weights, rows, batches and tolerance,
dopri5's order on both sides, Hutchinson's trace with Gaussian noise; a step is loss, gradient and
update, as each side's training takes it. Both begin where the field is zero, and once more where
some hundred steps have led, with the trained weights on both sides. Before anything is timed, both
must agree on the loss of one batch with the same noise. Then they take turns.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import StandardNormal, Transformed
from jaxtyping import Float
from tqdm import tqdm

from tiltflow.data.errors import InputError
from tiltflow.data.pinwheel import Pinwheel
from tiltflow.models.continuous import ContinuousFlow, continuous_flow, continuous_flows
from tiltflow.models.integration import draw_probes
from tiltflow.report.table import format_table
from tiltflow.training.continuous_fit import ContinuousLikelihood, fit_continuous_flow
from tiltflow.training.maximum_likelihood import initial_state, parts_of, run_chunk

BATCHES = (100, 512)
ROWS = 10_000
TRAINED_STEPS = 400
LEARNING_RATE = 5e-3
STANDING_STILL = 1e-7
"""The rate of timed steps, so that all of them meet the same equation."""
OURS, ADJOINT, PLAIN = "tiltflow", "torchdiffeq, odeint_adjoint", "torchdiffeq, odeint"
STEPS = {OURS: 8, ADJOINT: 2, PLAIN: 2}
"""Of a turn."""
TURNS = 7
AGREEMENT = 1e-3
OBJECTIVE = ContinuousLikelihood(trace="gaussian")


class Turn(NamedTuple):
    """Milliseconds of a step, and calls of the field to the loss and back."""

    milliseconds: float
    forward: float
    backward: float


def bench_ffjord(*, seed: int, quiet: bool) -> None:
    """Print milliseconds a step and their ratios to the authors' design.

    Raises:
        InputError: torch or torchdiffeq is not installed.
    """
    require_peers()
    from tiltflow.experiments.torch_ffjord import versions

    x = standard_rows(seed)
    lines = []
    starts = {0: new_flow(seed)}
    starts[TRAINED_STEPS] = trained_flow(starts[0], x, seed, quiet=quiet)
    for batch in BATCHES:
        for steps, flow in starts.items():
            difference = loss_difference(flow, x[:batch], seed)
            turns = measure(flow, x, batch, seed=seed, quiet=quiet)
            lines += table_rows(batch, steps, difference, turns)
    print(
        f"one training step in the plane, 64-64-64, tolerance 1e-5; {versions()}; "
        f"jax {jax.__version__}, diffrax {diffrax.__version__}, {jax.default_backend()}"
    )
    columns = ["batch", "after steps", "side", "step, ms", "calls to the loss", "and back"]
    print(format_table([*columns, "it / tiltflow", "losses differ by"], lines))


def require_peers() -> None:
    """Refuse to go on without PyTorch and torchdiffeq.

    Raises:
        InputError: which one is missing, and how to install both.
    """
    missing = [each for each in ("torch", "torchdiffeq") if importlib.util.find_spec(each) is None]
    if missing:
        raise InputError(
            f"{', '.join(missing)}: not installed; pip install torch==2.13.0 torchdiffeq==0.2.5"
        )


def standard_rows(seed: int) -> Float[np.ndarray, "n 2"]:
    """Rows of a pinwheel, standardised."""
    rows = np.asarray(Pinwheel().sample(jax.random.key(seed), ROWS))
    return (rows - rows.mean(axis=0)) / rows.std(axis=0)


def new_flow(seed: int) -> Transformed:
    """The flow at the start of training: its field is zero."""
    return continuous_flow(jax.random.key(seed), StandardNormal((2,)))


def trained_flow(
    flow: Transformed, x: Float[np.ndarray, "n 2"], seed: int, *, quiet: bool
) -> Transformed:
    """The flow after `TRAINED_STEPS` steps."""
    if not quiet:
        print(f"training for {TRAINED_STEPS} steps", flush=True)
    fit = fit_continuous_flow(
        jax.random.key(seed),
        flow,
        jnp.asarray(x),
        jnp.asarray(x[:500]),
        objective=OBJECTIVE,
        learning_rate=LEARNING_RATE,
        batch_size=BATCHES[0],
        max_steps=TRAINED_STEPS,
    )
    assert isinstance(fit.flow, Transformed)
    return fit.flow


def loss_difference(flow: Transformed, batch: Float[np.ndarray, "b 2"], seed: int) -> float:
    """How far both sides' losses of one batch are apart, with one noise.

    Raises:
        ValueError: too far for both to solve the same equation.
    """
    from tiltflow.experiments.torch_ffjord import Training

    draw = jax.vmap(lambda key: draw_probes(key, "gaussian", 1, 2))
    noise = draw(jax.random.split(jax.random.key(seed), len(batch)))
    end = the_flow(flow).solve(jnp.asarray(batch), noise, "base").end
    assert end.log_det is not None
    ours = -float((flow.base_dist.log_prob(end.x) + end.log_det).mean())
    sides = {ADJOINT: True, PLAIN: False}
    theirs = {
        side: Training(the_flow(flow), adjoint=adjoint, learning_rate=0.0).loss(
            batch, np.array(noise[:, 0])
        )
        for side, adjoint in sides.items()
    }
    difference = max(abs(ours - each) for each in theirs.values())
    if not difference <= AGREEMENT:
        raise ValueError(f"both sides must solve one equation: losses {ours} here, {theirs}")
    return difference


def measure(
    flow: Transformed, x: Float[np.ndarray, "n 2"], batch: int, *, seed: int, quiet: bool
) -> dict[str, Turn]:
    """Medians over the turns; the first turn warms up."""
    sides = {
        OURS: our_turn(flow, x, batch, seed),
        ADJOINT: their_turn(flow, x, batch, adjoint=True),
        PLAIN: their_turn(flow, x, batch, adjoint=False),
    }
    turns: dict[str, list[Turn]] = {side: [] for side in sides}
    for _ in tqdm(range(TURNS + 1), disable=quiet, leave=False, desc=f"batch {batch}"):
        for side, turn in sides.items():
            turns[side].append(turn())
    return {
        side: Turn(*(statistics.median(column) for column in zip(*each[1:])))
        for side, each in turns.items()
    }


def our_turn(
    flow: Transformed, x: Float[np.ndarray, "n 2"], batch: int, seed: int
) -> Callable[[], Turn]:
    """Some steps of the compiled chunk that training runs."""
    parameters, running, static = parts_of(flow)
    rates = jnp.full(STEPS[OURS], STANDING_STILL, x.dtype)
    decay = jnp.asarray(np.asarray(1e-5, x.dtype))
    fixed: tuple[Any, ...] = (OBJECTIVE, static, jnp.asarray(x), batch, rates, decay, 0.99)
    fixed = (*fixed, jax.random.key(seed))
    compiled = run_chunk.lower(fixed, initial_state(parameters, running)).compile()  # pyright: ignore[reportFunctionMemberAccess]

    def turn() -> Turn:
        state = jax.block_until_ready(initial_state(parameters, running))
        started = time.perf_counter()
        _, figures = jax.block_until_ready(compiled(fixed, state))
        seconds = (time.perf_counter() - started) / STEPS[OURS]
        calls = float(np.mean(figures["evaluations"]))
        # Every call is gone through once more, from its checkpoint.
        return Turn(1e3 * seconds, calls, calls)

    return turn


def their_turn(
    flow: Transformed, x: Float[np.ndarray, "n 2"], batch: int, *, adjoint: bool
) -> Callable[[], Turn]:
    """Some steps of PyTorch's side, batch after batch."""
    from tiltflow.experiments.torch_ffjord import Training

    training = Training(the_flow(flow), adjoint=adjoint, learning_rate=STANDING_STILL)
    steps = STEPS[ADJOINT if adjoint else PLAIN]
    batches = [np.array(x[i * batch : (i + 1) * batch]) for i in range(steps)]

    def turn() -> Turn:
        started = time.perf_counter()
        calls = [training.step(each) for each in batches]
        seconds = (time.perf_counter() - started) / steps
        return Turn(1e3 * seconds, *(float(np.mean(each)) for each in zip(*calls)))

    return turn


def the_flow(flow: Transformed) -> ContinuousFlow:
    """The one continuous flow of the benchmark."""
    (each,) = continuous_flows(flow)
    return each


def table_rows(
    batch: int, steps: int, difference: float, turns: dict[str, Turn]
) -> Sequence[list[str]]:
    """A line for every side."""
    ours = turns[OURS].milliseconds
    return [
        [
            str(batch),
            str(steps),
            side,
            f"{turn.milliseconds:.1f}",
            f"{turn.forward:.0f}",
            f"{turn.backward:.0f}",
            f"{turn.milliseconds / ours:.1f}",
            f"{difference:.0e}",
        ]
        for side, turn in turns.items()
    ]
