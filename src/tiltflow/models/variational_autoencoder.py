"""A variational autoencoder of binary data with a posterior of any kind (Kingma, Welling 2014).

    log p(x) >= E_q [ log p(x | z) + log N(z; 0, I) - log q(z | x) ]

The encoder, an MLP, gives the mean and the log-deviation of the Gaussian that the posterior moves,
and the numbers that the posterior asks for (`posteriors.py`); the decoder gives logits of pixels.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tiltflow.models.batch_likelihood import Trace
from tiltflow.models.posteriors import Posterior


class Bound(NamedTuple):
    """The bound of every point by one draw each, in nats, and calls of vector fields."""

    value: Float[Array, " n"]
    evaluations: Int[Array, ""]


class Encoded(NamedTuple):
    """Draws of each row's Gaussian, their log-densities, and the posterior's numbers of each."""

    z: Float[Array, "n l"]
    log_q: Float[Array, " n"]
    own: Float[Array, "n q"]


class VariationalAutoencoder(eqx.Module):
    """The model above on p binary pixels."""

    encoder: eqx.nn.MLP
    decoder: eqx.nn.MLP
    posterior: Posterior
    latent: int = eqx.field(static=True)

    def __init__(
        self, pixels: int, latent: int, posterior: Posterior, *, width: int = 300, key: PRNGKeyArray
    ):
        """Encoder and decoder of two hidden layers of `width`."""
        encoder_key, decoder_key = jax.random.split(key)
        outputs = 2 * latent + posterior.numbers
        self.encoder = eqx.nn.MLP(pixels, outputs, width, 2, key=encoder_key)
        self.decoder = eqx.nn.MLP(latent, pixels, width, 2, key=decoder_key)
        self.posterior = posterior
        self.latent = latent

    def bound(self, x: Float[Array, "n p"], key: PRNGKeyArray, *, trace: Trace = "exact") -> Bound:
        """The bound of binary rows."""
        draw_key, trace_key = jax.random.split(key)
        start = self.encode(x, draw_key)
        moved = self.posterior(start.z, start.own, trace_key, trace)
        log_q = start.log_q - moved.log_det
        logits = jax.vmap(self.decoder)(moved.z)
        # log sigmoid(l) for ones and log sigmoid(-l) for zeros.
        log_likelihood = jax.nn.log_sigmoid((2 * x - 1) * logits).sum(axis=1)
        value = log_likelihood + norm.logpdf(moved.z).sum(axis=1) - log_q
        return Bound(value, moved.evaluations)

    def encode(self, x: Float[Array, "n p"], key: PRNGKeyArray) -> Encoded:
        """One draw of the Gaussian for each of the binary rows, before the posterior moves it."""
        encoded = jax.vmap(self.encoder)(x)
        mean, log_deviation, own = jnp.split(encoded, [self.latent, 2 * self.latent], axis=1)
        noise = jax.random.normal(key, mean.shape)
        log_q = (norm.logpdf(noise) - log_deviation).sum(axis=1)
        return Encoded(mean + jnp.exp(log_deviation) * noise, log_q, own)
