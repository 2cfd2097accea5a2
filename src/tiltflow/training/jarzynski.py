"""Jarzynski's equality: walkers with weights that make up for moving while the model changes.

Carbone, Hua, Coste, Vanden-Eijnden (2023), after Jarzynski (1997) and Neal (2001). With
U_k = -log_density of the model before update k (base included), an unadjusted Langevin step

    y = x - h grad U_k(x) + sqrt(2 h) xi

has the density q_k(x, y), proportional to exp(-|y - x + h grad U_k(x)|^2 / (4 h)). A walker that
makes it while the model goes from U_k to U_{k+1} has its weight multiplied by

    exp(-U_{k+1}(y)) q_{k+1}(y, x)  /  exp(-U_k(x)) q_k(x, y)

and the backward densities q_{k+1}(y, .) integrate to one, so that the factors telescope:
Z_k E_k[f] = E[exp(A_k) f(X_k)] for every f, exactly, at any step size, however fast the model
changes. |y - x|^2 cancels in the ratio, and its logarithm is

    A_{k+1} - A_k = a_k(x, y) - a_{k+1}(y, x),
    a(x, y) = U(x) + (y - x) . grad U(x) / 2 + h |grad U(x)|^2 / 4.

A_0 = -E(x) for the first energy, since walkers start at draws of the base. The mean of exp(A) is
Z relative to the base, a free estimate at every step. What is exact is not yet precise: walkers in
a mode that others cannot reach carry its weight alone, and the weights grow unequal; then walkers
are resampled (systematically: Carpenter, Clifford, Fearnhead 1999).
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.smc.resampling import systematic
from flowjax.distributions import AbstractDistribution
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from tiltflow.data.settings import check_positive, check_share
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import Chains, LogDensity, refresh
from tiltflow.training.likelihood import Negatives
from tiltflow.training.methods import Figures


class Walkers(NamedTuple):
    """Walkers, their log-weights (of mean weight one), and log Z of the model they stand for."""

    chains: Chains
    log_weights: Float[Array, " n"]
    log_z: Float[Array, ""]


class JarzynskiState(NamedTuple):
    """Walkers with their weights under the last model, and the move that they have begun.

    `moved` is where it took them, `forward` is a(position, moved) of it; its `step_size` is zero
    before the first move. The model of the next step decides what it was worth.
    """

    position: Float[Array, "n d"]
    log_weights: Float[Array, " n"]
    log_z: Float[Array, ""]
    moved: Float[Array, "n d"]
    forward: Float[Array, " n"]
    step_size: Float[Array, ""]


@dataclass(frozen=True)
class Jarzynski:
    """A source of negatives: weighted Langevin walkers, resampled where weights are unequal.

    `threshold` is the effective share of the weights, ESS / n, below which they are.
    """

    chains: int = 1024
    step_size: float = 0.01
    threshold: float = 0.5
    local_steps: int = 1

    def __post_init__(self) -> None:
        """Raises `InputError` where a setting is out of its range."""
        check_share(threshold=self.threshold)
        check_positive(chains=self.chains, step_size=self.step_size, local_steps=self.local_steps)

    def init(
        self,
        key: PRNGKeyArray,
        base: AbstractDistribution,
        flow: AbstractDistribution | None = None,
    ) -> JarzynskiState:
        """Start the walkers at draws of the base, whose log-density is all that they have paid."""
        position = base.sample(key, (self.chains,))
        zeros = jnp.zeros_like(position[:, 0])
        zero = jnp.zeros((), position.dtype)
        return JarzynskiState(position, zeros, zero, position, -base.log_prob(position), zero)

    def evaluations(self, batch_size: int) -> int:
        """In a point: one for each local step, whoever asks for it. In the parameters: rows and
        walkers.
        """
        return self.chains * self.local_steps + batch_size + self.chains

    def draw(
        self,
        key: PRNGKeyArray,
        model: TiltedEBM,
        flow_static: PyTree,
        state: JarzynskiState,
        batch: Float[Array, "b d"],
        rate: Float[Array, ""],
    ) -> tuple[Negatives, JarzynskiState, Figures]:
        """Weigh the last move by `model`, hand the walkers out, and begin the next move."""
        resample_key, last_key, move_key = jax.random.split(key, 3)
        step_size = jnp.full((), self.step_size, state.position.dtype)

        def step(walkers: Walkers, key: PRNGKeyArray) -> tuple[Walkers, None]:
            return _finished(_begin(key, walkers, step_size), model.log_density), None

        move_keys = jax.random.split(move_key, self.local_steps - 1)
        walkers, _ = jax.lax.scan(step, _finished(state, model.log_density), move_keys)
        weights = jax.nn.softmax(walkers.log_weights)
        share = 1 / (self.chains * jnp.sum(weights**2))
        negatives = Negatives(walkers.chains.position, weights)
        figures = {"log_z": walkers.log_z, "effective_share": share}
        walkers = _resampled(resample_key, walkers, weights, share < self.threshold)
        return negatives, _begin(last_key, walkers, step_size), figures


def _action(
    chains: Chains, displacement: Float[Array, "n d"], step_size: Float[Array, ""]
) -> Float[Array, " n"]:
    """a(x, x + displacement), in nats; U = -log_density."""
    along = jnp.sum(displacement * chains.gradient, axis=-1)
    squared = jnp.sum(chains.gradient**2, axis=-1)
    return -chains.log_density - along / 2 + step_size * squared / 4


def _begin(key: PRNGKeyArray, walkers: Walkers, step_size: Float[Array, ""]) -> JarzynskiState:
    """Move every walker by one Langevin step."""
    chains, log_weights, log_z = walkers
    noise = jax.random.normal(key, chains.position.shape, chains.position.dtype)
    displacement = step_size * chains.gradient + jnp.sqrt(2 * step_size) * noise
    forward = _action(chains, displacement, step_size)
    moved = chains.position + displacement
    return JarzynskiState(chains.position, log_weights, log_z, moved, forward, step_size)


def _finished(state: JarzynskiState, log_density: LogDensity) -> Walkers:
    """The walkers where their move has taken them, with their weights under `log_density`."""
    chains = refresh(state.moved, log_density)
    backward = _action(chains, state.position - state.moved, state.step_size)
    log_weights = state.log_weights + state.forward - backward
    log_mean = logsumexp(log_weights) - jnp.log(len(log_weights))
    return Walkers(chains, log_weights - log_mean, state.log_z + log_mean)


def _resampled(
    key: PRNGKeyArray,
    walkers: Walkers,
    weights: Float[Array, " n"],
    unequal: Bool[Array, ""],
) -> Walkers:
    """The walkers, where `unequal` drawn anew by their weights, which are then all one."""
    n = len(weights)
    chosen = jnp.where(unequal, systematic(key, weights, n), jnp.arange(n))
    chains = jax.tree.map(lambda each: each[chosen], walkers.chains)
    log_weights = jnp.where(unequal, 0.0, walkers.log_weights)
    return Walkers(chains, log_weights, walkers.log_z)
