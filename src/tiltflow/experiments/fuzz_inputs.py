"""Everything that tiltflow reads: whole inputs of each kind, how they are damaged, their readers.

A reader gets the folder of an input and reads it as the product does. It may return, or raise
`InputError`; whatever else it does is a failure of the product.
"""

import gzip
import io
import json
import struct
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tiltflow.data.table_kinds import EXTENSIONS
from tiltflow.data.table_writing import write_table
from tiltflow.data.tables import as_frame, read_features
from tiltflow.experiments.mangled_files import (
    Files,
    Mangle,
    mangle_checkpoints,
    mangle_csv,
    mangle_csv_gz,
    mangle_frame,
    mangle_h5,
    mangle_idx,
    mangle_model,
    mangle_npy_file,
    mangle_npz,
    mangle_run,
    one_file,
)
from tiltflow.experiments.mangling import mangle_json_lines

IDENTITY = {"chains": 2, "the data": "abc"}


@dataclass(frozen=True)
class Kind:
    """One kind of input. `read` imports what it needs, so that tables do not wait for JAX."""

    whole: Callable[[], Files]
    mangle: Callable[[np.random.Generator, Files], Files]
    read: Callable[[Path], Any]


def files_of(write: Callable[[Path], Any]) -> Files:
    """The files that a function writes into a folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def put(folder: Path, files: Files) -> None:
    """Write the files of an input into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _table(extension: str) -> Files:
    rows = np.random.default_rng(0).normal(size=(30, 2))
    columns = {"mass": rows[:, 0], "b": rows[:, 1].round(2)}
    if extension in (".csv", ".csv.gz", ".parquet", ".arrow", ".feather", ".ndjson"):
        columns["kind"] = np.array(["p", "q"] * 15, dtype=object)
    return files_of(lambda folder: write_table(folder / f"table{extension}", columns))


def _read_table(extension: str, folder: Path) -> None:
    from tiltflow.data.schema import find_schema

    path = folder / f"table{extension}"
    features, _ = read_features(path)
    find_schema(as_frame(features), None, str(path))


def _table_kind(extension: str, mangle: Mangle) -> Kind:
    return Kind(
        lambda: _table(extension),
        one_file(mangle),
        lambda folder: _read_table(extension, folder),
    )


def _zeros(make: Callable[..., Any], *arguments: Any) -> Any:
    """What a function makes, with zeros for its numbers: nothing is compiled for them."""
    import equinox as eqx
    import jax

    return jax.tree.map(
        lambda leaf: (
            np.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf
        ),
        eqx.filter_eval_shape(make, *arguments),
    )


def model_files() -> Files:
    """A model of two columns that nobody has trained; reading it is reading any model."""
    import jax

    from tiltflow.data.preprocessing import fit_preprocessing
    from tiltflow.estimator_files import FIGURES
    from tiltflow.models.energies import MLPEnergy
    from tiltflow.models.files import tree_arrays, write_model
    from tiltflow.models.flows import bounded_relu
    from tiltflow.models.gaussian_mixture import mixture_template
    from tiltflow.training.bases import describe_densities, untaught_proposal
    from tiltflow.versions import installed_versions

    rows = np.random.default_rng(0).normal(size=(20, 2))
    base = mixture_template(2, 2)
    make_flow = partial(untaught_proposal, activation=bounded_relu)
    flow = _zeros(make_flow, jax.random.key(0), base)
    energy = MLPEnergy(2, width=4, depth=1, key=jax.random.key(1))
    config = {
        "parameters": {
            "base": "mixture",
            "categorical_features": None,
            "chains": 32,
            "contamination": 0.05,
            "energy_depth": 1,
            "energy_width": 4,
            "preprocessing": "standardise",
            "random_state": None,
            "validation_fraction": 0.15,
        },
        "columns": ["mass", "kind"],
        "levels": {"kind": ["p", "q"]},
        "base": "mixture: 2 components",
        **describe_densities(base, flow),
        "preprocessing": "standardise",
        "local_steps": 2,
        "best_step": 100,
        "earlier_energies": 1,
        "ladder": False,
        "stopped": None,
        "versions": installed_versions(),
        "verdict": {"status": "doubtful", "reasons": ["R-hat"], "figures": {"rhat": 1.2}},
        **dict.fromkeys(FIGURES, 0.5),
        "offset": -3.0,
        "metrics": [{"stage": "energy", "step": 100, "held_out_log_likelihood": -2.5}],
    }
    arrays = {
        "quanta": np.array([0.0, 1.0]),
        "origin": np.zeros(2),
        "rows": np.column_stack([rows[:, 0], np.arange(20) % 2]),
        "step_size": np.asarray(0.1, np.float32),
    }
    modules = {
        "preprocessing": fit_preprocessing(rows, "standardise"),
        "base": base,
        "energy": energy,
        "flow": flow,
        "earlier_0": energy,
    }
    for name, tree in modules.items():
        arrays |= tree_arrays(name, tree)
    return files_of(lambda folder: write_model(folder, config, arrays))


