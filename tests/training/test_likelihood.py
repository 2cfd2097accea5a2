"""The one likelihood step, by hand and by autodiff."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.models.energies import MLPEnergy
from tiltflow.training.likelihood import Negatives, likelihood_gradient


class Linear(eqx.Module):
    """E(x) = a . x, whose gradient in a is x."""

    a: jax.Array

    def __call__(self, x):
        return self.a @ x


BATCH = jnp.array([[1.0, 0.0], [3.0, 2.0]])
NEGATIVES = Negatives(jnp.array([[0.0, 1.0], [4.0, 0.0], [8.0, 8.0]]), jnp.array([0.5, 0.25, 0.25]))


def test_linear_energy_by_hand():
    gap, gradient = likelihood_gradient(Linear(jnp.array([2.0, -1.0])), BATCH, NEGATIVES)
    data_mean, model_mean = np.array([2.0, 1.0]), np.array([3.0, 2.5])
    np.testing.assert_allclose(gradient.a, data_mean - model_mean, rtol=1e-6)
    assert float(gap) == pytest.approx((data_mean - model_mean) @ [2.0, -1.0], rel=1e-6)


@pytest.mark.parametrize("x64", [False, True])
def test_network_energy_by_autodiff_of_the_mean_energies(x64):
    with jax.enable_x64(x64):
        energy = MLPEnergy(2, width=4, depth=1, key=jax.random.key(0))
        # Away from its start, where only the last layer has a gradient.
        energy = eqx.tree_at(
            lambda e: e.network.layers[-1].weight, energy, jnp.array([[1.0, -2.0, 0.5, 1.5]])
        )
        batch, negatives = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x), float), (BATCH, NEGATIVES)
        )

        def objective(energy):
            data = jax.vmap(energy)(batch).mean()
            return data - sum(w * energy(x) for w, x in zip(negatives.weights, negatives.position))

        gap, gradient = eqx.filter_jit(likelihood_gradient)(energy, batch, negatives)
        expected_gap, expected = eqx.filter_jit(eqx.filter_value_and_grad(objective))(energy)
    tolerance = 1e-12 if x64 else 1e-5
    np.testing.assert_allclose(gap, expected_gap, rtol=tolerance)
    for one, other in zip(*map(jax.tree.leaves, (gradient, expected))):
        assert one.dtype == (np.float64 if x64 else np.float32)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    assert np.abs(gradient.network.layers[0].weight).max() > 0.01


def test_a_step_down_lowers_the_energy_of_the_data_against_the_negatives():
    energy = Linear(jnp.zeros(2))
    _, gradient = likelihood_gradient(energy, BATCH, NEGATIVES)
    gap, _ = likelihood_gradient(Linear(energy.a - 0.1 * gradient.a), BATCH, NEGATIVES)
    assert gap < 0
