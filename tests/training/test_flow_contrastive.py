"""Flow contrastive estimation: its value, its gradients by quadrature, log Z, and in training."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flowjax.bijections import Affine
from flowjax.distributions import StandardNormal, Transformed
from scipy.special import expit

from tiltflow.data.errors import InputError
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.flows import trainable
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.flow_contrastive import FlowContrastive, contrast
from tiltflow.training.loop import Schedule, train_energy

TRACES = []
BATCHES, ROWS = 400, 100
BASE = StandardNormal((1,))
GRID = np.linspace(-12, 12, 24_001)


@dataclass(frozen=True)
class Counted(FlowContrastive):
    """The same objective; it counts how often JAX traces it."""

    def gradient(self, *args):
        TRACES.append(1)
        return super().gradient(*args)


class Linear(eqx.Module):
    """E(x) = slope x makes the standard normal N(-slope, 1), log Z = slope^2 / 2."""

    slope: jax.Array

    def __call__(self, x):
        return self.slope * x[0]


def flow_at(mean, scale=1.0):
    return Transformed(StandardNormal((1,)), Affine(jnp.full(1, mean), jnp.full(1, scale)))


def value_by_quadrature(slope, log_z, mean):
    """V where the data are N(-0.5, 1), and its accuracy, by the rectangle rule."""
    data = scipy.stats.norm.pdf(GRID, -0.5)
    log_q = scipy.stats.norm.logpdf(GRID, mean)
    log_p = scipy.stats.norm.logpdf(GRID) - slope * GRID - log_z
    ratio = log_p - log_q
    value = data * -np.logaddexp(0, -ratio) + np.exp(log_q) * -np.logaddexp(0, ratio)
    right = 0.5 * (data * (ratio >= 0) + np.exp(log_q) * (ratio < 0))
    step = GRID[1] - GRID[0]
    return value.sum() * step, right.sum() * step


def gradients_over_batches(value, point):
    """Value, accuracy and gradient in (slope, log Z, mean), each over independent batches."""

    @eqx.filter_jit
    def run(point):
        def one(key):
            data_key, key = jax.random.split(key)
            batch = jax.random.normal(data_key, (ROWS, 1)) - 0.5
            return jax.value_and_grad(lambda point: value(key, point, batch), has_aux=True)(point)

        return jax.lax.map(one, jax.random.split(jax.random.key(0), BATCHES))

    (v, accuracy), gradient = run(jnp.asarray(point))
    return np.column_stack([v, accuracy, gradient])


def by_contrast(key, point, batch):
    slope, log_z, mean = point
    return contrast(key, TiltedEBM(BASE, Linear(slope)), log_z, flow_at(mean), batch)


def mutant(path=True, own_density=True, row_density=True):
    """V written out, with parts of the flow's gradient left out."""

    def value(key, point, batch):
        slope, log_z, mean = point
        fixed = jax.lax.stop_gradient(mean)
        draws = jax.random.normal(key, (ROWS, 1)) + (mean if path else fixed)

        def ratio(x, mean):
            log_q = -0.5 * (x - mean) ** 2
            return (-0.5 * x**2 - slope * x - log_z - log_q)[:, 0]

        of_rows = ratio(batch, mean if row_density else fixed)
        of_draws = ratio(draws, mean if own_density else fixed)
        accuracy = 0.5 * (jnp.mean(of_rows >= 0) + jnp.mean(of_draws < 0))
        return jax.nn.log_sigmoid(of_rows).mean() + jax.nn.log_sigmoid(-of_draws).mean(), accuracy

    return value


def z_scores(rows, expected):
    error = rows.std(axis=0) / np.sqrt(len(rows)) + 1e-6
    return np.abs(rows.mean(axis=0) - expected) / error


@pytest.fixture(scope="module")
def expected():
    """Value, accuracy and gradient by quadrature at a point where nothing is at its optimum."""
    point, step = np.array([0.2, -0.3, 0.6]), 1e-4
    gradient = [
        (value_by_quadrature(*(point + e))[0] - value_by_quadrature(*(point - e))[0]) / (2 * step)
        for e in step * np.eye(3)
    ]
    return point, np.array([*value_by_quadrature(*point), *gradient])


def test_value_accuracy_and_gradients_are_those_of_quadrature(expected):
    """Level 4.5 standard errors, five numbers; each mutant's flow gradient from 8 on."""
    point, numbers = expected
    assert z_scores(gradients_over_batches(by_contrast, point), numbers).max() < 4.5
    assert z_scores(gradients_over_batches(mutant(), point), numbers).max() < 4.5
    for part in ("path", "own_density", "row_density"):
        assert z_scores(gradients_over_batches(mutant(**{part: False}), point), numbers)[4] > 8


