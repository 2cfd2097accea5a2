"""The parametric energy of the Jarzynski experiment: two Gaussian modes and their log-ratio.

    U(x) = -log( exp(-|x - a|^2 / 2) + exp(-|x - b|^2 / 2 - z) )
    log Z = d/2 log 2 pi + log(1 + exp(-z)),    masses 1 / (1 + exp(-z)) and 1 / (1 + exp(z))

(Carbone, Hua, Coste, Vanden-Eijnden 2023.) A model of this library is base(x) exp(-E(x)), so the
energy is E(x) = U(x) + log base(x), with the standard normal as base: the model is exp(-U) exactly.
Everything that a network hides can be read off here: log Z, the masses, the means.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.mixtures import GaussianMixture
from tiltflow.evaluation.distances import fisher_divergence, sliced_wasserstein
from tiltflow.experiments.judged import draw_truth
from tiltflow.experiments.problem import exact_log_prob, label_shares, labels_of

POINTS = 20_000


class TwoModesEnergy(eqx.Module):
    """E(x) = U(x) + log N(x; 0, I), to tilt a standard normal; everything in it is trained."""

    a: Float[Array, " d"]
    b: Float[Array, " d"]
    z: Float[Array, ""]

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """E(x), in nats."""
        near = jnp.stack([jnp.sum((x - self.a) ** 2), jnp.sum((x - self.b) ** 2) + 2 * self.z])
        return -jax.nn.logsumexp(-near / 2) + norm.logpdf(x).sum()

    @property
    def log_z(self) -> Float[Array, ""]:
        """The model's log Z, exact."""
        return len(self.a) / 2 * jnp.log(2 * jnp.pi) + jax.nn.softplus(-self.z)

    @property
    def mass_below(self) -> Float[Array, ""]:
        """The mass of the mode that is lower on the first axis, exact."""
        return jax.nn.sigmoid(jnp.where(self.a[0] <= self.b[0], self.z, -self.z))


def first_energy(key: PRNGKeyArray, dimension: int) -> TwoModesEnergy:
    """Where the authors start: equal masses, means at -0.1 and 0.1 on the first axis, jittered."""
    jitter = 0.01 * jax.random.normal(key, (2, dimension))
    a, b = jitter + jnp.zeros_like(jitter).at[:, 0].set(jnp.array([-0.1, 0.1]))
    return TwoModesEnergy(a, b, jnp.zeros_like(a[0]))


def best_energy(target: GaussianMixture, rows: Float[np.ndarray, "n d"]) -> TwoModesEnergy:
    """The likelihood's maximum where the modes are far apart: shares and means of their rows."""
    labels = labels_of(target, rows)
    a, b = (jnp.asarray(rows[labels == mode].mean(axis=0)) for mode in (0, 1))
    first, second = label_shares(target, rows)
    return TwoModesEnergy(a, b, jnp.asarray(np.log(first / second), a.dtype))


class Errors(NamedTuple):
    """An energy against the truth and against the data; `means_error` is the larger distance.

    `mass` is that of the mode that is lower on the first axis. The divergences, in nats, are of
    truth from model on fresh points and of model from truth on exact draws of the model; the
    distance between these and those has beside it that of two samples of the truth.
    """

    mass: float
    mass_error_data: float
    mass_error_truth: float
    means_error: float
    kl: float
    kl_stderr: float
    reverse_kl: float
    sliced_wasserstein: float
    sliced_wasserstein_floor: float
    fisher: float


def judge_energy(
    energy: TwoModesEnergy, target: GaussianMixture, rows: Float[np.ndarray, "n d"], *, seed: int
) -> Errors:
    """Judge by what is exact: the model is a Gaussian mixture."""
    model = mixture_of(energy)
    means, mass = np.asarray(model.means), float(energy.mass_below)
    fresh = draw_truth(target, seed + 77_777, POINTS)
    again = draw_truth(target, seed + 99_999, POINTS)
    draws = draw_truth(model, seed + 1, POINTS)
    gaps = exact_log_prob(target, fresh) - exact_log_prob(model, fresh)
    reverse = exact_log_prob(model, draws) - exact_log_prob(target, draws)
    return Errors(
        mass=mass,
        mass_error_data=abs(mass - float(label_shares(target, rows)[0])),
        mass_error_truth=abs(mass - float(target.weights[0])),
        means_error=float(np.linalg.norm(means - np.asarray(target.means), axis=1).max()),
        kl=float(gaps.mean()),
        kl_stderr=float(gaps.std() / np.sqrt(POINTS)),
        reverse_kl=float(reverse.mean()),
        sliced_wasserstein=sliced_wasserstein(draws, fresh, seed=seed),
        sliced_wasserstein_floor=sliced_wasserstein(again, fresh, seed=seed),
        fisher=fisher_divergence(target.log_prob, model.log_prob, fresh),
    )


def mixture_of(energy: TwoModesEnergy) -> GaussianMixture:
    """The model, its mode that is lower on the first axis first."""
    a, b = np.asarray(energy.a, float), np.asarray(energy.b, float)
    means = np.stack([a, b] if a[0] <= b[0] else [b, a])
    mass = float(energy.mass_below)
    # A mode that was lost has a mass of zero in float32, of which there is no logarithm.
    weights = np.maximum([mass, 1 - mass], 1e-30)
    return GaussianMixture(means, np.tile(np.eye(len(a)), (2, 1, 1)), weights)
