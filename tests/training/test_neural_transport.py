"""Neural transport: the pull-back and its Jacobian, the law that latent chains keep, with mutants.

The flow is x = exp(s z) on a standard normal and the energy is quadratic in log x, so that the
tilted density is log-normal; what is exact of it comes from SciPy, in the data's space.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
import pytest
from flowjax.bijections import Chain, Exp, Scale
from flowjax.distributions import StandardNormal, Transformed
from scipy import stats

from tiltflow.data.errors import InputError
from tiltflow.models.flows import coupling_flow, trainable
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import refresh
from tiltflow.sampling.local import adapt_step_size
from tiltflow.training import neural_transport
from tiltflow.training.neural_transport import NeuralTransport, latent_log_density

S, LINEAR, CURVATURE = 0.5, -2.0, 5.0
FLOW = Transformed(StandardNormal((1,)), Chain([Scale(jnp.full(1, S)), Exp((1,))]))
# log x is N(0, S^2), tilted by exp(-LINEAR log x - CURVATURE (log x)^2 / 2).
PRECISION = S**-2 + CURVATURE
TRUTH = stats.lognorm(s=PRECISION**-0.5, scale=np.exp(-LINEAR / PRECISION))
N = 8000
SOURCE = NeuralTransport(chains=N, leapfrog_steps=4, local_steps=1)


class LogQuadratic(eqx.Module):
    """E(x) = LINEAR log x + CURVATURE (log x)^2 / 2."""

    linear: float = LINEAR

    def __call__(self, x):
        return jnp.sum(self.linear * jnp.log(x) + CURVATURE * jnp.log(x) ** 2 / 2)


MODEL = TiltedEBM(FLOW, LogQuadratic())


def test_the_exact_law_is_that_of_the_model():
    """The truth of this file against the code's density: one constant, log Z, is between them."""
    x = np.linspace(0.3, 6.0, 40)
    difference = TRUTH.logpdf(x) - jax.vmap(MODEL.log_density)(jnp.asarray(x)[:, None])
    np.testing.assert_allclose(difference, np.full(40, difference[0]), atol=2e-5)


@eqx.filter_jit
def bent_flow(key):
    """A coupling flow on a mixture that stands still; its weights are random, so that it bends."""
    means = np.array([[-2.0, 0.0], [2.0, 1.0]])
    mixture = GaussianMixture(np.full(2, 0.5), means, 0.3 * np.stack([np.eye(2)] * 2))
    flow = coupling_flow(
        key, paramax.non_trainable(mixture), layers=2, width=4, transformer="affine"
    )
    parameters, static = trainable(flow)
    leaves, tree = jax.tree.flatten(parameters)
    noisy = [x + 0.3 * jax.random.normal(key, x.shape, x.dtype) for x in leaves]
    return eqx.combine(jax.tree.unflatten(tree, noisy), static)


@pytest.fixture(scope="module")
def bent():
    return bent_flow(jax.random.key(0))


def test_the_latent_density_is_the_models_times_the_jacobian(bent):
    """By automatic differentiation of the flow, on a flow with a mixture below."""
    model = TiltedEBM(bent, lambda x: jnp.sum(x**2) / 3)
    bijection = paramax.unwrap(bent).bijection

    def both(z):
        jacobian = jax.jacfwd(bijection.transform)(z)
        log_det = jnp.linalg.slogdet(jacobian)[1]
        return latent_log_density(model)(z), model.log_density(bijection.transform(z)), log_det

    latent, data, log_det = jax.jit(jax.vmap(both))(jax.random.normal(jax.random.key(2), (50, 2)))
    np.testing.assert_allclose(latent, data + log_det, atol=1e-3)
    assert float(log_det.std()) > 0.05


def test_the_chains_start_at_draws_of_the_base(bent, key):
    state = NeuralTransport(chains=64).init(key, bent)
    transform = paramax.unwrap(bent).bijection.transform
    np.testing.assert_allclose(jax.vmap(transform)(state.latent), state.position, atol=1e-5)
    # One mode of the mixture is 0.55 wide, so that the step is no longer than half of that.
    step_size = jnp.exp(state.log_step_size)
    assert step_size.shape == (64,)
    assert 0.1 < float(step_size.min()) == float(step_size.max()) < 0.3


