"""Fields that are each point's own: against the matrices written out, and integrated in a batch."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.models.amortised_vector_field import (
    AmortisedField,
    changes_of,
    numbers_of_changes,
)
from tiltflow.models.integration import Integration, integrate
from tiltflow.models.vector_fields import ConcatSquashField

D, N, RANK = 3, 4, 2


@pytest.fixture(scope="module")
def shared():
    field = ConcatSquashField(D, (5, 4), key=jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape), field)


@pytest.fixture(scope="module")
def own(shared):
    return 0.4 * jax.random.normal(jax.random.key(1), (N, numbers_of_changes(shared, RANK)))


def written_out(shared, flat):
    """The plain field with W + U V^T and b + c in every layer."""
    changes = changes_of(flat, shared, RANK)
    weights = lambda it: [layer.linear.weight for layer in it.layers]  # noqa: E731
    biases = lambda it: [layer.linear.bias for layer in it.layers]  # noqa: E731
    new = [w + c.left @ c.right.T for w, c in zip(weights(shared), changes)]
    field = eqx.tree_at(weights, shared, new)
    return eqx.tree_at(biases, field, [b + c.bias for b, c in zip(biases(shared), changes)])


def test_a_point_sees_the_matrices_with_their_change(shared, own):
    x, t = jnp.array([0.3, -1.0, 0.8]), jnp.asarray(0.4)
    field = AmortisedField(shared, changes_of(own[0], shared, RANK))
    expected = written_out(shared, own[0])
    np.testing.assert_allclose(field(t, x), expected(t, x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(field.enter(t, x), expected.enter(t, x), rtol=1e-4, atol=1e-5)
    assert jnp.abs(field(t, x) - shared(t, x)).max() > 0.05


def test_every_number_is_used_once(shared, own):
    changes = changes_of(own, shared, RANK)
    used = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(changes)])
    np.testing.assert_array_equal(np.sort(used), np.sort(np.asarray(own).ravel()))


def test_a_batch_moves_every_point_along_its_own_field(shared, own):
    """Mutant: all points along the field of the first."""
    x = jax.random.normal(jax.random.key(2), (N, D))
    field = AmortisedField(shared, changes_of(own, shared, RANK))
    half, steps = jnp.asarray(0.5), Integration(steps=4)

    @eqx.filter_jit
    def batch(field, x):
        return integrate(
            field, half, x, jnp.eye(D), steps, towards="data", field_axes=field.axes
        ).end

    @eqx.filter_jit
    def alone(field, x):
        return integrate(field, half, x[None], jnp.eye(D), steps, towards="data").end

    end = batch(field, x)
    for i in range(N):
        expected = alone(written_out(shared, own[i]), x[i])
        np.testing.assert_allclose(end.x[i], expected.x[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(end.log_det[i], expected.log_det[0], rtol=1e-4, atol=1e-5)
    wrong = alone(written_out(shared, own[0]), x[1])
    assert jnp.abs(end.x[1] - wrong.x[0]).max() > 0.01


def test_a_rank_that_is_not_positive_is_refused(shared):
    with pytest.raises(InputError, match="rank"):
        numbers_of_changes(shared, 0)
