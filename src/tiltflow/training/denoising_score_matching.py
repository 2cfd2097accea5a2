"""Denoising score matching: the score of noised data, learned by telling the noise from the point.

    loss = mean over rows and e ~ N(0, I) of  1/2 | sigma s(x + sigma e) + e |^2,
    s = grad log base - grad E

(Vincent 2011; times sigma^2, so that the loss is of order one at any sigma.) Its minimum is the
score of the rows convolved with N(0, sigma^2 I), not that of the rows. A score is local: between
modes that the noise does not bridge nothing is said, so that their weights stay those of the start.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.data.errors import InputError
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import LogDensity
from tiltflow.training.methods import Figures, score_matching_gradient


@dataclass(frozen=True)
class DenoisingScoreMatching:
    """An objective: `noise_scale` is the noise's standard deviation, in model units."""

    noise_scale: float = 0.1

    def __post_init__(self) -> None:
        """Raise `InputError` where the noise is none."""
        if not self.noise_scale > 0:
            raise InputError(f"noise_scale: {self.noise_scale} is no standard deviation; take 0.1")

    def init(
        self, key: PRNGKeyArray, base: AbstractDistribution, flow: AbstractDistribution | None
    ) -> tuple[()]:
        """Nothing is learnt beside the energy."""
        return ()

    def evaluations(self, batch_size: int) -> int:
        """Two a row: the gradient in the point is itself differentiated."""
        return 2 * batch_size

    def gradient(
        self,
        key: PRNGKeyArray,
        model: TiltedEBM,
        flow_static: PyTree,
        state: tuple[()],
        batch: Float[Array, "b d"],
        rate: Float[Array, ""],
    ) -> tuple[PyTree, tuple[()], Figures]:
        """The loss's gradient in the energy; one draw of the noise for each row."""
        gradient, figures = score_matching_gradient(self.loss, key, model, batch)
        return gradient, state, figures

    def loss(
        self, key: PRNGKeyArray, log_density: LogDensity, batch: Float[Array, "b d"]
    ) -> Float[Array, ""]:
        """The loss of any log-density; its constant plays no part."""
        noise = jax.random.normal(key, batch.shape, batch.dtype)
        score = jax.vmap(jax.grad(log_density))(batch + self.noise_scale * noise)
        return 0.5 * jnp.sum((self.noise_scale * score + noise) ** 2, axis=-1).mean()
