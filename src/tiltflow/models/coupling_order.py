"""Which half of the coordinates every coupling layer conditions on.

A layer changes one half of the coordinates by functions of the other half. Where halves are drawn
at random, a given coordinate never acts directly on another given one in (3/4)^L of all draws of L
layers, 18 % for six: a funnel's width then stays unlearned in one of its nine directions. Here each
layer takes, of many random halves and the other half of the layer before, the one that adds most of
the ordered pairs that no earlier layer had.
"""

import numpy as np
from jaxtyping import Bool, Int

CANDIDATES = 1000


def conditioning_orders(dimension: int, layers: int) -> Int[np.ndarray, "layers d"]:
    """For every layer the coordinates in order, those that it conditions on (d // 2) first.

    The first layer has them in their own order. The same for every flow of this size.
    """
    generator = np.random.default_rng(0)
    orders = [np.arange(dimension)]
    new = np.ones((dimension, dimension), bool)
    np.fill_diagonal(new, False)
    _strike(new, orders[0])
    for _ in range(layers - 1):
        candidates = [generator.permutation(dimension) for _ in range(CANDIDATES)]
        candidates.append(np.roll(orders[-1], dimension - dimension // 2))
        gains = [_block(new, order).sum() for order in candidates]
        orders.append(candidates[int(np.argmax(gains))])
        _strike(new, orders[-1])
        if not new.any():
            # All pairs are had; the next round begins.
            new = ~np.eye(dimension, dtype=bool)
    return np.stack(orders)


def permutations(orders: Int[np.ndarray, "layers d"]) -> Int[np.ndarray, "layers d"]:
    """What follows each layer, so that the next finds its order, and the end the first's."""
    following = np.roll(orders, -1, axis=0)
    return np.take_along_axis(np.argsort(orders, axis=1), following, axis=1)


def _block(new: Bool[np.ndarray, "d d"], order: Int[np.ndarray, " d"]) -> Bool[np.ndarray, "h g"]:
    half = len(order) // 2
    return new[np.ix_(order[:half], order[half:])]


def _strike(new: Bool[np.ndarray, "d d"], order: Int[np.ndarray, " d"]) -> None:
    half = len(order) // 2
    new[np.ix_(order[:half], order[half:])] = False
