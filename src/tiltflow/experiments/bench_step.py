"""Benchmark: one steady training step against its matrix products alone, and its compile time.

The reference runs the products that the step cannot do without, forward and backward, for the
energy and for the flow's conditioners, with one cheap non-linearity between them so that nothing
folds away. Both are timed in turns in one process, and medians are compared.
"""

import statistics
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float

from tiltflow.data.mixtures import two_modes
from tiltflow.experiments.problem import make_problem
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.flows import trainable
from tiltflow.report.table import format_table
from tiltflow.training.balanced import Balanced
from tiltflow.training.bases import choose_base
from tiltflow.training.loop import Fixed, Schedule, initial_state, run_chunk

Weights = list[Float[Array, "inputs outputs"]]
CHAINS, BATCH, LOCAL_STEPS, CHUNK, REPEATS = 1024, 1024, 10, 50, 7


def bench_step(*, seed: int, quiet: bool) -> None:
    """Print step time, the time of its matrix products, their ratio, and the compile time."""
    problem = make_problem(two_modes(), rows=20_000, seed=seed)
    start = choose_base(jax.random.key(seed), "gaussian", problem.x, problem.held_out, seed=seed)
    rows = []
    for name, flow in (("with the flow's", start.flow), ("the energy's alone", None)):
        rows.append(_measure(name, problem.x, start.base, start.flow, flow is not None, seed))
    columns = [
        "matrix products",
        "step, ms",
        "products, ms",
        "ratio",
        "lowest",
        "highest",
        "compile, s",
    ]
    print(
        f"one training step: d = 2, {CHAINS} chains, MLP 128 x 3, {LOCAL_STEPS} MALA + 1 "
        f"independent MH, flow and energy updates, batch {BATCH}; median of {REPEATS} turns"
    )
    print(format_table(columns, rows))


def _measure(
    name: str,
    x: Float[np.ndarray, "n d"],
    base: AbstractDistribution,
    flow: AbstractDistribution,
    count_flow: bool,
    seed: int,
) -> list[str]:
    source = Balanced(chains=CHAINS, local_steps=LOCAL_STEPS)
    schedule = Schedule(steps=CHUNK, chunk=CHUNK, batch_size=BATCH)
    energy = MLPEnergy(x.shape[1], key=jax.random.key(seed))
    parameters, energy_static = eqx.partition(energy, eqx.is_inexact_array)
    fixed = Fixed(source, base, energy_static, trainable(flow)[1], schedule, jnp.asarray(x))
    state = initial_state(parameters, source.init(jax.random.key(1), base, flow), schedule)
    inputs = (fixed, jnp.ones(CHUNK), jnp.ones(CHUNK), jax.random.key(2))
    started = time.perf_counter()
    compiled = run_chunk.lower(inputs, state).compile()  # pyright: ignore[reportFunctionMemberAccess]
    compile_seconds = time.perf_counter() - started

    products = _products(_energy_weights(energy), _conditioner_weights(flow) if count_flow else [])
    argument = jax.random.normal(jax.random.key(3), (CHAINS, x.shape[1]))
    jax.block_until_ready(products(argument))
    step_times, product_times = [], []
    for _ in range(REPEATS):
        started = time.perf_counter()
        state, _ = compiled(inputs, state)
        jax.block_until_ready(state)
        step_times.append((time.perf_counter() - started) / CHUNK * 1e3)
        started = time.perf_counter()
        jax.block_until_ready(products(argument))
        product_times.append((time.perf_counter() - started) / CHUNK * 1e3)
    ratios = [step / product for step, product in zip(step_times, product_times)]
    return [
        name,
        f"{statistics.median(step_times):.2f}",
        f"{statistics.median(product_times):.2f}",
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f}",
        f"{max(ratios):.2f}",
        f"{compile_seconds:.1f}",
    ]


def _energy_weights(energy: MLPEnergy) -> Weights:
    # The last layer starts at zero; the products of zeros might be skipped.
    shapes = [layer.weight.T.shape for layer in energy.network.layers]
    return [jnp.full(shape, 0.1) for shape in shapes]


def _conditioner_weights(flow: AbstractDistribution) -> list[Weights]:
    """The weight matrices of every coupling layer's conditioner."""
    networks = [
        node
        for node in jax.tree.leaves(flow, is_leaf=lambda node: isinstance(node, eqx.nn.MLP))
        if isinstance(node, eqx.nn.MLP)
    ]
    return [
        [jnp.swapaxes(layer.weight, 1, 2)[i] for layer in net.layers]
        for net in networks
        for i in range(net.layers[0].weight.shape[0])
    ]


def _products(energy: Weights, conditioners: list[Weights]) -> Callable[[Array], Array]:
    """CHUNK steps' worth of matrix products, each fed by the one before."""

    def input_gradient(x: Array, weights: Weights) -> Array:
        """Forward, then backward to the input: as many products again."""
        hidden = _forward(x, weights)
        return x + 1e-6 * _backward(hidden, weights)

    def parameter_gradient(x: Array, weights: Weights) -> Array:
        """Forward, backward to the hidden layers, and the outer products."""
        gradient = jax.grad(lambda w: jnp.sum(_forward(x, w)))(weights)
        return x + 1e-6 * sum(jnp.sum(g) for g in gradient)

    def step(_: Array, x: Array) -> Array:
        # the chains and the proposals anew, then the local steps
        x = input_gradient(jnp.concatenate([x, x]), energy)[:CHAINS]
        x = jax.lax.fori_loop(0, LOCAL_STEPS, lambda _, y: input_gradient(y, energy), x)
        # the batch, and two negatives for each chain: itself and its proposal
        x = parameter_gradient(jnp.concatenate([x, x, x]), energy)[:CHAINS]
        for weights in conditioners:
            half = jnp.resize(x, (CHAINS, weights[0].shape[0]))
            half = parameter_gradient(half, weights) + 1e-6 * jnp.mean(_forward(half, weights))
            x = x + 1e-6 * jnp.mean(half)
        return x

    return jax.jit(lambda x: jax.lax.fori_loop(0, CHUNK, step, x))


def _forward(x: Array, weights: Weights) -> Array:
    for weight in weights[:-1]:
        x = jax.nn.relu(x @ weight)
    return x @ weights[-1]


def _backward(gradient: Array, weights: Weights) -> Array:
    for weight in reversed(weights[1:]):
        gradient = jax.nn.relu(gradient @ weight.T)
    return gradient @ weights[0].T
