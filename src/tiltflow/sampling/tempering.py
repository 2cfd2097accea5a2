"""Two further moves for where the flow's proposals fail: a ladder of models, an annealed path.

A *ladder* runs chains under several log-densities f_1 ... f_L, say copies of the model from
earlier in training, the last one being the target. Neighbours offer each other their points:

    accept with probability min(1, exp(f_k(y) + f_k+1(x) - f_k(x) - f_k+1(y)))

for x at k and y at k + 1, which leaves the product of all densities invariant, and so each
(parallel trajectory tempering: Béreux, Decelle, Furtlehner, Rosset, Seoane 2025).

An *annealed path* carries a draw of the flow q towards the target p through
log p_b = (1 - b) log q + b log p at 0 = b_0 < ... < b_K = 1, by MALA at each b_k between, and
weighs it (annealed importance sampling, Neal 2001):

    log w = sum_k (b_k - b_k-1) u(x_k-1),    u = log p - log q.

The chain is carried down the same path, since MALA is its own reversal, and pays the same weight;
the two ends compete as in independent Metropolis-Hastings, of which this is a form on the space of
paths (compare Neal 1996, Andrieu, Doucet, Holenstein 2010). With K = 1 it is that move itself.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.sampling.chains import Chains, LogDensity, refresh
from tiltflow.sampling.independent import Proposals, independent_metropolis_hastings
from tiltflow.sampling.local import mala


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


def annealed_independent_move(
    key: PRNGKeyArray,
    chains: Chains,
    log_density: LogDensity,
    flow: AbstractDistribution,
    step_size: Float[Array, ""],
    temperatures: Float[Array, " k"],
    steps: int,
) -> tuple[Chains, Bool[Array, " n"], Float[Array, ""], Float[Array, " n"]]:
    """Offer each chain the end of an annealed path from a fresh draw of the flow; exact.

    `temperatures` are the b_1 < ... < b_K-1 between 0 and 1, maybe none; `steps` MALA steps are
    made at each. It costs 2 (K - 1) (steps + 1) gradients of both densities a chain. Returns the
    chains, which of them moved, the mean acceptance rate, and log w of the fresh paths, whose
    weights estimate log Z without bias. Weights that are not finite are treated as in
    `independent_metropolis_hastings`.
    """
    n = chains.position.shape[0]
    draw_key, up_key, down_key, accept_key = jax.random.split(key, 4)
    # The path ends at the target whatever was given, or the move would not be exact.
    increments = jnp.diff(temperatures, prepend=0.0, append=1.0)

    def at_temperature(
        position: Float[Array, "n d"], b: Float[Array, ""], level_key: PRNGKeyArray
    ) -> Float[Array, "n d"]:
        def path_density(x: Float[Array, " d"]) -> Float[Array, ""]:
            return (1 - b) * flow.log_prob(x) + b * log_density(x)

        start = refresh(position, path_density)
        return mala(level_key, start, path_density, step_size, steps)[0].position

    def gain(position: Float[Array, "n d"]) -> Float[Array, " n"]:
        return jax.vmap(log_density)(position) - flow.log_prob(position)

    def up(
        carry: tuple[Float[Array, "n d"], Float[Array, " n"]],
        level: tuple[Float[Array, ""], Float[Array, ""], PRNGKeyArray],
    ) -> tuple[tuple[Float[Array, "n d"], Float[Array, " n"]], None]:
        position, log_weight = carry
        b, increment, level_key = level
        log_weight += increment * gain(position)
        return (at_temperature(position, b, level_key), log_weight), None

    def down(
        carry: tuple[Float[Array, "n d"], Float[Array, " n"]],
        level: tuple[Float[Array, ""], Float[Array, ""], PRNGKeyArray],
    ) -> tuple[tuple[Float[Array, "n d"], Float[Array, " n"]], None]:
        position, log_weight = carry
        b, increment, level_key = level
        position = at_temperature(position, b, level_key)
        return (position, log_weight + increment * gain(position)), None

    up_keys, down_keys = (jax.random.split(key, len(temperatures)) for key in (up_key, down_key))
    schedule = (temperatures, increments[:-1])
    start = (flow.sample(draw_key, (n,)), jnp.zeros_like(chains.log_density))
    (end, log_weight), _ = jax.lax.scan(up, start, (*schedule, up_keys))
    new = refresh(end, log_density)
    log_weight += increments[-1] * (new.log_density - flow.log_prob(end))
    own = increments[-1] * (chains.log_density - flow.log_prob(chains.position))
    (_, own), _ = jax.lax.scan(down, (chains.position, own), (*schedule, down_keys), reverse=True)
    moved, accepted, rate = independent_metropolis_hastings(
        accept_key,
        chains,
        chains.log_density - own,
        Proposals(new, new.log_density - log_weight),
    )
    return moved, accepted, rate, log_weight


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