def _read_model(folder: Path) -> None:
    from tiltflow.estimator import load

    estimator = load(folder)
    with np.errstate(all="ignore"):  # numbers that are damaged give figures that are none
        estimator._log_prob(estimator._kept_rows[:1])


def _flow_files(kind: str, **settings: Any) -> Files:
    import jax

    from tiltflow.models.flow_files import Architecture, save_flow

    architecture = Architecture(kind, settings)
    flow = _zeros(architecture.make, jax.random.key(0))
    return files_of(lambda folder: save_flow(folder, architecture, flow))


def _read_flow(folder: Path) -> None:
    from tiltflow.models.flow_files import load_flow

    load_flow(folder)


def _flow_kind(kind: str, **settings: Any) -> Kind:
    return Kind(lambda: _flow_files(kind, **settings), mangle_model, _read_flow)


def _carried(value: float) -> dict[str, Any]:
    import jax.numpy as jnp

    return {"weights": jnp.full((2, 3), value), "count": jnp.asarray(3), "mean": np.full(2, value)}


def _checkpoint_files() -> Files:
    from tiltflow.training.checkpoints import Checkpoints

    def write(folder: Path) -> None:
        with Checkpoints(folder / "run", seconds=0) as checkpoints:
            checkpoints.begin(IDENTITY)
            for value in (1.0, 2.0):
                checkpoints.stage("base").done(_carried(value), {"reports": [], "best": value})
        (folder / "run" / "checkpoints" / "lock").unlink()

    return files_of(write)


def _read_checkpoints(folder: Path) -> None:
    from tiltflow.training.checkpoints import Checkpoints

    with Checkpoints(folder / "run", resume=True) as checkpoints, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged one is told of, and the one before is taken
        checkpoints.begin(IDENTITY)
        saved = checkpoints.stage("base").saved()
        if saved is not None:
            saved.fill(_carried(0.0))


def _run_files() -> Files:
    figures = {"held_out_log_likelihood": -2.5, "gain": 0.1, "log_z": None}
    reports = [
        {"stage": "proposal", "step": 100, "total_steps": 4000, **figures},
        {"stage": "energy", "step": 100, "total_steps": 400, **figures},
        {"stage": "energy", "event": "rollback", "step": 150, "reason": "gap"},
        {"stage": "energy", "step": 200, "total_steps": 400, **figures},
        {"stage": "report"},
    ]
    verdict = {"status": "doubtful", "reasons": ["R-hat"], "figures": {}}
    return {
        "metrics.jsonl": "".join(json.dumps(each) + "\n" for each in reports).encode(),
        "config.json": json.dumps({"verdict": verdict}).encode(),
        "report.html": b"<title>the report</title>",
    }


def _read_run(folder: Path) -> None:
    from tiltflow.report.watch import read_state

    json.dumps(read_state(folder), allow_nan=False).encode()


def _cell(seed: int) -> Any:
    from tiltflow.experiments.cells import Cell

    return Cell("two-modes", "plane", "pcd", "mala", seed, "equal", (1, 0.5), 3.0, lambda *_: {})


def _cells_files() -> Files:
    lines = [
        _cell(seed).about | {"cell_seconds": 1.5, "figures": {"mass": 0.3, "log_z": "nan"}}
        for seed in range(3)
    ]
    return {"cells.jsonl": "".join(json.dumps(each) + "\n" for each in lines).encode()}


