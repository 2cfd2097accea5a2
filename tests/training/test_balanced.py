"""Balanced negatives in the real loop: one compilation, a fixed base, chains that never freeze."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import Normal

from tiltflow.models.energies import MLPEnergy
from tiltflow.models.flows import coupling_flow, trainable
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.chains import refresh
from tiltflow.sampling.local import mala
from tiltflow.training.balanced import Balanced
from tiltflow.training.loop import Schedule, settle, train_energy

TRACES = []
SCHEDULE = Schedule(
    steps=40, chunk=10, learning_rate=0.1, batch_size=64, averaging=0.5, draws=512, patience=9
)
X = jnp.asarray(np.random.default_rng(0).normal(0.5, 0.8, (200, 2)))
KEY = jax.random.key(0)


@dataclass(frozen=True)
class Counted(Balanced):
    """The same source; it counts how often JAX traces it."""

    def draw(self, *args):
        TRACES.append(1)
        return super().draw(*args)


SOURCE = Counted(chains=64, local_steps=2)


def base_of(location):
    """Its location and scale are parameters that a careless gradient would reach."""
    return Normal(jnp.full(2, location), jnp.ones(2))


@eqx.filter_jit
def parts(seed_key, base):
    energy = MLPEnergy(2, width=8, depth=1, key=seed_key)
    return energy, coupling_flow(seed_key, base, layers=1, width=4, transformer="affine")


def train(seed, base, on_report=None):
    energy, flow = parts(jax.random.key(seed), base)
    return train_energy(KEY, energy, base, SOURCE, flow, X, X, SCHEDULE, on_report=on_report), flow


@pytest.fixture(scope="module")
def first():
    """One run; `traces` has their count after every chunk."""
    base, traces = base_of(0.0), []
    trained, flow = train(0, base, on_report=lambda report: traces.append(len(TRACES)))
    return trained, flow, base, traces


def arrays(tree):
    return jax.tree.leaves(eqx.filter(tree, eqx.is_array))


def test_the_chunk_is_compiled_once_for_all_runs_of_a_configuration(first):
    """Parameters are arguments: neither a later chunk nor another model traces it again."""
    *_, traces = first
    assert traces[0] > 0
    assert traces == [traces[0]] * 4
    after_first = len(TRACES)
    train(1, base_of(0.3))
    assert len(TRACES) == after_first


def test_settling_reuses_the_chunk_and_leaves_the_energy(first):
    trained, _, base, _ = first
    before, energy = len(TRACES), [np.array(leaf) for leaf in arrays(trained.energy)]
    state, acceptance_rate = settle(KEY, trained, base, SOURCE, X, SCHEDULE, chunks=2)
    assert len(TRACES) == before
    for leaf, kept in zip(arrays(trained.energy), energy):
        np.testing.assert_array_equal(leaf, kept)
    assert not np.array_equal(state.position, trained.source.position)
    moved = [not np.array_equal(a, b) for a, b in zip(*map(arrays, (state, trained.source)))]
    assert all(moved)
    assert 0 < acceptance_rate <= 1


def test_settling_gives_up_when_something_runs_away(first):
    trained, _, base, _ = first
    broken = jax.tree.map(lambda x: x * jnp.nan if eqx.is_array(x) else x, trained.energy)
    settled = settle(KEY, trained._replace(energy=broken), base, SOURCE, X, SCHEDULE, chunks=1)
    assert settled.source is trained.source
    assert np.isnan(settled.acceptance_rate)


def test_the_base_is_fixed_while_the_flow_on_the_same_base_learns(first):
    trained, flow, base, _ = first
    np.testing.assert_array_equal(base.loc, np.zeros(2))
    np.testing.assert_allclose(base.scale, np.ones(2), rtol=1e-6)
    scores = {report["base_held_out_log_likelihood"] for report in trained.reports}
    assert len(scores) == 1
    learnt = arrays(trained.source.flow.base_dist)
    start = arrays(trainable(flow)[0].base_dist)
    assert len(learnt) == 2
    assert all(not np.array_equal(a, b) for a, b in zip(learnt, start))


def test_the_chains_follow_the_model(first):
    """It learns: the held-out likelihood gains on the base, and the chains move to the data."""
    trained, *_ = first
    last = trained.reports[-1]
    assert last["held_out_log_likelihood"] > last["base_held_out_log_likelihood"] + 0.05
    assert trained.best_step > 0
    assert 0.1 < last["global_acceptance_rate"] <= 1
    assert 0.1 < last["local_acceptance_rate"] <= 1
    assert np.isfinite(arrays(trained.source)[0]).all()


@eqx.filter_jit
def one_draw(key, model, flow, state, rate):
    parameters, static = trainable(flow)
    state = state._replace(flow=parameters)
    return SOURCE.draw(key, model, static, state, X[:64], rate)


class Fence(eqx.Module):
    """An energy that is zero on the left and `height` beyond x_0 = 1."""

    height: jax.Array

    def __call__(self, x):
        return jnp.where(x[0] > 1, self.height, 0.0)


def test_draws_have_the_weights_and_the_figures_of_the_model():
    """At energy zero the flow is the base is the model: every proposal is taken."""
    base = flow = base_of(0.0)
    state = SOURCE.init(KEY, base, flow)
    model = TiltedEBM(base, Fence(jnp.zeros(())))
    negatives, new, info = one_draw(KEY, model, flow, state, jnp.asarray(1.0))
    assert info["global_acceptance_rate"] == pytest.approx(1, abs=1e-4)
    assert info["importance_ess"] == pytest.approx(1, abs=1e-4)
    assert info["proposal_log_z"] == pytest.approx(0, abs=1e-4)
    # Chains that always go leave their weight to the proposals, and are there afterwards.
    np.testing.assert_allclose(negatives.weights[:64], 0, atol=1e-6)
    np.testing.assert_allclose(negatives.weights[64:], 1 / 64, atol=1e-6)
    np.testing.assert_array_equal(negatives.position[64:], new.position)
    assert (negatives.position[:64] != state.position).any(axis=1).mean() > 0.5
    # Adam's first step is as long as the rate, whatever the gradient.
    steps = [np.abs(a - b).max() for a, b in zip(arrays(new.flow), arrays(state.flow))]
    assert max(steps) == pytest.approx(SOURCE.flow_learning_rate, rel=0.01)


def test_a_chain_where_the_model_is_not_a_number_comes_back():
    """flowjax maps a NaN log-density to -inf; neither may hold a chain where it is."""
    base = flow = base_of(0.0)
    state = SOURCE.init(KEY, base, flow)
    position = state.position.at[:8].set(jnp.array([2.0, 0.0]))
    state = state._replace(position=position)
    model = TiltedEBM(base, Fence(jnp.full((), jnp.nan) + jnp.zeros(())))
    for key in jax.random.split(KEY, 8):
        _, state, info = one_draw(key, model, flow, state, jnp.asarray(0.0))
    assert state.position[:8, 0].max() < 1
    assert info["global_acceptance_rate"] > 0.5


def test_no_negative_is_where_the_model_is_not_a_number():
    """Not even with weight zero: the gradient there would be none, and spoil the sum."""
    base = flow = base_of(0.0)
    state = SOURCE.init(KEY, base, flow)
    state = state._replace(position=state.position.at[:8].set(jnp.array([2.0, 0.0])))
    model = TiltedEBM(base, Fence(jnp.full((), jnp.nan)))
    negatives, state, _ = one_draw(KEY, model, flow, state, jnp.asarray(0.0))
    # A chain that is offered a bad place as well stays where it is, and is seen once more.
    stuck = state.position[:, 0] > 1
    assert stuck.sum() <= 4
    bad = np.asarray(negatives.position[:, 0] > 1).reshape(2, 64)
    assert not bad[:, ~stuck].any()
    assert float(negatives.weights.sum()) == pytest.approx(1, abs=1e-5)


def test_the_first_step_size_fits_the_narrowest_direction():
    """30 columns, one a thousandth as wide: a fixed first step has every move refused for good."""
    deviations = np.ones(30)
    deviations[3] = 1e-3
    base = GaussianMixture(np.ones(1), np.zeros((1, 30)), np.diag(deviations**2)[None])
    source = Balanced(chains=128)

    @eqx.filter_jit
    def first_moves(base):
        state = source.init(KEY, base, base)
        chains = refresh(state.position, base.log_prob)
        return state, mala(KEY, chains, base.log_prob, jnp.exp(state.log_step_size), 3)[1]

    state, rate = first_moves(base)
    assert 1e-7 < float(jnp.exp(state.log_step_size)) < 1e-5
    assert 0.3 < float(rate) <= 1
    # Where no direction is narrow, the step is the usual one.
    wide, _ = first_moves(GaussianMixture(np.ones(1), np.zeros((1, 30)), np.eye(30)[None]))
    np.testing.assert_allclose(jnp.exp(wide.log_step_size), 0.1 / 30 ** (1 / 3), rtol=1e-5)
