"""A continuous flow as base and as proposal of the balanced model, and as the sampler's flow."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import StandardNormal
from scipy.special import logsumexp

import tiltflow
from tiltflow.data.errors import InputError
from tiltflow.models.continuous import continuous_flow, continuous_flows, with_fixed_noise
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.integration import Integration
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.adaptive_sweeps import WarmUpSettings
from tiltflow.training.balanced import Balanced
from tiltflow.training.bases import Start
from tiltflow.training.density import fit_density
from tiltflow.training.loop import Schedule, train_energy

SCHEDULE = Schedule(steps=40, chunk=20, batch_size=64, draws=256)
X = jnp.asarray(np.random.default_rng(0).normal([1.0, 0.0], [0.5, 1.5], (256, 2)))
SETTINGS = WarmUpSettings(
    exploration_chunks=1, flow_chunks=1, chunk=8, local_steps=2, reservoir=512, batch=64
)


@pytest.fixture(scope="module")
def flow():
    """One whose field moves points, so that its trace is not zero, in three equal steps."""
    new = continuous_flow(
        jax.random.key(1), StandardNormal((2,)), widths=(4,), integration=Integration(steps=3)
    )
    weight = 0.7 * jax.random.normal(jax.random.key(2), (2, 4))
    return eqx.tree_at(
        lambda flow: continuous_flows(flow)[0].field.layers[-1].linear.weight, new, weight
    )


def test_draws_have_the_log_density_of_their_points(flow):
    """There and back are two solves: three steps of each agree to what acceptance can see."""
    look = eqx.filter_jit(lambda flow, key: flow.sample_and_log_prob(key, (64,)))
    x, log_prob = look(flow, jax.random.key(0))
    again = eqx.filter_jit(lambda flow, x: flow.log_prob(x))(flow, x)
    np.testing.assert_allclose(log_prob, again, atol=2e-3)
    assert np.abs(log_prob - StandardNormal((2,)).log_prob(x)).max() > 0.3


def test_it_serves_as_base_and_as_proposal(flow):
    """Its own draws are taken while the energy is small, and log Z is known by them."""
    trained = train_energy(
        jax.random.key(0),
        MLPEnergy(2, width=8, depth=1, key=jax.random.key(3)),
        flow,
        Balanced(chains=64, local_steps=2),
        flow,
        X,
        X[:64],
        SCHEDULE,
    )
    assert trained.stopped is None
    assert [report["step"] for report in trained.reports] == [20, 40]
    # At the start it is the model itself: only what the energy has learned is refused.
    rates = [report["global_acceptance_rate"] for report in trained.reports]
    assert rates[0] > 0.9 and min(rates) > 0.8
    # Energies are of either sign about zero, and the proposals' log Z is that of the model.
    model = TiltedEBM(flow, trained.energy)
    axis = np.linspace(-8, 8, 64)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2).astype(np.float32)
    look = eqx.filter_jit(lambda model, x: jax.vmap(model.log_density)(x))
    log_density = np.asarray(look(model, jnp.asarray(points)), float)
    log_z = logsumexp(log_density) + 2 * np.log(axis[1] - axis[0])
    assert trained.reports[-1]["log_z"] == pytest.approx(log_z, abs=0.05)


def test_fixed_noise_is_refused_as_base_and_as_proposal(flow):
    """Before anything is compiled: its log-density is not that of its draws."""
    noisy = with_fixed_noise(flow, jax.random.key(7), "rademacher")
    energy = MLPEnergy(2, width=8, depth=1, key=jax.random.key(3))
    source = Balanced(chains=64, local_steps=2)
    for name, base, proposal in (("base", noisy, flow), ("flow", flow, noisy)):
        key = jax.random.key(0)
        with pytest.raises(InputError, match=rf"^{name}: a continuous flow holds noise"):
            train_energy(key, energy, base, source, proposal, X, X[:64], SCHEDULE)
        start = Start(base, "flow", "", proposal, 0.0)
        with pytest.raises(InputError, match=rf"^start\.{name}: .*with_exact_trace"):
            fit_density(
                key, start, np.asarray(X), np.asarray(X[:64]), source=source, schedule=SCHEDULE
            )


def test_it_serves_the_sampler(flow):
    """Of a normal wider than it, which it is taught."""
    result = tiltflow.sample(
        lambda x: -0.5 * (x**2).sum(),
        np.random.default_rng(1).normal(size=(64, 2)).astype(np.float32),
        key=jax.random.key(0),
        num_samples=512,
        flow=flow,
        settings=SETTINGS,
    )
    assert len(continuous_flows(result.sampler.flow)) == 1
    assert result.log_z == pytest.approx(np.log(2 * np.pi), abs=4 * result.log_z_stderr)
    assert result.log_z_stderr < 0.05
    assert result.importance.ess > 0.3
