"""The count of operations, against counts by hand."""

import jax
import jax.numpy as jnp

from tiltflow.sampling.cost import operations


def test_a_matrix_product_counts_twice_its_multiplications():
    a, b = jnp.ones((3, 5)), jnp.ones((5, 7))
    assert operations(jnp.dot, a, b) == 2 * 3 * 5 * 7


def test_a_scan_counts_as_often_as_it_runs():
    a, x = jnp.ones((5, 5)), jnp.ones(5)

    def repeated(a, x):
        return jax.lax.scan(lambda x, _: (a @ x, None), x, length=10)[0]

    assert operations(repeated, a, x) == 10 * 2 * 5 * 5


def test_a_compiled_and_a_batched_function_count_as_what_they_do():
    x = jnp.ones((4, 6))
    assert operations(jax.jit(jnp.sin), x) == 24
    assert operations(jax.vmap(jnp.sin), x) == 24


def test_a_branch_counts_as_the_dearest():
    def either(x):
        return jax.lax.cond(x[0] > 0, lambda x: jnp.sin(jnp.cos(x)), lambda x: x, x)

    assert 12 <= operations(either, jnp.ones(6)) <= 12 + 4
