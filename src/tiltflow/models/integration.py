"""Integrating points and their log-determinants along a vector field, by diffrax.

    dx/ds = T f(T s, x),   d log|det| / ds = T tr(df/dx),   s from 0 (base) to 1 (data) or back

(Chen et al. 2018; Grathwohl et al. 2019). The trace is a sum over probes p, rows of a matrix P,

    tr(J) ~ sum_p p . J p,      unbiased where E[P^T P] = I:

the identity gives the exact trace, k rows of noise over sqrt(k) Hutchinson's estimate (1990), with
P fixed during one solve. The same products give what regularises a field (Finlay et al. 2020),

    kinetic energy  int |T f|^2 ds,     Jacobian norm  int sum_p |T J p|^2 ds  ~  int |T J|_F^2 ds,

of the velocity per unit of s, which is what is published for T = 1. As T is learned, integrals over
t = T s would fall by 1/c where f/c is followed for c T, the same flow at the same cost.

A batch is one system of equations with one step size, chosen by the root mean square of the
errors of all its points, as in torchdiffeq; for a step size of its own, a point is a batch of one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.models.vector_fields import VectorField

MOST_UNROLLED = 4

STAGES = 6
"""Calls of the field by a step of either solver, whose last stage is the next step's first."""

FIRST_STEP = 0.1
"""Of the whole way; diffrax's own choice, 0.01 whatever the field, wastes two steps of four."""

Noise = Literal["gaussian", "rademacher"]
Solver = Literal["tsit5", "dopri5"]
Adjoint = Literal["checkpoints", "backwards"]


@dataclass(frozen=True)
class Integration:
    """How a field is integrated.

    Steps are adapted to `tolerance`, relative and absolute, or are `steps` equal ones. `adjoint`
    is how gradients come back: through the steps, kept at checkpoints (exact for what was
    computed), or by a second solve backwards (memory independent of the number of steps, its own
    error on top). Measured at 64-64-64 in the plane: docs/decisions.md.

    Raises:
        InputError: a number is out of range.
    """

    tolerance: float = 1e-5
    max_steps: int = 256
    steps: int | None = None
    solver: Solver = "tsit5"
    adjoint: Adjoint = "checkpoints"

    def __post_init__(self) -> None:
        for name, known in (("solver", get_args(Solver)), ("adjoint", get_args(Adjoint))):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name}: {getattr(self, name)!r} is not known; use {' or '.join(known)}"
                )
        for name in ("max_steps", "steps"):
            if not isinstance(getattr(self, name), (int, type(None))):
                raise InputError(f"{name}: found {getattr(self, name)!r}; give a whole number")
        if not 0 < self.tolerance < 1:
            raise InputError(f"tolerance: found {self.tolerance}; give one in (0, 1), as 1e-5")
        if self.max_steps < 1:
            raise InputError(f"max_steps: found {self.max_steps}; give at least one, as 256")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"steps: found {self.steps}; give at least one, or None to adapt them")


class Path(NamedTuple):
    """What n points have gathered on their way; the regularisers are None where not asked for."""

    x: Float[Array, "n d"]
    log_det: Float[Array, " n"] | None
    kinetic_energy: Float[Array, " n"] | None
    jacobian_norm: Float[Array, " n"] | None


class Solution(NamedTuple):
    """The end of the path, the number of calls of the field, and whether the end was reached.

    Where it was not, every array of `end` is NaN.
    """

    end: Path
    evaluations: Int[Array, ""]
    reached: Bool[Array, ""]


def draw_probes(
    key: PRNGKeyArray, noise: Noise, number: int, width: int
) -> Float[Array, "{number} {width}"]:
    """Rows for Hutchinson's estimate: their noise has variance 1 / number."""
    draw = jax.random.normal if noise == "gaussian" else jax.random.rademacher
    return draw(key, (number, width), float) / jnp.sqrt(number)


def integrate(
    field: VectorField,
    end_time: Float[Array, ""],
    x: Float[Array, "n d"],
    probes: Float[Array, "n k w"] | Float[Array, "k w"] | None,
    integration: Integration,
    *,
    towards: Literal["base", "data"],
    hidden: bool = False,
    regularisers: bool = False,
    field_axes: Any = None,
) -> Solution:
    """Carry points from the data to the base, or back.

    `field_axes` are those of `jax.vmap` for the field: None where all points have the same, else a
    field of its structure with 0 in the place of what every point has of its own.

    `probes` are each point's own or all points' alike, on the coordinates or, where `hidden`, on
    the field's hidden side; without any there is no log-determinant. The log-determinant is that of
    the map towards where the points go; regularisers are positive both ways.

    Raises:
        InputError: the tolerance is too tight for the precision, or a Jacobian norm is asked for on
            the hidden side.
    """
    _check_precision(integration.tolerance, x.dtype)
    if hidden and regularisers:
        raise InputError(
            "hidden: the norm of the Jacobian cannot be had from probes on the hidden side; "
            "regularise with probes on the coordinates"
        )
    nothing = jnp.zeros_like(x[:, 0])
    start = Path(
        x,
        None if probes is None else nothing,
        nothing if regularisers else None,
        nothing if regularisers and probes is not None else None,
    )
    first, last = (0.0, 1.0) if towards == "data" else (1.0, 0.0)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(
            partial(
                _velocities_on_hidden_side if hidden else _velocities_on_coordinates, field_axes
            )
        ),
        {"tsit5": diffrax.Tsit5, "dopri5": diffrax.Dopri5}[integration.solver](),
        jnp.asarray(first, x.dtype),
        jnp.asarray(last, x.dtype),
        (last - first) * (FIRST_STEP if integration.steps is None else 1 / integration.steps),
        start,
        # As arguments: the backward solve differentiates in nothing else.
        (field, end_time, probes),
        stepsize_controller=_controller(integration),
        adjoint=_adjoint(integration),
        max_steps=integration.max_steps if integration.steps is None else integration.steps + 1,
        throw=False,
    )
    return _finish(solution, integration, towards)


