"""The local moves of contrastive and of persistent divergence: Langevin, adjusted or not.

    ula    x' = x + h grad log p(x) + sqrt(2 h) xi, always taken; h is fixed
    mala   the same, taken or refused by Metropolis-Hastings; h follows the acceptance rate 0.574

(Roberts and Tweedie 1996; Roberts and Rosenthal 1998.)
"""

from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.sampling.chains import LogDensity, refresh
from tiltflow.sampling.local import adapt_step_size, mala, ula
from tiltflow.training.methods import Figures

LangevinKernel = Literal["ula", "mala"]


class LangevinState(NamedTuple):
    """The chains, and the step size of their next moves."""

    position: Float[Array, "n d"]
    step_size: Float[Array, ""]


def langevin_start(
    key: PRNGKeyArray, base: AbstractDistribution, chains: int, step_size: float
) -> LangevinState:
    """Chains at draws of the base."""
    position = base.sample(key, (chains,))
    return LangevinState(position, jnp.full((), step_size, position.dtype))


def check_kernel(kernel: str) -> None:
    """Refuse a kernel that is not known: `InputError`."""
    if kernel not in get_args(LangevinKernel):
        raise InputError(f"kernel: '{kernel}' is not known; use ula or mala")


def langevin_moves(
    kernel: LangevinKernel,
    key: PRNGKeyArray,
    position: Float[Array, "n d"],
    log_density: LogDensity,
    step_size: Float[Array, ""],
    steps: int,
) -> tuple[Float[Array, "n d"], Float[Array, ""], Figures]:
    """Move n chains by `steps` steps of size h = `step_size`, at `steps` + 1 gradients each.

    Returns where they are, the next step size and, of mala, `local_acceptance_rate`.
    """
    chains = refresh(position, log_density)
    if kernel == "ula":
        return ula(key, chains, log_density, step_size, steps).position, step_size, {}
    chains, rate = mala(key, chains, log_density, step_size, steps)
    adapted = jnp.exp(adapt_step_size(jnp.log(step_size), rate))
    return chains.position, adapted, {"local_acceptance_rate": rate}
