"""The last layer of a network energy, solved instead of stepped.

With the hidden features phi fixed, E(x) = w . phi(x) is an exponential family: its likelihood is
concave in w, with

    gradient  = E_model[phi] - mean_data[phi],      Hessian = -Cov_model[phi]

(Wainwright and Jordan 2008, section 3). The data mean is taken over all rows at once and the model
mean over many weighted draws of the flow, its modes by number (`systematic.py`), so that the noise
of chains and batches, a per cent in the weight of a mode, falls out. Newton's steps are damped;
held-out rows choose the damping. But of the weights of modes, an error of .001 in which costs 1e-5
nats, few rows cannot see the good; they see the harm of what else is fitted, which one can reckon:
fitting a direction by a share s costs s^2 / (2 n) nats with n rows (Akaike 1974, for s = 1). So the
lightest damping whose cost is negligible is taken unless held-out rows clearly object.

They object in many dimensions, where the energy was stopped before it knew its rows too well, and
to solve for its last layer by these rows undoes that: in d = 256 the lightest and the heaviest
damping alike lost .013 nats. The weights of modes can come right all the same. Of the features
only those combinations that tell best to which component of the proposal's mixture a point
belongs, B by least squares on its responsibilities, are solved for then: w + B c.

Weights that are solved for can be large, and then a network rises as steeply far outside of the
data as the base falls: an energy of four zones put all of its mass 13 deviations away, where no
draw of the flow is. So a share of the draws is of wide Gaussians.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.evaluation.held_out import compare_on_held_out
from tiltflow.evaluation.log_normalizer import normalised_weights
from tiltflow.models.defensive import DefensiveMixture
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.gaussian_mixture import GaussianMixture, mixture_in
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.recording import weigh_draws
from tiltflow.sampling.systematic import systematic_draws

DAMPINGS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.001)
"""Relative to the mean eigenvalue of the features' covariance."""
NEWTON_STEPS = 4
FAR = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Deviations of the wide Gaussians, in units of the rows'."""
FAR_SHARE, FAR_SHARE_COMPARED = 0.05, 0.5
"""Of the draws that are solved with, and of those that candidates are compared on."""
NEGLIGIBLE_COST = 0.001
"""Nats that may be lost, in expectation, to the noise of the rows for the weights of modes."""
OBJECTION, NEGLIGIBLE = 2.0, 0.003
"""Standard errors and nats, both of which held-out rows must lose to refuse such a damping.

They chose the energy that is to be polished, which flatters it: on eight Gaussians steps that took
its KL from .0059 to .0058, and its weights' error from .0016 to .0008, lost .0013 +- .0006 nats.
"""
LEAST_SPREAD = 1e-4
"""Of a feature's variance over rows, in units of the mean feature's."""
LONGEST_STEP = 1.0
"""Nats of change, as a standard deviation over the model, that one Newton step may make."""


class Polished(NamedTuple):
    """The energy, changed or not, the gain in held-out log-likelihood (nats) and the damping.

    The gain is that of a solution without the held-out rows. Once they have chosen, they are solved
    for as well; `flattery` is by how much (nats) their log-likelihood exceeds the honest one then.
    `of_modes`: for the weights of modes alone.
    """

    energy: MLPEnergy
    gain: float
    damping: float | None
    flattery: float = 0.0
    of_modes: bool = False


def polish(
    key: PRNGKeyArray,
    model: TiltedEBM,
    flow: AbstractDistribution,
    x: Float[Array, "n d"],
    held_out: Float[Array, "m d"],
    *,
    draws: int = 65_536,
) -> Polished:
    """Solve for the last layer of `model.energy`, an `MLPEnergy`; keep what gains most.

    The candidates are compared on draws that none of them was solved with. Rows are standardised.
    """
    assert isinstance(model.energy, MLPEnergy)
    solve_key, compare_key = jax.random.split(key)
    far = _far(x.shape[1])
    proposal = DefensiveMixture(flow, far, FAR_SHARE)
    compared_on = DefensiveMixture(flow, far, FAR_SHARE_COMPARED)
    weighed = weigh_draws(solve_key, model.log_density, proposal, draws, draw=systematic_draws)
    means = _mean_features(model.energy, x), _mean_features(model.energy, held_out)

    def gain_over(energy: MLPEnergy, other: MLPEnergy) -> tuple[float, float, bool]:
        seen = compare_on_held_out(
            compare_key, model.base, energy, other, compared_on, held_out, draws
        )
        return float(seen["gain"]), float(seen["gain_stderr"]), bool(seen["clear"])

    best, chosen = Polished(model.energy, 0.0, None), None
    weights, directions = _solve(model, means[0], *weighed)
    cheap = np.flatnonzero(np.asarray(directions) / (2 * len(x)) <= NEGLIGIBLE_COST)
    safe = int(cheap[-1]) if len(cheap) else 0
    for index in (safe, *(it for it in range(len(DAMPINGS)) if it != safe)):
        energy = _with_last(model.energy, weights[index])
        gain, stderr, clear = gain_over(energy, model.energy)
        taken = index == safe and not _objects(gain, stderr)
        if (taken or gain > max(best.gain, 0.0)) and clear:
            best, chosen = Polished(energy, gain, DAMPINGS[index]), index
    combined = None
    if chosen is None and (combined := _mode_directions(model.energy, flow, x)) is not None:
        weights, _ = _solve(model, means[0], *weighed, combined)
        energy = _with_last(model.energy, weights[-1])
        gain, stderr, clear = gain_over(energy, model.energy)
        if clear and not _objects(gain, stderr):
            best, chosen = Polished(energy, gain, DAMPINGS[-1], of_modes=True), len(DAMPINGS) - 1
    if chosen is None:
        return best
    share = len(held_out) / (len(x) + len(held_out))
    of_all = (1 - share) * means[0] + share * means[1]
    energy = _with_last(model.energy, _solve(model, of_all, *weighed, combined)[0][chosen])
    flattery, stderr, _ = gain_over(energy, best.energy)
    if _objects(flattery, stderr):
        return best
    return best._replace(energy=energy, flattery=flattery)