def probabilities(source=SOURCE):
    """Exact draws and where 20 moves take them, as probabilities under the truth; acceptance."""
    u = jax.random.uniform(jax.random.key(3), (N, 1))
    position = jnp.asarray(TRUTH.ppf(np.asarray(u, float)), u.dtype)
    state = source.init(jax.random.key(4), FLOW)
    state = state._replace(latent=jnp.log(position) / S, position=position)

    @jax.jit
    def run(state, key):
        def step(state, key):
            negatives, state, figures = source.draw(
                key, MODEL, None, state, position, 1.0 * u[0, 0]
            )
            return state, (negatives.position, figures["local_acceptance_rate"])

        return jax.lax.scan(step, state, jax.random.split(key, 20))

    state, (positions, rates) = run(state, jax.random.key(5))
    np.testing.assert_array_equal(positions[-1], state.position)
    return np.asarray(u[:, 0]), TRUTH.cdf(np.asarray(state.position[:, 0], float)), rates


def distance(u):
    """The largest z-score of the mean, the variance and the median of what should be uniform."""
    scores = (
        (u.mean() - 1 / 2) / (1 / 12 / N) ** 0.5,
        (((u - 1 / 2) ** 2).mean() - 1 / 12) / (1 / 180 / N) ** 0.5,
        ((u < 1 / 2).mean() - 1 / 2) / (1 / 4 / N) ** 0.5,
    )
    return np.abs(scores).max()


def test_the_chains_keep_the_law_of_the_data_space():
    """8000 chains at exact draws, 20 moves, level 4 standard errors."""
    before, after, rates = probabilities()
    assert distance(after) < 4
    # They have moved: nothing is left of where they were.
    assert abs(np.corrcoef(before, after)[0, 1]) < 0.1
    assert 0.5 < float(rates[-1]) < 0.95


def test_a_chain_where_the_energy_is_steep_has_steps_of_its_own():
    """One chain of 64 is in a groove 2000 times narrower, where steps of the others are refused."""
    groove = 5.0

    def log_density(z):
        return jnp.where(z[0] < groove / 2, -(z[0] ** 2) / 2, -(((z[0] - groove) * 2000) ** 2) / 2)

    source = NeuralTransport(chains=64, leapfrog_steps=4, local_steps=1)
    rates, first = [], jnp.zeros((64, 1)).at[0].set(groove + 1e-4)
    chains, log_step_size = refresh(first, log_density), jnp.full(64, -0.7)
    moves = jax.jit(
        lambda key, chains, log_step_size: source.moves(key, chains, log_density, log_step_size)
    )
    for key in jax.random.split(jax.random.key(6), 200):
        chains, rate = moves(key, chains, log_step_size)
        log_step_size = jax.vmap(adapt_step_size)(log_step_size, rate)
        rates.append(rate)
    rates = jnp.stack(rates)
    assert float(rates[:20, 0].max()) < 0.01
    assert float(rates[-50:, 0].mean()) > 0.3
    assert float(log_step_size[1:].min()) > float(log_step_size[0]) + 4


def without_jacobian(model):
    """The density of the data's space at g(z): the classical mistake."""
    transform = paramax.unwrap(model.base).bijection.transform
    return lambda z: model.log_density(transform(z))


def jacobian_twice(model):
    bijection = paramax.unwrap(model.base).bijection
    return lambda z: latent_log_density(model)(z) + bijection.transform_and_log_det(z)[1]


def without_the_tilt(model):
    return model.base.base_dist.log_prob


MUTANTS = [without_jacobian, jacobian_twice, without_the_tilt]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_latent_density_is_caught(monkeypatch, mutant):
    monkeypatch.setattr(neural_transport, "latent_log_density", mutant)
    assert distance(probabilities()[1]) > 8


def test_a_base_without_a_latent_space_is_refused(key):
    mixture = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    with pytest.raises(InputError, match="base: GaussianMixture has no latent space"):
        SOURCE.init(key, mixture)
    with pytest.raises(InputError, match="leapfrog_steps: found 0"):
        NeuralTransport(leapfrog_steps=0)
