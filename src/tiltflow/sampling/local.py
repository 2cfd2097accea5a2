"""Local moves of many chains: MALA, which leaves the density invariant, and ULA, which does not.

    proposal:  x' = x + h grad log p(x) + sqrt(2 h) xi,     xi ~ N(0, I),  h the step size

MALA accepts x' by Metropolis-Hastings (Besag 1994; Roberts and Tweedie 1996); ULA always does, at
the price of a bias of order h. Both are BlackJAX's, entered with the cached state, so that a step
costs one gradient.
"""

import blackjax
import jax
import jax.numpy as jnp
from blackjax.mcmc.diffusions import DiffusionState, overdamped_langevin
from blackjax.mcmc.mala import MALAState
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.sampling.chains import Chains, LogDensity

_mala_kernel = blackjax.mala.build_kernel()


def mala(
    key: PRNGKeyArray,
    chains: Chains,
    log_density: LogDensity,
    step_size: Float[Array, ""],
    steps: int,
) -> tuple[Chains, Float[Array, ""]]:
    """Move every chain by `steps` MALA steps; also returns the mean acceptance rate.

    A proposal whose log-density is not finite is refused.
    """

    def bounded(x: Float[Array, " d"]) -> Float[Array, ""]:
        # BlackJAX refuses nan and -inf, but would accept +inf and never leave it.
        value = log_density(x)
        return jnp.where(value < jnp.inf, value, -jnp.inf)

    n = chains.position.shape[0]

    def step(state: MALAState, step_key: PRNGKeyArray) -> tuple[MALAState, Float[Array, ""]]:
        keys = jax.random.split(step_key, n)
        state, info = jax.vmap(_mala_kernel, in_axes=(0, 0, None, None))(
            keys, state, bounded, step_size
        )
        return state, info.acceptance_rate.mean()

    state, rates = jax.lax.scan(step, MALAState(*chains), jax.random.split(key, steps))  # pyright: ignore[reportArgumentType]
    return Chains(*state), rates.mean()  # pyright: ignore[reportArgumentType]


def ula(
    key: PRNGKeyArray,
    chains: Chains,
    log_density: LogDensity,
    step_size: Float[Array, ""],
    steps: int,
) -> Chains:
    """Move every chain by `steps` unadjusted Langevin steps: biased, kept for the baselines."""
    one_step = overdamped_langevin(jax.value_and_grad(log_density))
    n = chains.position.shape[0]

    def step(state: DiffusionState, step_key: PRNGKeyArray) -> tuple[DiffusionState, None]:
        keys = jax.random.split(step_key, n)
        return jax.vmap(one_step, in_axes=(0, 0, None))(keys, state, step_size), None  # pyright: ignore[reportArgumentType]

    state, _ = jax.lax.scan(step, DiffusionState(*chains), jax.random.split(key, steps))  # pyright: ignore[reportArgumentType]
    return Chains(*state)  # pyright: ignore[reportArgumentType]


def adapt_step_size(
    log_step_size: Float[Array, ""],
    acceptance_rate: Float[Array, ""],
    *,
    target: float = 0.574,
    gain: float = 0.1,
) -> Float[Array, ""]:
    """One Robbins-Monro step towards the target acceptance, for use during training.

    The target is the optimal scaling of MALA (Roberts and Rosenthal 1998). Draws that are
    reported come from a frozen step size.
    """
    rate = jnp.nan_to_num(acceptance_rate)
    return log_step_size + gain * (rate - target)
