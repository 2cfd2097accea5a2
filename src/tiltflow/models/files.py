"""Saved models: `config.json` and `model.safetensors` in a folder; nothing is ever unpickled.

A module is stored as its arrays in tree order, under `name.0`, `name.1`, ...; reading fills a
freshly built module of the same configuration, and every shape must match.
"""

import json
import os
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from tiltflow.data.errors import InputError

FORMAT_VERSION = 3
CONFIG_NAME, ARRAYS_NAME = "config.json", "model.safetensors"

Tree = TypeVar("Tree")


def tree_arrays(name: str, tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a module, in tree order, as `name.0`, `name.1`, ..."""
    leaves = jax.tree.leaves(eqx.filter(tree, _is_stored))
    return {f"{name}.{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


def fill_tree(name: str, template: Tree, arrays: dict[str, np.ndarray], source: str) -> Tree:
    """`template` with its arrays replaced by the stored ones, each in the template's precision.

    NumPy arrays in the template (float64 preprocessing) stay NumPy arrays.

    Raises:
        InputError: an array is missing, or has another shape than the configuration says.
    """
    kept, rest = eqx.partition(template, _is_stored)
    leaves, structure = jax.tree.flatten(kept)
    filled = []
    for i, leaf in enumerate(leaves):
        key = f"{name}.{i}"
        if key not in arrays:
            raise InputError(f"{source}: array '{key}' is missing; the model is not complete")
        if arrays[key].shape != leaf.shape:
            raise InputError(
                f"{source}: array '{key}' has shape {arrays[key].shape}, {CONFIG_NAME} asks for "
                f"{leaf.shape}; the two files do not belong together"
            )
        value = arrays[key].astype(leaf.dtype)
        if isinstance(leaf, jax.Array):
            # A count that was weakly typed stays so, or all that takes it is compiled once more.
            value = jnp.asarray(value.item() if leaf.weak_type and leaf.ndim == 0 else value)
        filled.append(value)
    return eqx.combine(jax.tree.unflatten(structure, filled), rest)


def write_model(folder: Path, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write both files, each first beside its place and then renamed; others are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        ARRAYS_NAME: save({name: np.array(array, order="C") for name, array in arrays.items()}),
        CONFIG_NAME: json.dumps({"format_version": FORMAT_VERSION, **config}, indent=2).encode(),
    }
    for name, content in contents.items():
        write_durably(folder / name, content)


def write_durably(path: Path, content: bytes) -> None:
    """Write a whole file or none, which is on the disk when this returns.

    Raises `OSError` where there is no room or no right to; nothing is left behind then.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read both files.

    Raises:
        InputError: the folder or a file is missing or damaged, or of another format version.
    """
    config_path, arrays_path = folder / CONFIG_NAME, folder / ARRAYS_NAME
    for path in (config_path, arrays_path):
        if not path.is_file():
            raise InputError(f"{folder}: {path.name} is not there; name a folder that fit has made")
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{config_path}: cannot be read ({error}); fit the model anew") from None
    if not isinstance(config, dict) or config.get("format_version") != FORMAT_VERSION:
        found = config.get("format_version") if isinstance(config, dict) else type(config).__name__
        raise InputError(
            f"{config_path}: format version {found!r}, this tiltflow reads {FORMAT_VERSION}; "
            "use the version that wrote it"
        )
    try:
        arrays = load_file(arrays_path)
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(f"{arrays_path}: cannot be read ({error}); fit the model anew") from None
    return config, arrays


def _is_stored(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray))
