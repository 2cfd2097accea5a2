"""Directions of slices: orthogonal at every row, of one length, and with covariance one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.training.directions import orthogonal_directions


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_they_are_orthogonal_and_as_long_as_signs(slices):
    v = orthogonal_directions(jax.random.key(0), slices, jnp.zeros((50, 3)))
    products = np.einsum("ani,bni->nab", v, v)
    np.testing.assert_allclose(products, np.tile(3 * np.eye(slices), (50, 1, 1)), atol=1e-5)


@pytest.mark.parametrize("slices", [1, 2])
def test_their_covariance_is_one(slices):
    """Of 20 000 rows: 4.5 standard errors for each of six numbers; at half the length above 8."""
    v = orthogonal_directions(jax.random.key(1), slices, jnp.zeros((20_000, 3)))
    outer = np.asarray(v[-1][:, :, None] * v[-1][:, None, :], float)
    error = outer.std(axis=0) / np.sqrt(len(outer))
    assert (np.abs(outer.mean(axis=0) - np.eye(3)) < 4.5 * error).all()
    assert (np.abs(outer.mean(axis=0) / 4 - np.eye(3)) > 8 * error / 4).diagonal().all()


def test_more_than_coordinates_are_refused():
    with pytest.raises(InputError, match=r"slices: found 3 for rows of 2 coordinates"):
        orthogonal_directions(jax.random.key(0), 3, jnp.zeros((4, 2)))
