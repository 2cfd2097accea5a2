"""Losses of flows: zero gradient at the truth and only there, the likelihood's gradient by draws,
and no determinant where none is promised.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.bijections import Invert
from flowjax.distributions import StandardNormal, Transformed

from tiltflow.data.errors import InputError
from tiltflow.models.energy_flow import EnergyFlow
from tiltflow.models.energy_flow_architectures import (
    convolutional_energy_flow,
    coupled_energy_flow,
    fully_connected_energy_flow,
)
from tiltflow.models.flows import trainable
from tiltflow.models.linear_layers import FullLinear
from tiltflow.training.denoising_score_matching import DenoisingScoreMatching
from tiltflow.training.finite_difference_score_matching import FiniteDifferenceScoreMatching
from tiltflow.training.flow_losses import (
    MaximumLikelihood,
    SampledMaximumLikelihood,
    ScoreMatching,
)
from tiltflow.training.flow_objective import Minimise
from tiltflow.training.sliced_score_matching import SlicedScoreMatching

ROWS, BATCHES, NOISE = 200, 200, 0.6
MEAN = np.array([0.7, -0.4])
COVARIANCE = np.array([[0.8, 0.3], [0.3, 0.5]])
LOSSES = {
    "likelihood": MaximumLikelihood(),
    "sampled": SampledMaximumLikelihood(),
    "sliced": ScoreMatching(SlicedScoreMatching()),
    "denoising": ScoreMatching(DenoisingScoreMatching(NOISE)),
    "differences": ScoreMatching(FiniteDifferenceScoreMatching(0.3)),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def gaussian(covariance, mean=MEAN):
    """The flow of one dense layer that is this Gaussian: u = L^-1 (x - m)."""
    weight = np.linalg.inv(np.linalg.cholesky(covariance))
    flow = EnergyFlow(StandardNormal((2,)), [FullLinear(2, key=jax.random.key(0))])
    return eqx.tree_at(
        lambda it: (it.layers[0].weight, it.layers[0].bias),
        flow,
        (jnp.asarray(weight), jnp.asarray(-weight @ mean)),
    )


def learnt_by(name):
    """What the loss should find: of denoising, the rows with the noise."""
    return COVARIANCE + (NOISE**2 * np.eye(2) if name == "denoising" else 0)


@eqx.filter_jit
def gradients(loss, flow):
    parameters, static = trainable(flow)
    factor = jnp.asarray(np.linalg.cholesky(COVARIANCE))

    def one(key):
        data_key, key = jax.random.split(key)
        batch = MEAN + jax.random.normal(data_key, (ROWS, 2)) @ factor.T
        gradient = jax.grad(lambda p: loss(key, eqx.combine(p, static), batch))(parameters)
        return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(gradient)])

    return jax.lax.map(one, jax.random.split(jax.random.key(0), BATCHES))


def largest_z(loss, flow):
    """Of the mean gradient over independent batches, in standard errors, over six parameters."""
    draws = np.asarray(gradients(loss, flow), float)
    return np.max(np.abs(draws.mean(0)) / (draws.std(0) / np.sqrt(BATCHES)))


@every_loss
def test_the_truth_is_stationary_and_what_is_near_it_is_not(name):
    """Level 4.5 standard errors, the largest of six parameters; mutants from 8 on."""
    truth = learnt_by(name)
    assert largest_z(LOSSES[name], gaussian(truth)) < 4.5
    assert largest_z(LOSSES[name], gaussian(1.3 * truth)) > 8
    assert largest_z(LOSSES[name], gaussian(truth, MEAN + 0.1)) > 8
    if name == "denoising":
        assert largest_z(LOSSES[name], gaussian(COVARIANCE)) > 8


def test_draws_give_the_gradient_of_the_likelihood():
    """Away from the truth, level 4.5 standard errors of six parameters; mutants from 8 on."""
    flow = gaussian(1.5 * COVARIANCE, MEAN + 0.5)
    by_likelihood = np.asarray(gradients(LOSSES["likelihood"], flow), float)

    def z(loss):
        gap = np.asarray(gradients(loss, flow), float) - by_likelihood
        return np.max(np.abs(gap.mean(0)) / (gap.std(0) / np.sqrt(BATCHES) + 1e-9))

    assert z(LOSSES["sampled"]) < 4.5
    assert z(undetached) > 8
    assert z(without_draws) > 8


def undetached(key, flow, batch):
    draws = flow.sample(key, (batch.shape[0],))
    return jax.vmap(flow.energy)(batch).mean() - jax.vmap(flow.energy)(draws).mean()


def without_draws(key, flow, batch):
    return jax.vmap(flow.energy)(batch).mean()


def test_low_energies_are_sought_where_it_is_asked(key):
    flow, batch = gaussian(COVARIANCE), jnp.ones((4, 2))
    plain = ScoreMatching(SlicedScoreMatching())(key, flow, batch)
    low = ScoreMatching(SlicedScoreMatching(), low_energy=0.5)(key, flow, batch)
    assert float(low - plain) == pytest.approx(0.5 * float(flow.energy(batch[0])), rel=1e-5)


def test_the_scale_is_of_the_scores_alone(key):
    flow, batch = gaussian(COVARIANCE), jnp.ones((4, 2))
    plain, small, low = (
        float(ScoreMatching(SlicedScoreMatching(), **more)(key, flow, batch))
        for more in ({}, {"scale": 0.01}, {"scale": 0.01, "low_energy": 0.5})
    )
    assert small == pytest.approx(0.01 * plain, rel=1e-5)
    assert low - small == pytest.approx(0.5 * float(flow.energy(batch[0])), rel=1e-5)
    with pytest.raises(InputError, match="scale"):
        ScoreMatching(SlicedScoreMatching(), scale=0.0)


def test_any_flow_can_learn_by_scores(key):
    """flowjax's form of the same density, with the constant left in, has the same loss."""
    flow, batch = gaussian(COVARIANCE), jnp.ones((4, 2))
    plain = Transformed(flow.base_dist, Invert(flow.layers[0]))
    loss = ScoreMatching(SlicedScoreMatching())
    assert float(loss(key, flow, batch)) == pytest.approx(float(loss(key, plain, batch)), rel=1e-5)


