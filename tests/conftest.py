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


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled():
    """Every compiled function holds some memory maps, of which a process may have 65 530."""
    yield
    jax.clear_caches()


def pytest_addoption(parser):
    """One option, for what is too long for every change."""
    parser.addoption(
        "--real-training",
        action="store_true",
        help="let scikit-learn's checks of the estimator train (about an hour on two cores)",
    )
