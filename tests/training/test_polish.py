"""The polished last layer: it must find weights that training left wrong."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.mixtures import two_modes
from tiltflow.evaluation.log_normalizer import normalised_weights
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.recording import weigh_draws
from tiltflow.training import polish as module
from tiltflow.training.polish import polish


@pytest.fixture(scope="module")
def spoiled():
    """A base with the right modes and the wrong weights, .5 and .5; data with 2/3 and 1/3."""
    target = two_modes()
    x = target.sample(jax.random.key(0), 6000)
    covariances = np.broadcast_to(0.05 * np.eye(2), (2, 2, 2))
    base = GaussianMixture(np.array([0.5, 0.5]), np.asarray(target.means, dtype=float), covariances)
    energy = MLPEnergy(2, width=16, depth=2, key=jax.random.key(1))
    return x[1000:], x[:1000], TiltedEBM(base, energy), base


def test_weights_come_right(spoiled):
    x, held_out, model, base = spoiled
    polished = polish(jax.random.key(2), model, base, x, held_out, draws=16_384)
    y, log_weights = weigh_draws(
        jax.random.key(3), TiltedEBM(base, polished.energy).log_density, base, 16_384
    )
    share = float(normalised_weights(log_weights) @ (y[:, 0] > 0.5))
    assert share == pytest.approx(float((x[:, 0] > 0.5).mean()), abs=0.015)
    # KL between the two weightings: .6667 log(.6667/.5) + .3333 log(.3333/.5) = 0.0566 nats.
    assert polished.gain == pytest.approx(0.0566, abs=0.02)


def test_held_out_rows_help_once_they_have_chosen(spoiled):
    """One held-out row in ten is at the mode that has a third of the others: all count alike."""
    x, held_out, model, base = spoiled
    top = held_out[:, 0] > 0.5
    few = jnp.concatenate([held_out[~top][:540], held_out[top][:60]])
    polished = polish(jax.random.key(2), model, base, x, few, draws=65_536)
    y, log_weights = weigh_draws(
        jax.random.key(3), TiltedEBM(base, polished.energy).log_density, base, 65_536
    )
    share = float(normalised_weights(log_weights) @ (y[:, 0] > 0.5))
    of_all = jnp.concatenate([x, few])
    # Of the training rows alone the share is .024 higher; the draws leave a deviation of .003.
    assert share == pytest.approx(float((of_all[:, 0] > 0.5).mean()), abs=0.01)
    assert polished.flattery > 0


@pytest.mark.parametrize("when", [0, 1], ids=["of the training rows", "of all rows"])
def test_a_solution_that_is_not_a_number_is_never_taken(spoiled, monkeypatch, when):
    """A table of colours once had all of its densities nan: what could not be compared was kept."""
    x, held_out, model, base = spoiled
    calls = []

    def broken(*arguments):
        weights, directions = solve(*arguments)
        calls.append(None)
        return weights * jnp.nan if when == 0 or len(calls) == 2 else weights, directions

    solve = module._solve
    monkeypatch.setattr(module, "_solve", broken)
    polished = polish(jax.random.key(2), model, base, x, held_out, draws=4096)
    assert (
        np.isfinite(polished.energy(x[0])) and np.isfinite([polished.gain, polished.flattery]).all()
    )
    # The first time the weights of modes are tried by themselves, in vain.
    assert len(calls) == 2 and (polished.damping is None) == (when == 0)


def test_weights_of_modes_come_right_where_held_out_rows_object_to_all_else(spoiled, monkeypatch):
    """As in d = 256, where to solve for all of the last layer loses .013 nats."""
    x, held_out, model, base = spoiled
    seen = []

    def compare(key, of_base, candidate, other, flow, rows, draws):
        found = compare_on_held_out(key, of_base, candidate, other, flow, rows, draws)
        seen.append(found)
        # All dampings of the whole last layer.
        return found | {"gain": -1.0} if len(seen) <= len(module.DAMPINGS) else found

    compare_on_held_out = module.compare_on_held_out
    monkeypatch.setattr(module, "compare_on_held_out", compare)
    polished = polish(jax.random.key(2), model, base, x, held_out, draws=16_384)
    assert polished.of_modes
    y, log_weights = weigh_draws(
        jax.random.key(3), TiltedEBM(base, polished.energy).log_density, base, 16_384
    )
    share = float(normalised_weights(log_weights) @ (y[:, 0] > 0.5))
    assert share == pytest.approx(float((x[:, 0] > 0.5).mean()), abs=0.015)
    # The last layer moved along one direction: of two shares that add up to one.
    change = polished.energy.network.layers[-1].weight - model.energy.network.layers[-1].weight
    (direction, _) = module._mode_directions(model.energy, base, x).T
    cosine = change[0] @ direction / jnp.linalg.norm(change) / jnp.linalg.norm(direction)
    assert abs(float(cosine)) == pytest.approx(1.0, abs=1e-3)


def test_one_gaussian_has_no_weights_of_modes(spoiled):
    x, _, model, base = spoiled
    one = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    assert module._mode_directions(model.energy, one, x) is None
    assert module._mode_directions(model.energy, base, x).shape == (16, 2)
    # Ten rows say too little of a share.
    assert module._mode_directions(model.energy, base, x[:10]) is None


def test_nothing_changes_where_nothing_is_gained(spoiled):
    """Held-out rows that contradict the training rows: every candidate loses, none is kept."""
    x, _, model, base = spoiled
    contrary = x[x[:, 0] > 0.5][:500]
    polished = polish(jax.random.key(2), model, base, x, contrary, draws=8192)
    assert polished.damping is None and polished.gain == 0
    assert eqx.tree_equal(polished.energy, model.energy)


@pytest.mark.parametrize("steepness", [0.0, 20.0])
def test_mass_far_from_all_rows_and_draws_is_found(monkeypatch, steepness):
    """E = -.3 x - 20 max(0, x - 6): right for the rows, with all of the mass at x = 20."""
    base = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    rows = np.random.default_rng(0).normal(size=(2000, 2)) + np.array([0.3, 0.0])
    x, held_out = jnp.asarray(rows[500:]), jnp.asarray(rows[:500])
    energy = MLPEnergy(2, width=2, depth=1, activation=jax.nn.relu, key=jax.random.key(1))
    energy = eqx.tree_at(
        lambda it: (it.network.layers[0].weight, it.network.layers[0].bias),
        energy,
        (jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([-6.0, 6.0])),
    )
    weights = jnp.tile(jnp.array([-steepness, -0.3]), (len(module.DAMPINGS), 1))
    directions = jnp.ones(len(module.DAMPINGS))
    monkeypatch.setattr(module, "_solve", lambda *arguments: (weights, directions))
    polished = polish(jax.random.key(2), TiltedEBM(base, energy), base, x, held_out, draws=8192)
    assert (polished.damping is None) == (steepness > 0)


def test_only_the_last_weight_changes(spoiled):
    x, held_out, model, base = spoiled
    polished = polish(jax.random.key(2), model, base, x, held_out, draws=8192)
    before, after = model.energy.network.layers, polished.energy.network.layers
    assert all(jnp.array_equal(a.weight, b.weight) for a, b in zip(before[:-1], after[:-1]))
    assert not jnp.array_equal(before[-1].weight, after[-1].weight)


@pytest.mark.parametrize(("cost", "damping"), [(np.inf, -1), (0.0, 0)])
def test_the_lightest_damping_whose_noise_is_negligible_is_tried_first(
    spoiled, monkeypatch, cost, damping
):
    """Held-out rows that see no difference: all then depends on what the rows allow."""
    x, held_out, model, base = spoiled
    same = {"gain": 0.0, "gain_stderr": 0.0, "clear": True}
    monkeypatch.setattr(module, "compare_on_held_out", lambda *arguments: same)
    monkeypatch.setattr(module, "NEGLIGIBLE_COST", cost)
    polished = polish(jax.random.key(2), model, base, x, held_out, draws=8192)
    assert polished.damping == module.DAMPINGS[damping]


def test_a_lighter_damping_fits_more_directions(spoiled):
    x, _, model, base = spoiled
    weighed = weigh_draws(jax.random.key(2), model.log_density, base, 8192)
    mean = module._mean_features(model.energy, x)
    _, directions = module._solve(model, mean, *weighed)
    assert (np.diff(directions) > 0).all()
    assert directions[0] > 0 and directions[-1] < 16