def _check_precision(tolerance: float, dtype: Any) -> None:
    least = 8 * float(jnp.finfo(dtype).eps)
    if tolerance < least:
        raise InputError(
            f"tolerance: {tolerance:g} is too tight for {dtype}, whose rounding alone is as large; "
            f"give at least {least:.0e}, or compute in float64"
        )


def _velocities_on_coordinates(field_axes: Any, s: Any, path: Path, args: tuple[Any, ...]) -> Path:
    field, end_time, probes = args

    def one(
        field: Any, x: Float[Array, " d"], probes: Float[Array, "k d"] | None
    ) -> tuple[Any, ...]:
        if probes is None:
            return field(end_time * s, x), None
        return _products(lambda x: field(end_time * s, x), x, probes)

    axes = (field_axes, 0, _axis(probes))
    velocity, products = _times(end_time, jax.vmap(one, in_axes=axes)(field, path.x, probes))
    return Path(
        velocity,
        None if probes is None else (probes * products).sum(axis=(1, 2)),
        None if path.kinetic_energy is None else (velocity**2).sum(axis=1),
        None if path.jacobian_norm is None else (products**2).sum(axis=(1, 2)),
    )


def _velocities_on_hidden_side(field_axes: Any, s: Any, path: Path, args: tuple[Any, ...]) -> Path:
    field, end_time, probes = args

    def one(field: Any, x: Float[Array, " d"], probes: Float[Array, "k w"]) -> tuple[Any, ...]:
        hidden = field.enter(end_time * s, x)
        velocity, out = _products(lambda hidden: field.leave(end_time * s, hidden), hidden, probes)
        _, back = _products(lambda x: field.enter(end_time * s, x), x, out)
        return velocity, (probes * back).sum()

    axes = (field_axes, 0, _axis(probes))
    velocity, divergence = _times(end_time, jax.vmap(one, in_axes=axes)(field, path.x, probes))
    return Path(velocity, divergence, None, None)


def _products(
    function: Callable[..., Any], x: Float[Array, " i"], rows: Float[Array, "k i"]
) -> tuple[Any, ...]:
    """The function's value and its Jacobian times every row, (o,) and (k, o)."""
    value, linear = jax.linearize(function, x)
    if len(rows) <= MOST_UNROLLED:
        # A batch of 512 and two rows: the gradient takes 104 ms so, and 178 ms by `vmap`.
        return value, jnp.stack([linear(row) for row in rows])
    return value, jax.vmap(linear)(rows)


def _axis(probes: Array | None) -> int | None:
    return 0 if probes is not None and probes.ndim == 3 else None


def _times(end_time: Float[Array, ""], derivatives: tuple[Any, ...]) -> tuple[Any, ...]:
    """Derivatives in s of what has these in t = T s."""
    return jax.tree.map(lambda leaf: end_time * leaf, derivatives)


def _mean_square(scaled: Path) -> Float[Array, ""]:
    """The norm that chooses steps: of points and log-determinants; regularisers may be rough."""
    leaves = jax.lax.stop_gradient(jax.tree.leaves((scaled.x, scaled.log_det)))
    return jnp.sqrt(sum((leaf**2).sum() for leaf in leaves) / sum(leaf.size for leaf in leaves))


def _controller(integration: Integration) -> diffrax.AbstractStepSizeController[Any, Any]:
    if integration.steps is not None:
        return diffrax.ConstantStepSize()
    tolerance = integration.tolerance
    return diffrax.PIDController(rtol=tolerance, atol=tolerance, norm=_mean_square)


def _adjoint(integration: Integration) -> diffrax.AbstractAdjoint:
    if integration.adjoint == "checkpoints":
        return diffrax.RecursiveCheckpointAdjoint()
    if integration.steps is not None:
        return diffrax.BacksolveAdjoint()
    tolerance = integration.tolerance
    # The parameters' part of the adjoint need not be accurate on its way (Kidger et al. 2021).
    norm = diffrax.adjoint_rms_seminorm
    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance, norm=norm)
    return diffrax.BacksolveAdjoint(stepsize_controller=controller)


def _finish(solution: diffrax.Solution, integration: Integration, towards: str) -> Solution:
    assert solution.ys is not None
    end: Path = jax.tree.map(lambda leaf: leaf[-1], solution.ys)
    if towards == "base":
        # These were gathered along a time that ran backwards.
        end = end._replace(
            kinetic_energy=jax.tree.map(jnp.negative, end.kinetic_energy),
            jacobian_norm=jax.tree.map(jnp.negative, end.jacobian_norm),
        )
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(end)]).all()
    reached = (solution.result == diffrax.RESULTS.successful) & finite
    end = jax.tree.map(lambda leaf: jnp.where(reached, leaf, jnp.nan), end)
    evaluations = STAGES * solution.stats["num_steps"] + 1
    return Solution(end, evaluations, reached)
