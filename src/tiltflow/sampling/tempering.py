"""Swaps along a ladder of models, a further move for where the flow's proposals fail.

A *ladder* runs chains under several log-densities f_1 ... f_L, say copies of the model from
earlier in training, the last one being the target. Neighbours offer each other their points:

    accept with probability min(1, exp(f_k(y) + f_k+1(x) - f_k(x) - f_k+1(y)))

for x at k and y at k + 1, which leaves the product of all densities invariant, and so each
(parallel trajectory tempering: Béreux, Decelle, Furtlehner, Rosset, Seoane 2025).
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.sampling.chains import Chains, LogDensity, refresh


def stack_levels(log_densities: Sequence[LogDensity]) -> LogDensity:
    """One log-density whose arrays have a leading axis of levels, the target last.

    They must be pytrees that differ in their arrays only, as copies of one model do; raises
    `InputError` otherwise.
    """
    arrays, statics = zip(*(eqx.partition(level, eqx.is_array) for level in log_densities))
    if len(log_densities) < 2 or any(not eqx.tree_equal(statics[0], each) for each in statics):
        raise InputError(
            f"log_densities: {len(log_densities)} found; give two or more copies of one model "
            "that differ in their arrays only"
        )
    return eqx.combine(jax.tree.map(lambda *level: jnp.stack(level), *arrays), statics[0])


def refresh_ladder(position: Float[Array, "levels n d"], levels: LogDensity) -> Chains:
    """Chains at every level, (levels, n, ...), computed under the stacked log-density."""
    return eqx.filter_vmap(refresh)(position, levels)


def swap_neighbours(
    key: PRNGKeyArray, ladder: Chains, levels: LogDensity
) -> tuple[Chains, Float[Array, " pairs"]]:
    """Offer swaps to the pairs of levels (1, 2), (3, 4) ... and then (2, 3), (4, 5) ...

    `ladder` holds chains (levels, n, ...), `levels` the log-density of `stack_levels`. Chain i of
    one level meets chain i of the next. Returns the ladder and the mean acceptance of each pair of
    neighbours; 0.2 to 0.4 is a good ladder. A swap into a point that is not finite is refused.
    """
    even_key, odd_key = jax.random.split(key)
    count = len(ladder.log_density)
    ladder, even = _swap_pairs(even_key, ladder, levels, 0)
    rates = jnp.zeros(count - 1, even.dtype).at[::2].set(even)
    if count > 2:
        ladder, odd = _swap_pairs(odd_key, ladder, levels, 1)
        rates = rates.at[1::2].set(odd)
    return ladder, rates


def _swap_pairs(
    key: PRNGKeyArray, ladder: Chains, levels: LogDensity, first: int
) -> tuple[Chains, Float[Array, " pairs"]]:
    """Offer swaps to levels (first, first + 1), (first + 2, first + 3) ..."""
    count, n = ladder.log_density.shape
    pairs = (count - first) // 2
    below, above = slice(first, first + 2 * pairs, 2), slice(first + 1, first + 2 * pairs, 2)
    arrays, static = eqx.partition(levels, eqx.is_array)
    x, lower = jax.tree.map(lambda leaf: leaf[below], (ladder, arrays))
    y, upper = jax.tree.map(lambda leaf: leaf[above], (ladder, arrays))
    x_above = refresh_ladder(x.position, eqx.combine(upper, static))
    y_below = refresh_ladder(y.position, eqx.combine(lower, static))
    old = x.log_density + y.log_density
    new = y_below.log_density + x_above.log_density
    # As in independent_metropolis_hastings: refuse what is not finite, and do not freeze there.
    log_ratio = new - jnp.where(jnp.isfinite(old), old, -jnp.inf)
    probability = jnp.exp(jnp.where(jnp.isfinite(new), jnp.minimum(log_ratio, 0.0), -jnp.inf))
    keys = jax.random.split(key, n)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (pairs,)))(keys).T
    swapped = uniform < probability

    def exchange(
        level: Float[Array, "levels n ..."],
        x: Float[Array, "pairs n ..."],
        y: Float[Array, "pairs n ..."],
        y_below: Float[Array, "pairs n ..."],
        x_above: Float[Array, "pairs n ..."],
    ) -> Float[Array, "levels n ..."]:
        mask = swapped.reshape(*swapped.shape, *[1] * (level.ndim - 2))
        level = level.at[below].set(jnp.where(mask, y_below, x))
        return level.at[above].set(jnp.where(mask, x_above, y))

    return jax.tree.map(exchange, ladder, x, y, y_below, x_above), probability.mean(1)
