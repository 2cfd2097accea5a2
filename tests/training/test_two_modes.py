"""One training from end to end: two modes of 2 : 1, and the learned weight of one by quadrature."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
import pytest
from flowjax.bijections import Affine
from flowjax.distributions import Transformed

from tiltflow.data.mixtures import two_modes
from tiltflow.evaluation.quadrature import grid_around, mode_weights, normalise
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.gaussian_mixture import best_gaussian, small_mixture
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.balanced import Balanced
from tiltflow.training.loop import Schedule, train_energy
from tiltflow.training.persistent import Persistent

TARGET = two_modes()
SCHEDULE = Schedule(
    steps=400, chunk=100, learning_rate=5e-3, batch_size=256, averaging=0.98, draws=2048
)


@pytest.fixture(scope="module")
def data():
    """Rows, held-out rows and the labels of the former."""
    draw = eqx.filter_jit(TARGET.sample)
    x, held_out = draw(jax.random.key(0), 2000), draw(jax.random.key(1), 1000)
    return x, held_out, np.asarray(jax.jit(jax.vmap(TARGET.label))(x))


def learned_weight(base, energy, x):
    """The mass of label 1 under base times exp(-energy)."""
    grid = grid_around(np.asarray(x, float), cells=150)
    points = jnp.asarray(grid.points)
    log_density = eqx.filter_jit(lambda model, x: jax.vmap(model.log_density)(x))
    log_prob, _ = normalise(grid, np.asarray(log_density(TiltedEBM(base, energy), points)))
    labels = np.asarray(jax.jit(jax.vmap(TARGET.label))(points))
    return mode_weights(grid, log_prob, labels, 2)[1]


def test_balanced_training_gets_the_weight_of_the_mode(data):
    """Within 0.03 of the data's share. Unadjusted persistent chains are only reported."""
    x, held_out, labels = data
    rows, held_out_rows = np.asarray(x, float), np.asarray(held_out, float)
    base, *_ = best_gaussian(rows, held_out_rows)
    energy_key, key = jax.random.split(jax.random.key(2))
    energy = MLPEnergy(2, width=32, depth=2, key=energy_key)
    # An affine map of a mixture: the proposal that compiles most quickly.
    mixture = paramax.non_trainable(small_mixture(rows, seed=0))
    flow = Transformed(mixture, Affine(jnp.zeros(2), jnp.ones(2)))

    source = Balanced(chains=256, local_steps=5)
    trained = train_energy(key, energy, base, source, flow, x, held_out, SCHEDULE)
    assert trained.stopped is None
    weight = learned_weight(base, trained.energy, x)
    share = labels.mean()
    assert abs(share - 1 / 3) < 0.04
    assert abs(weight - share) < 0.03
    report = next(r for r in trained.reports if r["step"] == trained.best_step)
    # The truth's own likelihood of these rows is the most that can be had.
    truth = float(jax.jit(jax.vmap(TARGET.log_prob))(held_out).mean())
    assert truth - 0.15 < report["held_out_log_likelihood"] < truth + 0.05

    persistent = Persistent(chains=256, local_steps=5, step_size=0.01)
    other = train_energy(key, energy, base, persistent, None, x, None, SCHEDULE)
    other_weight = learned_weight(base, other.energy, x)
    print(f"data {share:.3f}, balanced {weight:.3f}, persistent ULA {other_weight:.3f}")
