"""Maximum likelihood of a flow, stopped early on held-out rows: the first fit of a proposal or
of a flow as base.

Steps run in compiled chunks; between chunks the held-out likelihood decides which state is kept.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.models.flows import trainable


class FlowFit(NamedTuple):
    """The flow with the best held-out log-likelihood (mean, nats) and the steps it took."""

    flow: AbstractDistribution
    held_out_log_likelihood: float
    steps: int


def fit_flow(
    key: PRNGKeyArray,
    flow: AbstractDistribution,
    x: Float[Array, "n d"],
    held_out: Float[Array, "m d"],
    *,
    learning_rate: float = 2e-3,
    batch_size: int = 512,
    max_steps: int = 4000,
    chunk: int = 100,
    patience: int = 5,
    on_report: Callable[[dict], None] | None = None,
) -> FlowFit:
    """Maximise the likelihood of `x`; stop when `patience` chunks bring no held-out gain."""
    parameters, static = trainable(flow)
    state = (jax.tree.map(jnp.copy, parameters), _optimiser().init(parameters))
    batch_size = min(batch_size, x.shape[0])
    best, best_score, best_step, stale = flow, -math.inf, 0, 0
    score = float(_mean_log_prob(parameters, static, held_out))
    if math.isfinite(score):
        best_score = score
    for step in range(0, max_steps, chunk):
        rate = learning_rate * 0.5 * (1 + math.cos(math.pi * step / max_steps))
        chunk_key = jax.random.fold_in(key, step)
        fixed = (static, x, batch_size, chunk, jnp.asarray(rate), chunk_key)
        state = _run_chunk(fixed, state)
        score = float(_mean_log_prob(state[0], static, held_out))
        if on_report:
            on_report(
                {"step": step + chunk, "total_steps": max_steps, "held_out_log_likelihood": score}
            )
        if score > best_score:
            # The state is donated to the next chunk, so what is kept must be a copy.
            best = eqx.combine(jax.tree.map(jnp.copy, state[0]), static)
            best_score, best_step, stale = score, step + chunk, 0
        else:
            stale += 1
            if stale >= patience or not math.isfinite(score):
                break
    return FlowFit(best, best_score, best_step)


def _optimiser() -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())


@eqx.filter_jit
def _mean_log_prob(parameters: PyTree, static: PyTree, x: Float[Array, "n d"]) -> Array:
    return eqx.combine(parameters, static).log_prob(x).mean()


@eqx.filter_jit(donate="all-except-first")
def _run_chunk(fixed: tuple, state: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
    static, x, batch_size, chunk, rate, key = fixed
    order = jax.random.permutation(key, x.shape[0])

    def loss(parameters: PyTree, batch: Float[Array, "b d"]) -> Array:
        return -eqx.combine(parameters, static).log_prob(batch).mean()

    def step(state: tuple, i: Array) -> tuple[tuple, None]:
        parameters, optimiser = state
        rows = order[(i * batch_size + jnp.arange(batch_size)) % x.shape[0]]
        gradient = jax.grad(loss)(parameters, x[rows])
        updates, optimiser = _optimiser().update(gradient, optimiser, parameters)
        parameters = jax.tree.map(lambda p, u: p - rate * u, parameters, updates)
        return (parameters, optimiser), None

    state, _ = jax.lax.scan(step, state, jnp.arange(chunk))
    return state
