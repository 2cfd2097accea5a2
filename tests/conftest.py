"""Shared fixtures, and the compiler's settings: tests compile much and compute little."""

import os

# Set before JAX is imported; halves the time of the suite. Processes that tests start inherit it.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

import jax
import pytest


@pytest.fixture
def key():
    """A typed key with a fixed seed."""
    return jax.random.key(0)
