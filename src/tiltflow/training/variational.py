"""Training a variational autoencoder by its bound, on images that are made binary in every step.

    loss = -mean over the batch of the bound at x ~ Bernoulli(grey level)

(Kingma, Welling 2014; Grathwohl et al. 2019.) Rows are grey levels in [0, 1]. A step draws pixels,
latent noise and the noise of the trace anew, the latter fixed for one solve; held-out rows are
drawn once, and judged by the exact trace. The KL is not warmed up. `fit_flow` does the rest.
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.models.batch_likelihood import Trace
from tiltflow.models.failed_solves import check_posterior
from tiltflow.models.posteriors import ContinuousPosterior
from tiltflow.models.variational_autoencoder import Bound, Encoded, VariationalAutoencoder
from tiltflow.training.flow_objective import check_finite

SCORE_SEED = 0
ROWS_AT_ONCE = 500


@dataclass(frozen=True)
class VariationalBound:
    """The loss above, for `fit_flow(..., objective=VariationalBound())`.

    Raises:
        InputError: the trace is not known.
    """

    trace: Trace = "rademacher"

    def __post_init__(self) -> None:
        if self.trace not in ("exact", "gaussian", "rademacher"):
            raise InputError(f"trace: '{self.trace}' is not known; use exact, gaussian, rademacher")

    def loss(
        self, key: PRNGKeyArray, flow: Any, batch: Float[Array, "b d"]
    ) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        """Of one batch, with the calls of vector fields as a figure."""
        pixel_key, bound_key = jax.random.split(key)
        bound = flow.bound(binary(pixel_key, batch), bound_key, trace=self.trace)
        return -bound.value.mean(), (flow, {"evaluations": bound.evaluations})

    def score(self, flow: Any, x: Float[Array, "n d"]) -> Array:
        """The mean bound of rows by the exact trace, with the same noise every time."""
        return bound_of_grey(flow, x, jax.random.key(SCORE_SEED)).value.mean()

    def diagnose(self, flow: Any, x: Float[Array, "n d"]) -> None:
        """Name the solve that failed, or else the first row whose bound is not finite."""
        values, _ = bound_of_rows(flow, np.asarray(x))
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad) and isinstance(flow.posterior, ContinuousPosterior):
            # The rows of one solve fail together.
            i = int(bad[0]) // ROWS_AT_ONCE
            part = x[i * ROWS_AT_ONCE : (i + 1) * ROWS_AT_ONCE]
            start = _encode(flow, part, jax.random.fold_in(jax.random.key(SCORE_SEED), i))
            if bool(jnp.isfinite(start.z).all() & jnp.isfinite(start.own).all()):
                check_posterior(flow.posterior, start.z, start.own)
        check_finite(values, "the bound")


def binary(key: PRNGKeyArray, grey: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Pixels that are one with the probability of their grey level."""
    return jax.random.bernoulli(key, grey).astype(grey.dtype)


def bound_of_grey(model: Any, grey: Float[Array, "n d"], key: PRNGKeyArray) -> Bound:
    """The bound by the exact trace, of pixels drawn by `key`."""
    pixel_key, bound_key = jax.random.split(key)
    return model.bound(binary(pixel_key, grey), bound_key)


def bound_of_rows(
    model: VariationalAutoencoder, grey: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, " n"], float]:
    """The bound of many rows, a part at a time, and the mean calls of vector fields of a part."""
    size = min(ROWS_AT_ONCE, len(grey))
    # The last part is filled up, so that one program serves all.
    filled = np.concatenate([grey, np.repeat(grey[-1:], -len(grey) % size, axis=0)])
    values, calls = [], []
    for i, part in enumerate(filled.reshape(-1, size, grey.shape[1])):
        key = jax.random.fold_in(jax.random.key(SCORE_SEED), i)
        bound = _bound_of_grey(model, jnp.asarray(part), key)
        values.append(np.asarray(bound.value, float))
        calls.append(float(bound.evaluations))
    return np.concatenate(values)[: len(grey)], float(np.mean(calls))


_bound_of_grey = eqx.filter_jit(bound_of_grey)


@eqx.filter_jit
def _encode(model: VariationalAutoencoder, grey: Float[Array, "n d"], key: PRNGKeyArray) -> Encoded:
    pixel_key, bound_key = jax.random.split(key)
    return model.encode(binary(pixel_key, grey), jax.random.split(bound_key)[0])
