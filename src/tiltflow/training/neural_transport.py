"""Neural transport: chains that move by HMC in the latent space of the base, a flow.

Nijkamp et al. (2022). With a flow x = g(z), z ~ q0, as base, the tilted model is
pulled back to

    p(z) = q0(z) exp(-E(g(z))) / Z

where g's Jacobian has cancelled: base(g(z)) |det dg/dz| = q0(z). It is flatter than p(x) where the
flow fits; but a valley between two modes of x is one of z as well, unless the flow has bridged it.
Chains are persistent and move by Hamiltonian Monte Carlo (Duane et al. 1987). Every chain has a
step size of its own, which follows its acceptance rate: with one for all, chains where the energy
is steep never move, the energy rises there for as long as they stay, and training runs away.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import paramax
from flowjax.distributions import AbstractDistribution, AbstractTransformed
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.data.errors import InputError
from tiltflow.data.settings import check_positive
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import Chains, LogDensity, refresh
from tiltflow.sampling.kernels import local_moves, target_acceptance
from tiltflow.sampling.local import adapt_step_size
from tiltflow.training.balanced import largest_precision
from tiltflow.training.likelihood import Negatives
from tiltflow.training.methods import Figures


class NeuralTransportState(NamedTuple):
    """Chains in the latent space, the same in the data's space, and their step sizes of HMC."""

    latent: Float[Array, "n d"]
    position: Float[Array, "n d"]
    log_step_size: Float[Array, " n"]


@dataclass(frozen=True)
class NeuralTransport:
    """A source of negatives: `local_steps` HMC moves of `leapfrog_steps` in the latent space."""

    chains: int = 1024
    leapfrog_steps: int = 5
    local_steps: int = 2
    target_acceptance_rate: float = target_acceptance("hmc")

    def __post_init__(self) -> None:
        """Raises `InputError` where a setting is out of its range."""
        check_positive(
            chains=self.chains,
            leapfrog_steps=self.leapfrog_steps,
            local_steps=self.local_steps,
            target_acceptance_rate=self.target_acceptance_rate,
        )

    def init(
        self,
        key: PRNGKeyArray,
        base: AbstractDistribution,
        flow: AbstractDistribution | None = None,
    ) -> NeuralTransportState:
        """Start the chains at draws of the base, exact for an energy that is zero.

        Raises:
            InputError: the base is no transformed distribution, so that it has no latent space.
        """
        if not isinstance(base, AbstractTransformed):
            raise InputError(
                f"base: {type(base).__name__} has no latent space to move in; "
                "give a flow (a flowjax Transformed)"
            )
        return _start(key, base, self.chains)

    def evaluations(self, batch_size: int) -> int:
        """In a point: the refreshed chains and the leapfrog steps. In the parameters: rows and
        chains.
        """
        return self.chains * (self.local_steps * self.leapfrog_steps + 1) + batch_size + self.chains

    def draw(
        self,
        key: PRNGKeyArray,
        model: TiltedEBM,
        flow_static: PyTree,
        state: NeuralTransportState,
        batch: Float[Array, "b d"],
        rate: Float[Array, ""],
    ) -> tuple[Negatives, NeuralTransportState, Figures]:
        """Move the latent chains under `model`; the negatives are their images."""
        log_density = latent_log_density(model)
        start = refresh(state.latent, log_density)
        chains, rates = self.moves(key, start, log_density, state.log_step_size)
        position = _to_data(model.base, chains.position)
        log_step_size = jax.vmap(partial(adapt_step_size, target=self.target_acceptance_rate))(
            state.log_step_size, rates
        )
        return (
            Negatives(position, jnp.full(self.chains, 1 / self.chains)),
            NeuralTransportState(chains.position, position, log_step_size),
            {"local_acceptance_rate": rates.mean()},
        )

    def moves(
        self,
        key: PRNGKeyArray,
        chains: Chains,
        log_density: LogDensity,
        log_step_size: Float[Array, " n"],
    ) -> tuple[Chains, Float[Array, " n"]]:
        """Move latent chains, each by its own step size; also returns their acceptance rates."""

        def move(
            key: PRNGKeyArray, chain: Chains, log_step_size: Float[Array, ""]
        ) -> tuple[Chains, Float[Array, ""]]:
            alone = jax.tree.map(lambda each: each[None], chain)
            moved, info = local_moves(
                "hmc",
                key,
                alone,
                log_density,
                jnp.exp(log_step_size),
                self.local_steps,
                integration_steps=self.leapfrog_steps,
            )
            return jax.tree.map(lambda each: each[0], moved), info.acceptance_rate

        return jax.vmap(move)(jax.random.split(key, len(log_step_size)), chains, log_step_size)


def latent_log_density(model: TiltedEBM) -> LogDensity:
    """Log p(z) up to log Z, nats, of one point z (d,) of the latent space of `model.base`."""
    base = paramax.unwrap(model.base)

    def log_density(z: Float[Array, " d"]) -> Float[Array, ""]:
        return base.base_dist.log_prob(z) - model.energy(base.bijection.transform(z))

    return log_density


def _to_data(base: AbstractDistribution, latent: Float[Array, "n d"]) -> Float[Array, "n d"]:
    return jax.vmap(paramax.unwrap(base).bijection.transform)(latent)


@eqx.filter_jit
def _start(key: PRNGKeyArray, base: AbstractTransformed, chains: int) -> NeuralTransportState:
    latent = base.base_dist.sample(key, (chains,))
    (dimension,) = base.shape
    # No larger than the narrowest direction allows, or not one move is ever accepted.
    longest = -0.5 * jnp.log(largest_precision(base.base_dist, latent))
    log_step_size = jnp.fmin(longest, 0.0) + jnp.log(0.5 / dimension**0.25)
    return NeuralTransportState(latent, _to_data(base, latent), jnp.full(chains, log_step_size))