def test_at_the_truth_the_value_is_minus_log_four_and_nothing_pulls():
    """p = q = data: every ratio is one. Gradients at 4.5 standard errors."""
    rows = gradients_over_batches(by_contrast, [0.5, 0.125, -0.5])
    np.testing.assert_allclose(rows[:, 0], -np.log(4), atol=1e-5)
    assert z_scores(rows[:, 2:], 0.0).max() < 4.5
    # A wrong log Z is seen at once: the ratio is then e^(1/2) everywhere.
    wrong = gradients_over_batches(by_contrast, [0.5, -0.375, -0.5])
    assert np.mean(wrong[:, 0]) == pytest.approx(np.log(expit(0.5) * expit(-0.5)), abs=1e-4)


def test_log_z_is_learnt_where_the_energy_is_right_and_the_flow_is_not():
    """The optimum of V in log Z is log Z whatever the flow; 1/2 for slope 1, to 0.03."""
    method = FlowContrastive(flow_learning_rate=0.0, log_z_learning_rate=0.03)
    flow = flow_at(-0.2, 1.5)
    static = trainable(flow)[1]
    model = TiltedEBM(BASE, Linear(jnp.asarray(1.0)))

    @eqx.filter_jit
    def run(state):
        def step(state, inputs):
            key, rate = inputs
            data_key, key = jax.random.split(key)
            batch = jax.random.normal(data_key, (512, 1)) - 1
            _, state, figures = method.gradient(key, model, static, state, batch, rate)
            return state, figures["log_z"]

        rates = jnp.linspace(1, 0, 200)
        return jax.lax.scan(step, state, (jax.random.split(jax.random.key(1), 200), rates))

    start = method.init(jax.random.key(0), BASE, flow)
    state, trace = run(start)
    assert float(start.log_z) == 0
    assert float(state.log_z) == pytest.approx(0.5, abs=0.03)
    assert trace[-1] == state.log_z
    np.testing.assert_array_equal(state.flow.bijection.loc, start.flow.bijection.loc)


def test_the_energy_climbs_and_the_flow_goes_to_the_data():
    """One step from p at 0.2 and q at 0.6, the data being at -0.5: signs of all three moves."""
    flow = flow_at(0.6)
    parameters, static = trainable(flow)
    method = FlowContrastive(flow_learning_rate=0.01, log_z_learning_rate=0.01)
    state = method.init(jax.random.key(0), BASE, flow)._replace(log_z=jnp.asarray(-0.3))
    batch = jnp.asarray(np.random.default_rng(0).normal(-0.5, 1, (2000, 1)))
    model = TiltedEBM(BASE, Linear(jnp.asarray(-0.2)))
    gradient, new, _ = eqx.filter_jit(method.gradient)(
        jax.random.key(1), model, static, state, batch, jnp.asarray(1.0)
    )
    # p moves to the data by a larger slope, which descent on the gradient gives.
    assert gradient.slope < 0
    assert float(new.log_z) == pytest.approx(-0.29, abs=1e-4)
    moved = new.flow.bijection.loc - parameters.bijection.loc
    np.testing.assert_allclose(moved, -0.01, atol=1e-4)


def test_training_finds_the_density_its_normaliser_and_the_flow():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(0.8, 0.5, (2000, 1)))
    energy = MLPEnergy(1, width=16, depth=2, key=jax.random.key(1))
    schedule = Schedule(steps=600, chunk=200, learning_rate=1e-2, batch_size=256, averaging=0.98)
    source = Counted(flow_learning_rate=5e-3)
    trained = train_energy(jax.random.key(2), energy, BASE, source, flow_at(0.0), x, None, schedule)
    assert trained.stopped is None
    # Three chunks are one program: the state's types do not change in a step.
    assert len(TRACES) == 1
    look = eqx.filter_jit(lambda model, x: jax.vmap(model.log_density)(x))
    grid = np.linspace(-4, 5, 901)
    log_density = np.asarray(look(TiltedEBM(BASE, trained.energy), jnp.asarray(grid)[:, None]))
    mass = np.exp(log_density) * (grid[1] - grid[0])
    log_z = np.log(mass.sum())
    mass /= mass.sum()
    mean = mass @ grid
    assert mean == pytest.approx(0.8, abs=0.05)
    assert mass @ (grid - mean) ** 2 == pytest.approx(0.5**2, abs=0.03)
    assert float(trained.source.log_z) == pytest.approx(log_z, abs=0.1)
    flow = eqx.combine(trained.source.flow, trained.flow_static)
    draws = np.asarray(eqx.filter_jit(lambda flow: flow.sample(jax.random.key(3), (4000,)))(flow))
    assert draws.mean() == pytest.approx(0.8, abs=0.06)
    assert draws.std() == pytest.approx(0.5, abs=0.06)
    last = trained.reports[-1]
    assert last["value"] == pytest.approx(-np.log(4), abs=0.05)
    assert last["classifier_accuracy"] == pytest.approx(0.5, abs=0.1)


def test_cost_and_refusals(key):
    assert FlowContrastive().evaluations(10) == 20
    with pytest.raises(InputError, match="flow: found None"):
        FlowContrastive().init(key, BASE, None)
