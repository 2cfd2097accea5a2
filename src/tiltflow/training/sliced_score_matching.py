"""Sliced score matching: the score of the data itself, its divergence by random directions.

    loss = mean over rows of  1/2 |s|^2 + mean over v of v . J_s v,    s = grad log base - grad E

with J_s the Jacobian of s and v of random signs, so that the second term is its trace on average
(Hyvarinen 2005; Song, Garg, Shi, Ermon 2019, the variance-reduced form, where |s|^2 is exact).
J_s v is one forward derivative of a gradient. As with every loss of scores, the weights of modes
that nothing bridges are not seen.
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.data.errors import InputError
from tiltflow.models.energies import Energy
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import LogDensity
from tiltflow.training.methods import Figures


@dataclass(frozen=True)
class SlicedScoreMatching:
    """An objective: `slices` random directions for each row."""

    slices: int = 1

    def __post_init__(self):
        """Raise `InputError` where there is no direction."""
        if self.slices < 1:
            raise InputError(f"slices: {self.slices} directions see no divergence; take 1 or more")

    def init(
        self, key: PRNGKeyArray, base: AbstractDistribution, flow: AbstractDistribution | None
    ) -> tuple[()]:
        """Nothing is learnt beside the energy."""
        return ()

    def evaluations(self, batch_size: int) -> int:
        """Four a row and slice: gradient and its derivative, and both are differentiated."""
        return 4 * self.slices * batch_size

    def gradient(
        self,
        key: PRNGKeyArray,
        model: TiltedEBM,
        flow_static: PyTree,
        state: tuple[()],
        batch: Float[Array, "b d"],
        rate: Float[Array, ""],
    ) -> tuple[PyTree, tuple[()], Figures]:
        """The loss's gradient in the energy; directions of its own for each row."""

        def loss(energy: Energy) -> Float[Array, ""]:
            return self.loss(key, TiltedEBM(model.base, energy).log_density, batch)

        value, gradient = eqx.filter_value_and_grad(loss)(model.energy)
        return gradient, state, {"score_matching_loss": value}

    def loss(
        self, key: PRNGKeyArray, log_density: LogDensity, batch: Float[Array, "b d"]
    ) -> Float[Array, ""]:
        """The loss of any log-density; its constant plays no part."""
        shape = (self.slices, *batch.shape)
        directions = jax.random.rademacher(key, shape, batch.dtype)
        score = jax.grad(log_density)

        def at(x: Float[Array, " d"], v: Float[Array, " d"]) -> Float[Array, ""]:
            value, along = jax.jvp(score, (x,), (v,))
            return 0.5 * value @ value + v @ along

        return jnp.mean(jax.vmap(jax.vmap(at), (None, 0))(batch, directions))
