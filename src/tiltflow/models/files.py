"""Saved models: `config.json` and `model.safetensors` in a folder; nothing is ever unpickled.

A module is stored as its arrays in tree order, under `name.0`, `name.1`, ...; reading fills a
module of the same configuration, and every shape and kind of number must match. The configuration
holds the digest of the arrays' file, so that two files that do not belong together, or a flipped
bit, are noticed (models written before there was one have none).
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tiltflow.data.errors import InputError, reason
from tiltflow.data.machine import check_room

FORMAT_VERSION = FIRST_RELEASED = 3
CONFIG_NAME, ARRAYS_NAME = "config.json", "model.safetensors"
DIGEST = "arrays_sha256"

Tree = TypeVar("Tree")


def tree_arrays(name: str, tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a module, in tree order, as `name.0`, `name.1`, ..."""
    leaves = jax.tree.leaves(eqx.filter(tree, _is_stored))
    return {f"{name}.{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


def fill_tree(name: str, template: Tree, arrays: dict[str, np.ndarray], source: str) -> Tree:
    """`template` with its arrays replaced by the stored ones, each in the template's precision.

    The template may be one of shapes alone, as `equinox.filter_eval_shape` makes it: so nothing is
    computed, and no memory taken, for what the files may not hold. NumPy arrays in it (float64
    preprocessing) stay NumPy arrays.

    Raises:
        InputError: an array is missing, or has another shape than the configuration says, or other
            than floating-point numbers where such belong (and so on).
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
        found = arrays[key].dtype
        if found.kind != np.dtype(leaf.dtype).kind:
            raise InputError(
                f"{source}: array '{key}' holds {found}, where {leaf.dtype} belongs; the file is "
                "damaged: fit the model anew"
            )
        with np.errstate(over="ignore"):  # float64 of a wider range than today's precision
            value = arrays[key].astype(leaf.dtype)
        if not isinstance(leaf, np.ndarray):
            # A count that was weakly typed stays so, or all that takes it is compiled once more.
            value = jnp.asarray(value.item() if leaf.weak_type and leaf.ndim == 0 else value)
        filled.append(value)
    return eqx.combine(jax.tree.unflatten(structure, filled), rest)


def write_model(folder: Path, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write both files, first beside their places, and then rename them; others are left alone.

    Raises `OSError` where there is no room or no right to; what was there is left as it was then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packed = save({name: np.array(array, order="C") for name, array in arrays.items()})
    about = {"format_version": FORMAT_VERSION, DIGEST: hashlib.sha256(packed).hexdigest()}
    contents = {
        ARRAYS_NAME: packed,
        CONFIG_NAME: json.dumps(about | config, indent=2).encode(),
    }
    write_durably({folder / name: content for name, content in contents.items()})


def write_durably(contents: Mapping[Path, bytes]) -> None:
    """Write whole files or none, which are on the disk when this returns.

    Raises `OSError` where there is no room or no right to; nothing is left behind then.
    """
    partial = {path: path.with_name(f".{path.name}.partial") for path in contents}
    try:
        for path, content in contents.items():
            with partial[path].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            os.replace(partial[path], path)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


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
        config = json.loads(config_path.read_bytes().decode())
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(
            f"{config_path}: cannot be read ({reason(error)}); fit the model anew"
        ) from None
    found = config.get("format_version") if isinstance(config, dict) else type(config).__name__
    if type(found) is not int or found != FORMAT_VERSION:
        mend = "use the version that wrote it"
        if type(found) is int and 0 < found < FIRST_RELEASED:
            mend = "formats before that were never released: fit the model anew"
        raise InputError(
            f"{config_path}: format version {found!r:.40}, this tiltflow reads {FORMAT_VERSION}; "
            f"{mend}"
        )
    try:
        check_room(2 * arrays_path.stat().st_size, str(arrays_path))
        content = arrays_path.read_bytes()
        if DIGEST in config and config[DIGEST] != hashlib.sha256(content).hexdigest():
            raise InputError(
                f"{arrays_path}: is not what {CONFIG_NAME} was written with (its SHA-256 is "
                "another); it is damaged or of another model: fit the model anew"
            )
        arrays = unpack_arrays(content)
    except InputError:
        raise
    except (ValueError, OSError, MemoryError) as error:
        raise InputError(
            f"{arrays_path}: cannot be read ({reason(error)}); fit the model anew"
        ) from None
    return config, arrays


def unpack_arrays(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name; `ValueError` where it is none, or damaged."""
    try:
        return load(content)
    except (SafetensorError, KeyError, TypeError) as error:  # KeyError: a type NumPy has not
        raise ValueError(reason(error)) from None


def _is_stored(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, jax.ShapeDtypeStruct))
