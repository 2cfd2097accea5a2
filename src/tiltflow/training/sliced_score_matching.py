"""Sliced score matching: the score of the data itself, its divergence by random directions.

    loss = mean over rows of  1/2 |s|^2 + mean over v of v . J_s v,    s = grad log base - grad E

with J_s the Jacobian of s and v of random signs, so that the second term is its trace on average
(Hyvarinen 2005; Song, Garg, Shi, Ermon 2019, the variance-reduced form, where |s|^2 is exact).
Several v of a row are orthogonal, and as many as there are coordinates give the trace itself.
J_s v is one forward derivative of a gradient. As with every loss of scores, the weights of modes
that nothing bridges are not seen.
"""

from dataclasses import dataclass

import jax
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.data.errors import InputError
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import LogDensity
from tiltflow.training.directions import orthogonal_directions
from tiltflow.training.methods import Figures, score_matching_gradient


@dataclass(frozen=True)
class SlicedScoreMatching:
    """An objective: `slices` random directions for each row."""

    slices: int = 1

    def __post_init__(self) -> None:
        """Raise `InputError` where there is no direction."""
        if self.slices < 1:
            raise InputError(f"slices: {self.slices} directions see no divergence; take 1 or more")

    def init(
        self, key: PRNGKeyArray, base: AbstractDistribution, flow: AbstractDistribution | None
    ) -> tuple[()]:
        """Nothing is learnt beside the energy."""
        return ()

    def evaluations(self, batch_size: int) -> int:
        """Two a row and two a slice: gradient and its derivatives, and all are differentiated."""
        return 2 * (1 + self.slices) * batch_size

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
        gradient, figures = score_matching_gradient(self.loss, key, model, batch)
        return gradient, state, figures

    def loss(
        self, key: PRNGKeyArray, log_density: LogDensity, batch: Float[Array, "b d"]
    ) -> Float[Array, ""]:
        """The loss, (), of any log-density; its constant plays no part.

        Raises:
            InputError: there are more slices than coordinates.
        """
        if self.slices == 1:
            # Signs see the trace of a diagonal Jacobian without error; no sphere does.
            directions = jax.random.rademacher(key, (1, *batch.shape), batch.dtype)
        else:
            directions = orthogonal_directions(key, self.slices, batch)

        def at(x: Float[Array, " d"], directions: Float[Array, "s d"]) -> Float[Array, ""]:
            score, derivative = jax.linearize(jax.grad(log_density), x)
            along = jax.vmap(derivative)(directions)
            return 0.5 * score @ score + (directions * along).sum() / self.slices

        return jax.vmap(at, (0, 1))(batch, directions).mean()
