"""Which global move a frozen flow gets: one draw, several, or an annealed path; by counted cost.

Most worth is the move with the largest probability of moving for its cost, its share of local
moves included. Paths are tried only where the better of the others collapses, since they cost a
compilation. Their own probability is measured on as many paths up as there are chains, and as many
down from the chains.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.special import ndtri

from tiltflow.sampling.chains import LogDensity
from tiltflow.sampling.cost import operations
from tiltflow.sampling.iterated import choose_global_kernel, moving_probability
from tiltflow.sampling.paths import AnnealedPath, anneal
from tiltflow.sampling.sweep import FrozenKernel, path_of

MOST_PROPOSALS = 64
COLLAPSED = 0.05
"""Below this share of moves the verdict doubts that chains cross; above it no path is needed."""
TEMPERATURES, MOST_TEMPERATURES = 8, 64
TOO_FEW, GOOD = 0.1, 0.3
"""Below `TOO_FEW` a longer path is tried, long enough for `GOOD`: log-normal weights of variance v,
which falls as one over the length, move with probability 2 Phi(-sqrt(v / 2))."""


def choose_global_move(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    kernel: FrozenKernel,
    position: Float[Array, "n d"],
    at_chains: Float[np.ndarray, " m"],
    of_draws: Float[Array, " k"],
) -> tuple[FrozenKernel, dict[str, Any] | None]:
    """The kernel with the global move that pays best, and a report if a path was tried.

    `at_chains` and `of_draws` are log-weights of single draws; without any there is no choice.
    """
    point = jnp.zeros(flow.shape)
    evaluation, log_prob = operations(log_density, point), operations(flow.log_prob, point)
    # A gradient costs about twice as much again as the value.
    local_sweep = 3 * evaluation * kernel.local_steps
    draw = operations(lambda: flow.sample_and_log_prob(jax.random.key(0))) + evaluation
    m = choose_global_kernel(at_chains, of_draws, draw, local_sweep, most=MOST_PROPOSALS)
    plain = kernel._replace(proposals=m)
    moving = moving_probability(at_chains, of_draws, m)
    if not len(at_chains) or moving >= COLLAPSED:
        return plain, None

    def attempt(count: int) -> tuple[AnnealedPath, float]:
        path_key, try_key = jax.random.split(jax.random.fold_in(key, count))
        path = path_of(path_key, log_density, flow, position, kernel, count)
        return path, moving_probability(*_try(try_key, log_density, flow, position, path))

    def worth(found: tuple[AnnealedPath, float]) -> float:
        gradients = 4 * len(found[0].temperatures)
        return found[1] / (3 * gradients * (evaluation + log_prob) + draw + local_sweep)

    found = attempt(TEMPERATURES)
    if found[1] < TOO_FEW:
        found = max(found, attempt(_long_enough(found[1])), key=worth)
    kept = worth(found) > moving / (m * draw + local_sweep)
    report = {
        "stage": "annealed path",
        "temperatures": len(found[0].temperatures),
        "global_acceptance_rate": found[1],
        "without_path": moving,
        "kept": kept,
    }
    return (kernel._replace(path=found[0]) if kept else plain), report


def _long_enough(moving: float) -> int:
    factor = (ndtri(moving / 2) / ndtri(GOOD / 2)) ** 2
    return int(min(np.ceil(TEMPERATURES * factor), MOST_TEMPERATURES))


@eqx.filter_jit
def _try(
    key: PRNGKeyArray,
    log_density: LogDensity,
    flow: AbstractDistribution,
    position: Float[Array, "n d"],
    path: AnnealedPath,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Log-weights of paths down from the chains, and of as many paths up."""
    draw_key, up_key, down_key = jax.random.split(key, 3)
    start = flow.sample(draw_key, (len(position),))
    own = anneal(down_key, position, log_density, flow, path, down=True)[1]
    return own, anneal(up_key, start, log_density, flow, path)[1]
