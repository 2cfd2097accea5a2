"""Continuous flows (FFJORD, Grathwohl et al. 2019) as flowjax bijections.

A point of the base moves along a vector field for a learned time T and is then a point of the
data; the log-determinant is the integral of the trace on the way (`integration.py`). A flow holds
the probes of its trace: none is the exact trace, which is what every density wants; noise makes
log_prob a fixed function of the point too, but *not* the log-density of the draws, so chains must
not take it for that (`sampling/delayed_acceptance.py`). On the hidden side of the field (`hidden`)
the exact trace costs the narrowest width instead of the dimension.

The methods are for one point, which has step sizes of its own and so a density that does not
depend on its company; `models/batch_likelihood.py` solves a whole batch at once, for training.
"""

from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import paramax
from flowjax.bijections import AbstractBijection, Chain
from flowjax.distributions import AbstractDistribution, Transformed
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.models.batch_norm import BatchNorm
from tiltflow.models.integration import (
    Integration,
    Noise,
    Solution,
    draw_probes,
    integrate,
)
from tiltflow.models.vector_fields import (
    WIDTHS,
    Activation,
    ConcatSquashField,
    MLPField,
    VectorField,
)

END_TIME = 0.5
"""The start of the learned T, as in the paper's examples in the plane."""

Direction = Literal["base", "data"]


class ContinuousFlow(AbstractBijection):
    """One continuous flow; `transform` is from the base to the data.

    A solve that fails gives NaN, which flowjax turns into a log-probability of -inf: a refused
    proposal, a skipped step. `models/failed_solves.py` says why it failed.
    """

    shape: tuple[int, ...]
    cond_shape: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    field: VectorField
    log_end_time: Float[Array, ""]
    probes: Float[Array, "k w"] | None
    integration: Integration = eqx.field(static=True)
    hidden: bool = eqx.field(static=True)

    def __init__(
        self,
        field: VectorField,
        *,
        integration: Integration | None = None,
        hidden: bool = False,
        end_time: float = END_TIME,
    ):
        """A flow along `field` with the exact trace, taken on the hidden side where asked for."""
        self.shape = (field.dimension,)
        self.field = field
        self.log_end_time = jnp.log(jnp.asarray(end_time, float))
        self.probes = None
        self.integration = integration or Integration()
        self.hidden = hidden

    @property
    def probe_width(self) -> int:
        """The size of one probe."""
        return self.field.width if self.hidden else self.field.dimension

    def solve(
        self,
        x: Float[Array, "n d"],
        probes: Float[Array, "n k w"] | Float[Array, "k w"] | None,
        towards: Direction,
        *,
        regularisers: bool = False,
    ) -> Solution:
        """Points as one system with one step size; `probes` None is the exact trace.

        Raises as `integrate` does.
        """
        if probes is None:
            probes = jnp.eye(self.probe_width, dtype=x.dtype)
        return integrate(
            self.field,
            jnp.exp(self.log_end_time),
            x,
            probes,
            self.integration,
            towards=towards,
            hidden=self.hidden,
            regularisers=regularisers,
        )

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Array, Array]:
        """From the base to the data in one solve: the point, (d,), and log|dy/dx|, ()."""
        return self._one(jnp.asarray(x), "data")

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Array, Array]:
        """From the data to the base in one solve: the point, (d,), and log|dx/dy|, ()."""
        return self._one(jnp.asarray(y), "base")

    def transform(self, x: Any, condition: Any = None) -> Array:
        """From the base to the data without the trace."""
        return self._move(x, "data")

    def inverse(self, y: Any, condition: Any = None) -> Array:
        """From the data to the base without the trace."""
        return self._move(y, "base")

    def _one(self, x: Array, towards: Direction) -> tuple[Array, Array]:
        end = self.solve(x[None], self.probes, towards).end
        assert end.log_det is not None
        return end.x[0], end.log_det[0]

    def _move(self, x: Any, towards: Direction) -> Array:
        flow = paramax.unwrap(self)
        end_time = jnp.exp(flow.log_end_time)
        x = jnp.asarray(x, float)[None]
        return integrate(flow.field, end_time, x, None, flow.integration, towards=towards).end.x[0]


def continuous_flow(
    key: PRNGKeyArray,
    base_dist: AbstractDistribution,
    *,
    flows: int = 1,
    widths: tuple[int, ...] = WIDTHS,
    kind: Literal["concat_squash", "mlp"] = "concat_squash",
    activation: Activation = jnp.tanh,
    batch_norm: bool = False,
    integration: Integration | None = None,
    hidden: bool = False,
) -> Transformed:
    """A stack of continuous flows on `base_dist`, of shape (d,); equal to it at first.

    With `batch_norm` there is one before every flow, on the side of the data.

    Raises:
        InputError: no hidden layer.
    """
    (dimension,) = base_dist.shape
    new_field = {"concat_squash": ConcatSquashField, "mlp": MLPField}[kind]
    bijections: list[AbstractBijection] = []
    for each in jax.random.split(key, flows):
        field = new_field(dimension, widths, key=each, activation=activation)
        bijections.append(ContinuousFlow(field, integration=integration, hidden=hidden))
        if batch_norm:
            bijections.append(BatchNorm(dimension))
    return Transformed(base_dist, Chain(bijections))


def continuous_flows(tree: PyTree) -> list[ContinuousFlow]:
    """Every continuous flow of a tree."""
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, ContinuousFlow))
    return [node for node in nodes if isinstance(node, ContinuousFlow)]


def with_fixed_noise(tree: PyTree, key: PRNGKeyArray, noise: Noise, number: int = 1) -> PyTree:
    """The tree with `number` probes of noise in every continuous flow, the same for all points."""
    flows = continuous_flows(tree)
    probes = [
        paramax.non_trainable(draw_probes(each, noise, number, flow.probe_width))
        for each, flow in zip(jax.random.split(key, len(flows)), flows)
    ]
    return _with_probes(tree, probes)


def with_exact_trace(tree: PyTree) -> PyTree:
    """The tree without noise."""
    return _with_probes(tree, [None] * len(continuous_flows(tree)))


def with_integration(tree: PyTree, integration: Integration) -> PyTree:
    """The tree with every continuous flow integrated in another way."""

    def renewed(node: PyTree) -> PyTree:
        if not isinstance(node, ContinuousFlow):
            return node
        flow = ContinuousFlow(node.field, integration=integration, hidden=node.hidden)
        kept = (node.log_end_time, node.probes)
        return eqx.tree_at(
            lambda it: (it.log_end_time, it.probes), flow, kept, is_leaf=lambda it: it is None
        )

    return jax.tree.map(renewed, tree, is_leaf=lambda node: isinstance(node, ContinuousFlow))


def _with_probes(tree: PyTree, probes: list[Any]) -> PyTree:
    return eqx.tree_at(
        lambda tree: [flow.probes for flow in continuous_flows(tree)],
        tree,
        probes,
        is_leaf=lambda node: node is None or isinstance(node, paramax.NonTrainable),
    )
