"""What was compiled in the background is not compiled again, and what fails there is heard of."""

import equinox as eqx
import jax.numpy as jnp
import pytest

from tiltflow.training.ahead import CompileAhead


def test_a_program_is_traced_once(key):
    traces = []

    @eqx.filter_jit
    def program(x, power):
        traces.append(1)
        return (x**power).sum()

    with CompileAhead() as ahead:
        ahead.submit(program, jnp.zeros(7), 2).result()
        assert len(traces) == 1
        assert float(program(jnp.arange(7.0), 2)) == 91
    assert len(traces) == 1


def test_an_error_reaches_who_waits():
    @eqx.filter_jit
    def broken(x):
        raise RuntimeError("broken")

    with CompileAhead() as ahead, pytest.raises(RuntimeError, match="broken"):
        ahead.submit(broken, jnp.zeros(2)).result()
