"""What a fit is begun with, so that nobody goes on with another one: arguments, data, programs."""

import hashlib
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from tiltflow.data.errors import InputError


def identify(
    parameters: dict[str, Any], columns: list[str], *arrays: np.ndarray | str | None
) -> dict[str, Any]:
    """What decides the bits of a fit, as JSON: the arguments, the data, and what computes.

    `arrays` are the data, by their digest, or the digest of data that is not held in memory.

    Raises:
        InputError: `parameters["random_state"]` is no whole number, so that nobody could go on.
    """
    seed = parameters.get("random_state")
    if not isinstance(seed, (int, np.integer)):
        raise InputError(
            f"random_state: found {seed!r}; give a whole number, without which a stopped fit "
            "cannot be gone on with"
        )
    data = hashlib.sha256()
    for array in arrays:
        if isinstance(array, str):
            data.update(array.encode())
            continue
        data.update(repr(None if array is None else (array.shape, array.dtype.str)).encode())
        data.update(b"" if array is None else np.ascontiguousarray(array).data)
    return {
        **{name: _plain(value) for name, value in sorted(parameters.items())},
        "columns": columns,
        "the data": data.hexdigest(),
        "tiltflow": version("tiltflow"),
        "jax": jax.__version__,
        "backend": jax.default_backend(),
        "float64": bool(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def check_same(given: dict[str, Any], stored: dict[str, Any], source: str) -> None:
    """Raise `InputError`, with what differs, unless a fit was begun with what is given now."""
    differ = [name for name in {**stored, **given} if given.get(name) != stored.get(name)]
    if differ:
        found = "; ".join(
            name
            if name in ("the data", "columns")
            else f"{name} was {stored.get(name)!r}, is {given.get(name)!r}"
            for name in differ
        )
        raise InputError(
            f"{source}: was begun otherwise ({found}); give what it was begun with, "
            "or another folder"
        )