FLOWS = {
    "coupled": lambda key: coupled_energy_flow(key, 3, blocks=1, width=4),
    "connected": lambda key: fully_connected_energy_flow(key, 4),
    "circular": lambda key: convolutional_energy_flow(key, (4, 4, 1), stages=2, size=3),
    "zero": lambda key: convolutional_energy_flow(key, (4, 4, 1), size=3, padding="zero"),
}
FACTORISATIONS = ("lu", "eig", "qr", "svd", "cholesky", "triangular_solve", "fft", "geqrf", "getrf")


def primitives(jaxpr):
    """The names of all primitives, those of inner programs too."""
    names = set()
    for equation in jaxpr.eqns:
        names.add(equation.primitive.name)
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(value):
                names |= primitives(getattr(value, "jaxpr", value))
    return names


def _is_program(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def factorisations(loss, flow):
    parameters, static = trainable(flow)
    batch = jnp.ones((3, *flow.shape))
    key = jax.random.key(0)
    program = jax.make_jaxpr(jax.grad(lambda p: loss(key, eqx.combine(p, static), batch)))
    return {
        name for name in primitives(program(parameters).jaxpr) if name.startswith(FACTORISATIONS)
    }


@pytest.mark.parametrize("flow", FLOWS)
def test_losses_of_scores_never_factorise_a_layer_and_the_likelihood_does(flow, key):
    flow = FLOWS[flow](key)
    for name in ("sliced", "denoising", "differences"):
        assert factorisations(LOSSES[name], flow) == set()
    assert factorisations(LOSSES["likelihood"], flow) != set()
    # Draws are by inversion, which needs a factor but no determinant.
    assert factorisations(LOSSES["sampled"], flow) != set()


def test_bad_input_is_refused(key):
    with pytest.raises(InputError, match="low_energy"):
        ScoreMatching(SlicedScoreMatching(), low_energy=-1.0)
    with pytest.raises(InputError, match="take MaximumLikelihood"):
        SampledMaximumLikelihood()(key, StandardNormal((2,)), jnp.ones((4, 2)))


def test_a_layer_that_became_singular_is_named_and_not_an_outlier():
    flow = fully_connected_energy_flow(jax.random.key(0), 2, depth=1)
    objective, x = Minimise(LOSSES["sliced"]), jnp.ones((3, 2))
    objective.diagnose(flow, x)
    singular = jax.tree.map(lambda leaf: 0 * leaf if jnp.ndim(leaf) == 2 else leaf, flow)
    with pytest.raises(InputError, match=r"layer \d, FullLinear, is singular"):
        objective.diagnose(singular, x)
    with pytest.raises(InputError, match="the log-density is nan at row 2"):
        objective.diagnose(flow, x.at[1, 0].set(jnp.nan))
