"""An energy flow as base and as proposal of the balanced energy-based model."""

import jax
import jax.numpy as jnp
import numpy as np

from tiltflow.models.energies import MLPEnergy
from tiltflow.models.energy_flow_architectures import coupled_energy_flow
from tiltflow.training import loop
from tiltflow.training.balanced import Balanced
from tiltflow.training.loop import Schedule, train_energy

SCHEDULE = Schedule(steps=40, chunk=20, batch_size=64, draws=256)
SOURCE = Balanced(chains=64, local_steps=2)
X = jnp.asarray(np.random.default_rng(0).normal([1.0, 0.0], [0.5, 1.5], (256, 2)))


def train(seed):
    base, flow = (
        coupled_energy_flow(jax.random.key(seed + i), 2, blocks=1, width=4) for i in (10, 20)
    )
    energy = MLPEnergy(2, width=8, depth=1, key=jax.random.key(seed))
    return train_energy(jax.random.key(seed), energy, base, SOURCE, flow, X, X[:64], SCHEDULE)


def test_it_serves_as_both_and_another_one_is_not_compiled_anew(monkeypatch):
    traces = []
    original = loop.energy_gradient
    monkeypatch.setattr(
        loop, "energy_gradient", lambda *args: (traces.append(1), original(*args))[1]
    )
    trained = train(0)
    first = len(traces)
    assert trained.stopped is None
    reports = trained.reports
    assert [report["step"] for report in reports] == [20, 40]
    assert all(0.3 < report["global_acceptance_rate"] <= 1 for report in reports)
    # The energy starts at zero on two different rotations of one normal: log Z is near 0.
    assert abs(reports[0]["proposal_log_z"]) < 0.3
    train(1)
    assert len(traces) == first > 0
