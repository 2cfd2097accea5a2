"""`equinox.filter_jit` for programs whose compilation is waited for longer than their runs.

XLA's backend level 0 compiles fastest and runs slowest; level 1 compiled the sampler's sweeps in
2.4 s instead of 3.0 s and ran them as fast (d = 2 to 64). The default is 3.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import equinox as eqx

Program = TypeVar("Program", bound=Callable[..., Any])


def quick_jit(
    level: Literal[0, 1], donate: Literal["none", "all-except-first"] = "none"
) -> Callable[[Program], Program]:
    """The decorator; it is for outermost programs alone, JAX refuses it within another."""
    options = {"xla_backend_optimization_level": level}
    return eqx.filter_jit(donate=donate, compiler_options=options)  # pyright: ignore
