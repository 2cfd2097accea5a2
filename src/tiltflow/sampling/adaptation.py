"""The step size of a local kernel, by dual averaging towards a target acceptance rate.

Nesterov 2009 in the form of Hoffman and Gelman 2014 (section 3.2), as in BlackJAX. It is driven by
the acceptance rate averaged over all chains, so it needs few steps. For warm-up only: what is
reported is drawn with the frozen `final` step size.

    state = init(step_size)
    for each sweep:  ... moves with `current(state)` ...;  state = update(state, rate, target)
    step_size = final(state)
"""

import jax
import jax.numpy as jnp
from blackjax.adaptation.step_size import DualAveragingAdaptationState, dual_averaging_adaptation
from jaxtyping import Array, Float


def first_step_size(position: Float[Array, "n d"]) -> Float[Array, ""]:
    """Of MALA, where every direction is about one wide (Roberts and Rosenthal 1998)."""
    return jnp.full((), 0.5 / position.shape[1] ** (1 / 3), position.dtype)


def init(step_size: Float[Array, ""]) -> DualAveragingAdaptationState:
    """The state before the first update. Start anew when the coordinates change."""
    start, _, _ = dual_averaging_adaptation(target=0.0)
    state = start(step_size)  # pyright: ignore[reportArgumentType]
    # BlackJAX's average starts at log 1; ours at the first step size, for whom never updates.
    state = state._replace(log_step_size_avg=state.log_step_size)
    # Of one type before and after a step: a weak type would compile every user twice.
    kind = jnp.result_type(step_size)
    return jax.tree.map(
        lambda each: jnp.asarray(
            each, kind if jnp.issubdtype(jnp.result_type(each), jnp.floating) else None
        ),
        state,
    )


def update(
    state: DualAveragingAdaptationState,
    acceptance_rate: Float[Array, "*chains"],
    target: float | Float[Array, ""],
) -> DualAveragingAdaptationState:
    """The state after moves with `current(state)`; a rate that is not a number counts as zero."""
    _, step, _ = dual_averaging_adaptation(target)  # pyright: ignore[reportArgumentType]
    rate = jnp.nan_to_num(acceptance_rate).mean()
    return step(state, rate)


def current(state: DualAveragingAdaptationState) -> Float[Array, ""]:
    """The step size to try next."""
    return jnp.exp(jnp.asarray(state.log_step_size))


def final(state: DualAveragingAdaptationState) -> Float[Array, ""]:
    """The step size to freeze: the average, which forgets its first, wild tries."""
    return jnp.exp(jnp.asarray(state.log_step_size_avg))