def _read_cells(folder: Path) -> None:
    from tiltflow.experiments.cells import expected_time, find_line, read_cells

    lines = read_cells(folder)
    find_line(lines, _cell(1).about)
    expected_time([_cell(2), _cell(3)], lines)


def _images() -> Files:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 4, 4), np.uint8)
    content = b"\0\0\x08\3" + struct.pack(">III", *pixels.shape) + pixels.tobytes()
    return {"images.gz": gzip.compress(content, mtime=0)}


def _read_images(folder: Path) -> None:
    from tiltflow.data.idx import read_idx

    read_idx(folder / "images.gz")


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _flow_table(name: str) -> Files:
    rows = np.random.default_rng(0).normal(size=(60, 43))
    if name == "POWER":
        return {"power/data.npy": _npy(rows[:, :8])}
    if name == "MINIBOONE":
        return {"miniboone/data.npy": _npy(rows)}
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for part in ("train", "validation", "test"):
            file[part] = rows[:20, :6]
    return {"BSDS300/BSDS300.hdf5": stream.getvalue()}


def _flow_table_kind(name: str, mangle: Mangle) -> Kind:
    def read(folder: Path) -> None:
        from tiltflow.data.flow_tables import load_flow_table

        # Numbers that are damaged give figures that are none; that is no matter of reading.
        with np.errstate(all="ignore"):
            load_flow_table(name, folder)

    return Kind(lambda: _flow_table(name), one_file(mangle), read)


def _stand_in_files() -> Files:
    rows = np.random.default_rng(0).integers(0, 255, (60, 8, 8), np.uint8)
    stream = io.BytesIO()
    np.savez(stream, train=rows[:40], val=rows[40:50], test=rows[50:])
    return {"bsds300_patches8_uint8.npz": stream.getvalue()}


def _read_stand_in(folder: Path) -> None:
    from tiltflow.data.stand_in_tables import load_stand_in

    with np.errstate(all="ignore"):
        load_stand_in("BSDS300 patches", folder)


FRAMES: dict[str, Callable[..., Any]] = {
    ".parquet": lambda frame, stream: frame.write_parquet(stream),
    ".arrow": lambda frame, stream: frame.write_ipc(stream),
    ".feather": lambda frame, stream: frame.write_ipc(stream, compression="lz4"),
}
TABLE_DAMAGES: dict[str, Mangle] = {
    ".csv": mangle_csv,
    ".csv.gz": mangle_csv_gz,
    **{extension: mangle_frame(write) for extension, write in FRAMES.items()},
    ".npy": mangle_npy_file,
    ".npz": mangle_npz,
    ".ndjson": mangle_json_lines,
    ".h5": mangle_h5,
}
KINDS: dict[str, Kind] = {
    **{name: _table_kind(name, TABLE_DAMAGES[name]) for name in EXTENSIONS},
    "images": Kind(_images, one_file(mangle_idx), _read_images),
    "POWER": _flow_table_kind("POWER", mangle_npy_file),
    "MINIBOONE": _flow_table_kind("MINIBOONE", mangle_npy_file),
    "BSDS300": _flow_table_kind("BSDS300", mangle_h5),
    "patches": Kind(_stand_in_files, one_file(mangle_npz), _read_stand_in),
    "run": Kind(_run_files, mangle_run, _read_run),
    "cells": Kind(_cells_files, one_file(mangle_json_lines), _read_cells),
    "checkpoints": Kind(_checkpoint_files, mangle_checkpoints, _read_checkpoints),
    "model": Kind(model_files, mangle_model, _read_model),
    "energy flow": _flow_kind("coupled energy flow", dimension=3, blocks=1, width=4, linear="lu"),
    "continuous flow": _flow_kind(
        "continuous flow",
        dimension=3,
        widths=(4,),
        batch_norm=True,
        integration={"steps": 4, "solver": "dopri5"},
    ),
}


@cache
def whole(kind: str) -> Files:
    """A whole input of that kind."""
    return KINDS[kind].whole()


def mangled(kind: str, seed: int, number: int) -> Files:
    """The input with that number, of that kind and seed."""
    generator = np.random.default_rng([seed, list(KINDS).index(kind), number])
    return KINDS[kind].mangle(generator, whole(kind))
