"""Approximate posteriors of a variational autoencoder: a Gaussian, moved by a flow of its own.

    z_0 ~ N(m(x), s(x)^2),     z = g_x(z_0),     log q(z | x) = log N(z_0; m, s^2) - log|det dg_x|

(Rezende, Mohamed 2015). What g_x is for a point comes from the encoder as `numbers` numbers:

    GaussianPosterior      g is the identity
    PlanarPosterior        z + u tanh(w . z + b), several times, with u, w and b the point's own
    ContinuousPosterior    continuous flows whose fields have changes of low rank of the point's own
                           (Grathwohl et al. 2019); one solve for the batch
"""

from typing import NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tiltflow.models.amortised_vector_field import AmortisedField, changes_of, numbers_of_changes
from tiltflow.models.batch_likelihood import Trace
from tiltflow.models.continuous import END_TIME
from tiltflow.models.integration import Integration, Solution, draw_probes, integrate
from tiltflow.models.vector_fields import ConcatSquashField


class Moved(NamedTuple):
    """Where the points of a batch end, log|det| of the way there, and calls of vector fields."""

    z: Float[Array, "n d"]
    log_det: Float[Array, " n"]
    evaluations: Int[Array, ""]


@runtime_checkable
class Posterior(Protocol):
    """A pytree that moves a batch; `numbers` is what the encoder has to give for each point."""

    numbers: int

    def __call__(
        self,
        z: Float[Array, "n d"],
        own: Float[Array, "n p"],
        key: PRNGKeyArray,
        trace: Trace = "exact",
    ) -> Moved:
        """Move `z` by what is each point's own; `key` draws the noise of an estimated trace."""
        ...


class GaussianPosterior(eqx.Module):
    """No flow."""

    numbers: int = eqx.field(static=True, default=0)

    def __call__(
        self,
        z: Float[Array, "n d"],
        own: Float[Array, "n p"],
        key: PRNGKeyArray,
        trace: Trace = "exact",
    ) -> Moved:
        """The points themselves."""
        return Moved(z, jnp.zeros_like(z[:, 0]), jnp.asarray(0))


class PlanarPosterior(eqx.Module):
    """Planar maps one after the other, all of them the point's own."""

    maps: int = eqx.field(static=True)
    numbers: int = eqx.field(static=True)

    def __init__(self, dimension: int, maps: int = 8):
        """Of `dimension` latent coordinates."""
        self.maps = maps
        self.numbers = maps * (2 * dimension + 1)

    def __call__(
        self,
        z: Float[Array, "n d"],
        own: Float[Array, "n p"],
        key: PRNGKeyArray,
        trace: Trace = "exact",
    ) -> Moved:
        """All maps in turn."""

        def one(z: Float[Array, " d"], own: Float[Array, " p"]) -> tuple[Array, Array]:
            log_det = jnp.zeros((), z.dtype)
            for each in own.reshape(self.maps, -1):
                z, change = planar(z, each[: z.size], each[z.size : -1], each[-1])
                log_det = log_det + change
            return z, log_det

        return Moved(*jax.vmap(one)(z, own), jnp.asarray(0))


def planar(
    z: Float[Array, " d"], u: Float[Array, " d"], w: Float[Array, " d"], b: Float[Array, ""]
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """One planar map of a point and its log-determinant; u is bent to where it is invertible."""
    inner = w @ u
    # w . u >= -1 is what invertibility needs (their appendix A.1).
    u = u + (jax.nn.softplus(inner) - 1 - inner) * w / (w @ w + 1e-6)
    value = jnp.tanh(w @ z + b)
    return z + u * value, jnp.log(jnp.abs(1 + (1 - value**2) * (w @ u)))


class ContinuousPosterior(eqx.Module):
    """Continuous flows with amortised fields of `rank`."""

    fields: tuple[ConcatSquashField, ...]
    log_end_times: Float[Array, " flows"]
    rank: int = eqx.field(static=True)
    numbers: int = eqx.field(static=True)
    integration: Integration = eqx.field(static=True)

    def __init__(
        self,
        dimension: int,
        *,
        key: PRNGKeyArray,
        flows: int = 2,
        widths: tuple[int, ...] = (64, 64),
        rank: int = 20,
        integration: Integration | None = None,
    ):
        """Of `dimension` latent coordinates; close to the identity if the encoder gives zeros.

        Raises:
            InputError: `rank` is not positive, or there is no hidden layer.
        """
        keys = jax.random.split(key, flows)
        self.fields = tuple(ConcatSquashField(dimension, widths, key=each) for each in keys)
        self.log_end_times = jnp.log(jnp.full(flows, END_TIME))
        self.rank = rank
        self.numbers = sum(numbers_of_changes(field, rank) for field in self.fields)
        self.integration = integration or Integration()

    def __call__(
        self,
        z: Float[Array, "n d"],
        own: Float[Array, "n p"],
        key: PRNGKeyArray,
        trace: Trace = "exact",
    ) -> Moved:
        """Every flow in turn, each one solve with one step size for the batch."""
        log_det, evaluations = jnp.zeros_like(z[:, 0]), jnp.asarray(0)
        for i, field in enumerate(self.fields_of(own)):
            probes = _probes(jax.random.fold_in(key, i), trace, z)
            solution = self.solve(i, field, z, probes)
            assert solution.end.log_det is not None
            z, log_det = solution.end.x, log_det + solution.end.log_det
            evaluations = evaluations + solution.evaluations
        return Moved(z, log_det, evaluations)

    def fields_of(self, own: Float[Array, "n p"]) -> list[AmortisedField]:
        """Of every flow the batch of fields with each point's own changes."""
        fields, start = [], 0
        for shared in self.fields:
            end = start + numbers_of_changes(shared, self.rank)
            fields.append(AmortisedField(shared, changes_of(own[:, start:end], shared, self.rank)))
            start = end
        return fields

    def solve(
        self, i: int, field: AmortisedField, z: Float[Array, "n d"], probes: Array
    ) -> Solution:
        """Carry a batch along flow `i`, of which `field` is from `fields_of`."""
        return integrate(
            field,
            jnp.exp(self.log_end_times[i]),
            z,
            probes,
            self.integration,
            towards="data",
            field_axes=field.axes,
        )


def _probes(key: PRNGKeyArray, trace: Trace, z: Float[Array, "n d"]) -> Array:
    """The identity for all points, or one row of noise for each, fixed for the solve."""
    if trace == "exact":
        return jnp.eye(z.shape[1], dtype=z.dtype)
    draw = lambda key: draw_probes(key, trace, 1, z.shape[1])  # noqa: E731
    return jax.vmap(draw)(jax.random.split(key, len(z)))
