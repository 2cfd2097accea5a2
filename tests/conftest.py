"""Shared fixtures: explicit typed keys, and strict promotion so that no dtype slips in."""

import jax
import pytest


@pytest.fixture
def key():
    """A typed key with a fixed seed."""
    return jax.random.key(0)
