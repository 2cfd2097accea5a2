"""How narrow a target is: what step sizes and noise are chosen by, the same for all methods.

    narrowest variance = 1 / c,    c = max over modes of the median over its points of
                                       the largest eigenvalue of the Hessian of -log p

in units of the data's standard deviations. For separate Gaussians it is the smallest variance of
any of them in any direction, for rings that of the radius. Unadjusted Langevin of step size h runs
away where h c > 2, and widens a Gaussian by a factor of 1 / (1 - h c / 2).

It is read off the truth, which a user does not have. That favours none but the rivals: the steps
of `balanced` adapt themselves.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tiltflow.data.targets import Target

DRAWS = 4096
POINTS = 32
"""Of each mode."""


def narrowest_variance(target: Target) -> float:
    """1 / c, to two digits, so that it is the same on any machine."""
    points, labels = _draw(target)
    scale = points.std(axis=0)
    curvature = 0.0
    for label in np.unique(labels):
        rows = points[np.flatnonzero(np.asarray(labels) == label)]
        # The same rows again where they are few, so that one program does for all modes.
        rows = rows[jnp.arange(POINTS) % len(rows)]
        curvature = max(curvature, float(jnp.median(_curvatures(target, rows, scale))))
    return float(f"{1 / curvature:.2g}")


@eqx.filter_jit
def _draw(target: Target) -> tuple[Float[Array, "n d"], Int[Array, " n"]]:
    points = target.sample(jax.random.key(0), DRAWS)
    return points, jax.vmap(target.label)(points)


@eqx.filter_jit
def _curvatures(
    target: Target, points: Float[Array, "n d"], scale: Float[Array, " d"]
) -> Float[Array, " n"]:
    """The largest eigenvalue of the Hessian of -log p, in units of `scale`, at every point."""
    hessians = jax.lax.map(jax.hessian(target.log_prob), points)
    return jnp.linalg.eigvalsh(-hessians * scale * scale[:, None])[:, -1]