def _objects(gain: float, stderr: float) -> bool:
    """Whether a loss is both certain and worth a word, or there is no telling."""
    return not gain >= -max(OBJECTION * stderr, NEGLIGIBLE)


def _far(dimension: int) -> GaussianMixture:
    """Round Gaussians from as wide as the rows to far wider."""
    scales = np.array(FAR)
    covariances = scales[:, None, None] ** 2 * np.eye(dimension)
    return GaussianMixture(
        np.full(len(FAR), 1 / len(FAR)), np.zeros((len(FAR), dimension)), covariances
    )


@eqx.filter_jit
def _solve(
    model: TiltedEBM,
    data_mean: Float[Array, " width"],
    y: Float[Array, "draws d"],
    log_weights: Float[Array, " draws"],
    combined: Float[Array, "width k"] | None = None,
) -> tuple[Float[Array, "dampings width"], Float[Array, " dampings"]]:
    """The last layer's weights after damped Newton steps, one row for every damping.

    With `combined` they change by combinations of its columns alone. And how many directions were
    fitted, the sum of s^2 with s the share that the steps go of the way to the undamped solution:
    1 - (damping / (eigenvalue + damping))^steps.
    """
    energy = model.energy
    assert isinstance(energy, MLPEnergy)
    features = jax.lax.map(lambda point: _features(energy, point), y, batch_size=8192)
    # Centred features keep the covariance exact in float32.
    features = features - data_mean
    if combined is not None:
        features = features @ combined
    start = jnp.zeros_like(features[0])

    def newton(damping: Float[Array, ""]) -> Float[Array, " k"]:
        def step(_: Array, change: Float[Array, " k"]) -> Float[Array, " k"]:
            weights = normalised_weights(log_weights - features @ change)
            mean = weights @ features
            centred = features - mean
            covariance = (centred * weights[:, None]).T @ centred
            scale = jnp.trace(covariance) / len(mean)
            damped = covariance + damping * scale * jnp.eye(len(mean))
            move = jnp.linalg.solve(damped, mean)
            # Of squares, not by the covariance, whose rounding can make next to nothing negative.
            size = jnp.sqrt(weights @ (centred @ move) ** 2)
            return change + move * jnp.minimum(1.0, LONGEST_STEP / (size + 1e-12))

        return jax.lax.fori_loop(0, NEWTON_STEPS, step, start)

    dampings = jnp.asarray(DAMPINGS)
    weights = normalised_weights(log_weights)
    mean = weights @ features
    eigenvalues = jnp.linalg.eigvalsh(
        (features * weights[:, None]).T @ features - jnp.outer(mean, mean)
    )
    eigenvalues = jnp.maximum(eigenvalues / (eigenvalues.mean() + 1e-30), 0.0)
    shares = 1 - (dampings[:, None] / (eigenvalues + dampings[:, None])) ** NEWTON_STEPS
    changes = jax.lax.map(newton, dampings)
    if combined is not None:
        changes = changes @ combined.T
    return energy.network.layers[-1].weight[0] + changes, (shares**2).sum(axis=1)


def _mode_directions(
    energy: MLPEnergy, flow: AbstractDistribution, x: Float[Array, "n d"]
) -> Float[Array, "width k"] | None:
    """Combinations of features that tell the components of the flow's mixture apart.

    None where there is no mixture of several, or so many that the rows cannot tell their weights.
    """
    mixture = mixture_in(flow)
    if mixture is None:
        return None
    free = len(mixture.log_weights) - 1
    if free == 0 or free / (2 * len(x)) > NEGLIGIBLE_COST:
        return None
    return _regressed(energy, mixture, x)


@eqx.filter_jit
def _regressed(
    energy: MLPEnergy, mixture: GaussianMixture, x: Float[Array, "n d"]
) -> Float[Array, "width k"]:
    """Coefficients of features for the responsibilities of the components, by least squares."""

    def look(point: Float[Array, " d"]) -> tuple[Array, Array]:
        return _features(energy, point), jax.nn.softmax(mixture.joint_log_prob(point))

    features, shares = jax.lax.map(look, x, batch_size=8192)
    features, shares = features - features.mean(axis=0), shares - shares.mean(axis=0)
    gram = features.T @ features
    # Features that hardly vary on the rows would vary elsewhere.
    ridge = LEAST_SPREAD * jnp.trace(gram) / len(gram)
    return jnp.linalg.solve(gram + ridge * jnp.eye(len(gram)), features.T @ shares)


@eqx.filter_jit
def _mean_features(energy: MLPEnergy, x: Float[Array, "n d"]) -> Float[Array, " width"]:
    """The mean of the last hidden layer over rows."""
    return jax.lax.map(lambda point: _features(energy, point), x, batch_size=8192).mean(0)


def _with_last(energy: MLPEnergy, weight: Float[Array, " width"]) -> MLPEnergy:
    """The energy with another last layer."""
    return eqx.tree_at(lambda it: it.network.layers[-1].weight, energy, weight[None])


def _features(energy: MLPEnergy, x: Float[Array, " d"]) -> Float[Array, " width"]:
    """The last hidden layer at one point."""
    network = energy.network
    for layer in network.layers[:-1]:
        x = network.activation(layer(x))
    return x
