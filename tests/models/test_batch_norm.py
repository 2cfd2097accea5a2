"""Batch normalisation: the formula both ways, the running statistics, what is trained."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.models.batch_norm import (
    DECAY,
    EPSILON,
    BatchNorm,
    RunningStatistics,
    running_statistics,
    with_statistics,
)
from tiltflow.models.flows import trainable

X = jnp.asarray(np.random.default_rng(0).normal([3.0, -1.0], [2.0, 0.5], (400, 2)), jnp.float32)


@pytest.fixture
def norm():
    norm = eqx.tree_at(
        lambda it: (it.log_scale, it.shift), BatchNorm(2), (jnp.array([0.2, -0.4]), jnp.ones(2))
    )
    return with_statistics(norm, [RunningStatistics(jnp.array([1.0, 2.0]), jnp.array([4.0, 0.3]))])


def test_both_directions_undo_each_other_with_the_jacobian_of_autodiff(norm):
    x = X[0]
    z, log_det = norm.inverse_and_log_det(x)
    back, back_log_det = norm.transform_and_log_det(z)
    np.testing.assert_allclose(back, x, rtol=1e-5)
    jacobian = jax.jacfwd(lambda x: norm.inverse_and_log_det(x)[0])(x)
    assert float(log_det) == pytest.approx(float(jnp.linalg.slogdet(jacobian)[1]), rel=1e-5)
    assert float(back_log_det) == pytest.approx(-float(log_det), rel=1e-6)


def test_running_statistics_come_to_those_of_the_data():
    norm = BatchNorm(2)
    for _ in range(100):
        z, log_det, statistics = norm.normalise_batch(X)
        norm = with_statistics(norm, [statistics])
    (statistics,) = running_statistics(norm)
    np.testing.assert_allclose(statistics.mean.tree, X.mean(0), rtol=1e-3)
    np.testing.assert_allclose(statistics.variance.tree, X.var(0), rtol=1e-3)
    np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-3)
    np.testing.assert_allclose(z.std(0), 1.0, atol=1e-3)
    assert float(log_det) == pytest.approx(
        -0.5 * float(jnp.log(X.var(0) + EPSILON).sum()), abs=1e-3
    )


def test_a_batch_is_normalised_by_the_average_that_is_then_kept(norm):
    z, log_det, statistics = norm.normalise_batch(X)
    expected = DECAY * 4.0 + (1 - DECAY) * float(X[:, 0].var())
    assert float(statistics.variance[0]) == pytest.approx(expected, rel=1e-5)
    after = with_statistics(norm, [statistics])
    again, log_det_again = jax.vmap(after.inverse_and_log_det)(X)
    np.testing.assert_allclose(z, again, atol=1e-5)
    assert float(log_det) == pytest.approx(float(log_det_again[0]), rel=1e-5)


def test_gradients_reach_scale_and_shift_and_not_the_statistics(norm):
    parameters, _ = trainable(norm)
    assert [leaf.shape for leaf in jax.tree.leaves(parameters)] == [(2,), (2,)]

    # Through the batch's share of the statistics a common shift of all rows changes little.
    def first(shift):
        return norm.normalise_batch(X + shift)[0][:, 0].mean()

    slope = jax.grad(first)(jnp.asarray(0.0))
    deviation = np.sqrt(DECAY * 4.0 + (1 - DECAY) * float(X[:, 0].var()) + EPSILON)
    assert float(slope) == pytest.approx(DECAY * np.exp(0.2) / deviation, rel=1e-4)
