"""Shared fixtures: explicit typed keys."""

import jax
import pytest


@pytest.fixture
def key():
    """A typed key with a fixed seed."""
    return jax.random.key(0)
