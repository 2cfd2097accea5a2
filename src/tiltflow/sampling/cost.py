"""What a function costs, in arithmetic operations, without running or compiling it.

Two operations for every multiplication and addition of a matrix product, one for every other
number that is made; the body of a scan counts as often as it runs (XLA's own count takes it once),
that of a while loop once, of a branch the dearest. A count, unlike a time, is the same on every
run, so that what is chosen by it is reproducible.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def operations(function: Callable[..., Any], *arguments: Any) -> float:
    """The operations of one call; every argument must be an array or a shape with a dtype."""
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: Jaxpr) -> float:
    total = 0.0
    equations: Any = jaxpr.eqns
    for equation in equations:
        params = equation.params
        inner = [_count(it) for value in params.values() for it in _jaxprs(value)]
        name = equation.primitive.name
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            depth = math.prod(shape[axis] for axis in contracted)
            total += 2.0 * depth * _size(equation)
        elif name == "cond":
            total += max(inner, default=0.0)
        elif inner:
            total += sum(inner) * _repeats(params)
        else:
            total += _size(equation)
    return total


def _repeats(params: Any) -> int:
    return params.get("length", 1)


def _size(equation: Any) -> int:
    return sum(math.prod(out.aval.shape) for out in equation.outvars)


def _jaxprs(value: Any) -> list[Jaxpr]:
    values = value if isinstance(value, (tuple, list)) else [value]
    return [
        it.jaxpr if isinstance(it, ClosedJaxpr) else it
        for it in values
        if isinstance(it, (Jaxpr, ClosedJaxpr))
    ]
