"""Damage that is known of each kind of file: tables, archives, saved models, runs.

As in `mangling.py`; an input is a dictionary of files by their names, so that a model is one.
`PICKLED` is a pickle that makes the folder `CANARY` where it is loaded: if that is ever there, code
of a file was run.
"""

import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl

from tiltflow.experiments.mangling import (
    choose,
    mangle_bytes,
    mangle_json_file,
    mangle_json_lines,
    mangle_npy,
    mangle_safetensors,
)

Files = dict[str, bytes]
Mangle = Callable[[np.random.Generator, bytes], bytes]

CANARY = Path(tempfile.gettempdir()) / f"tiltflow-fuzz-canary-{os.getuid()}"
GIGABYTES = 6


class _Payload:
    def __reduce__(self) -> tuple[Any, tuple[str, bool]]:
        return os.makedirs, (str(CANARY), True)


def pickled() -> bytes:
    """A pickle that makes the canary's folder where it is loaded."""
    return pickle.dumps(np.array([_Payload()], dtype=object))


@cache
def gzip_bomb() -> bytes:
    """`GIGABYTES` of zeros in a few megabytes: members of a gzip file may follow each other."""
    return gzip.compress(bytes(2**26)) * (GIGABYTES * 2**4)


@cache
def zip_bomb(claimed: int = GIGABYTES * 2**30) -> bytes:
    """An archive with an array of `GIGABYTES` of zeros, as `X.npy`, of which it claims a size."""
    header = io.BytesIO()
    shape = (GIGABYTES * 2**27, 1)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(header.getvalue()) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush nothing refers back, so that one block may follow itself.
    block = packer.compress(bytes(2**26)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = first + block * (GIGABYTES * 2**4) + packer.flush(zlib.Z_FINISH)
    claimed = min(claimed, 2**32 - 2)
    fields = struct.pack("<HHHHIII", 0, 8, 0, 0x21, 0, len(packed), claimed)
    name = b"X.npy"
    local = b"PK\3\4\x14\0" + fields + struct.pack("<HH", len(name), 0) + name
    central = b"PK\1\2\x14\0\x14\0" + fields + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0)
    central += name
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local) + len(packed), 0)
    return local + packed + central + b"PK\5\6" + end


def mangle_npy_file(generator: np.random.Generator, content: bytes) -> bytes:
    """An array by itself."""
    return mangle_npy(generator, content, pickled())


def mangle_npz(generator: np.random.Generator, content: bytes) -> bytes:
    """Members of an archive, their names, a bomb, a pickle, or any bytes."""
    how = generator.random()
    if how < 0.35:
        return mangle_bytes(generator, content)
    if how < 0.37:
        return pickled()
    if how < 0.38:
        return zip_bomb(choose(generator, (GIGABYTES * 2**30, 100)))
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    name = choose(generator, names)
    other = choose(generator, names)
    if how < 0.8:
        members[name] = mangle_npy(generator, members[name], pickled())
    elif how < 0.9:
        new = choose(
            generator, ("X", "../X.npy", ".npy", "a\0.npy", "é.npy", "a/b.npy", "columns.npy")
        )
        members[new] = members.pop(name)
    else:
        members[name] = members[other] if how < 0.95 else b""
    kind = choose(generator, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return stream.getvalue()


def mangle_csv(generator: np.random.Generator, content: bytes) -> bytes:
    """Cells, quotes, line ends and encodings, or any bytes."""
    how = generator.random()
    if how < 0.4:
        return mangle_bytes(generator, content)
    if how < 0.402:
        return b",".join(b"c%d" % i for i in range(1_000_000)) + b"\n" + b"1," * 999_999 + b"1\n"
    lines = content.split(b"\n")
    place = int(generator.integers(len(lines)))
    cells = lines[place].split(b",")
    cell = int(generator.integers(len(cells)))
    cells[cell] = choose(
        generator,
        (
            b'"',
            b'"' * 9,
            b'"a\n\n' * 300,
            b"\0",
            b"1\0" * 99,
            b"9" * 200_000,
            b"-",
            b"1e999999",
            b"nan",
            b"NA",
            b"0x1p3",
            b"1_000",
            "１２".encode(),
            b"\xff\xfe",
            b"a" * 2_000_000,
            b"#",
            b"\r",
            b"\x1a",
            b"1,2,3",
            b"",
            b"2020-01-01",
            b"true",
        ),
    )
    lines[place] = b",".join(cells)
    content = choose(generator, (b"\n", b"\n", b"\r\n", b"\r", b"\n\n", b"")).join(lines)
    if how > 0.9:
        encoding = choose(generator, ("utf-16", "utf-8-sig", "utf-32", "utf-7"))
        return content.decode("utf-8", "replace").encode(encoding, "replace")
    return content.replace(b",", choose(generator, (b",", b",", b";", b"\t", b"|", b" ")))


def mangle_csv_gz(generator: np.random.Generator, content: bytes) -> bytes:
    """Damaged text well packed, well text damaged after packing, or a bomb."""
    how = generator.random()
    if how < 0.01:
        return gzip_bomb()
    if how < 0.5:
        return mangle_bytes(generator, content)
    packed = gzip.compress(mangle_csv(generator, gzip.decompress(content)), 1)
    return packed if how < 0.9 else packed + choose(generator, (packed, b"x", b"\0" * 50))


ODD_FRAMES: tuple[Callable[[], pl.DataFrame], ...] = (
    lambda: pl.DataFrame({"a": [[1.0], [2.0]]}),
    lambda: pl.DataFrame({"a": [{"b": 1}, {"b": 2}]}),
    lambda: pl.DataFrame({"a": [b"x", b"y"]}),
    lambda: pl.DataFrame({"a": [date(2020, 1, 1), None]}),
    lambda: pl.DataFrame({"a": ["p", "q"]}, schema={"a": pl.Categorical}),
    lambda: pl.DataFrame({"a": ["p", "q"]}, schema={"a": pl.Enum(["p", "q"])}),
    lambda: pl.DataFrame({"a": [2**64 - 1, 0]}, schema={"a": pl.UInt64}),
    lambda: pl.DataFrame({"a": [1, 2]}, schema={"a": pl.Decimal(10, 2)}),
    lambda: pl.DataFrame({"a": [None, None]}),
    lambda: pl.DataFrame({"a": []}),
    lambda: pl.DataFrame(),
    lambda: pl.DataFrame({"": [1.0], "é\n": [2.0], "x" * 5000: [3.0]}),
    lambda: pl.DataFrame({"a": [1, 2]}, schema={"a": pl.Duration}),
    lambda: pl.DataFrame({"a": [1, 2]}, schema={"a": pl.Datetime("ns", "Asia/Tokyo")}),
    lambda: pl.DataFrame({"a": [[1.0, 2.0]]}, schema={"a": pl.Array(pl.Float64, 2)}),
    lambda: pl.DataFrame({f"c{i}": [1.0] for i in range(5000)}),
)


def mangle_frame(write: Callable[[pl.DataFrame, io.BytesIO], Any]) -> Mangle:
    """Of Parquet and Arrow: odd columns, well written or damaged, or any bytes."""

    def mangle(generator: np.random.Generator, content: bytes) -> bytes:
        how = generator.random()
        if how < 0.7:
            return mangle_bytes(generator, content)
        stream = io.BytesIO()
        write(choose(generator, ODD_FRAMES)(), stream)
        return stream.getvalue() if how < 0.75 else mangle_bytes(generator, stream.getvalue())

    return mangle


def _external_link(file: h5py.File) -> None:
    file["X"] = h5py.ExternalLink("/etc/hostname", "/")
    file["y"] = h5py.ExternalLink("table.h5", "y")


def _loops(file: h5py.File) -> None:
    file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
    file["c"], file["d"] = h5py.SoftLink("/c"), h5py.SoftLink("/nowhere")


def _itself(file: h5py.File) -> None:
    file.create_group("g")["g"] = file["/"]
    file["g/h"] = file["g"]


def _external_storage(file: h5py.File) -> None:
    file.create_dataset("X", (4, 2), np.uint8, external=[("/etc/passwd", 0, 8)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 2), float)
    layout[:] = h5py.VirtualSource("/etc/passwd", "X", (4, 2))
    file.create_virtual_dataset("X", layout)


def _vast(file: h5py.File) -> None:
    file.create_dataset("X", (2**40, 2), float, chunks=(1024, 2), fillvalue=1.0)


def _packed_vast(file: h5py.File) -> None:
    chunks = (2**16, 2)
    X = file.create_dataset("X", (2**29, 2), np.int8, chunks=chunks, compression="gzip")
    X[:4] = 1


def _odd_types(file: h5py.File) -> None:
    file["a"] = np.zeros(3, [("p", "f8"), ("q", "S3")])
    file.create_dataset("b", (3,), h5py.vlen_dtype(np.float64))
    file.create_dataset("c", (3,), h5py.ref_dtype)
    file["d"] = h5py.Empty("f")
    file["e"] = 3.0
    file["f"] = np.void(b"pickled")


def _columns(file: h5py.File) -> None:
    file["X"] = np.ones((4, 2))
    file.create_dataset("columns", data=[b"\xff", b"b"], dtype=h5py.string_dtype("utf-8"))


def _odd_names(file: h5py.File) -> None:
    for name in (b"\xff\xfe", b"a\n", b"..", b"x" * 5000):
        file[name] = np.ones(3)


def _deep_axes(file: h5py.File) -> None:
    file["X"] = np.ones((1,) * 32)
    file["Y"] = np.ones((0, 3))


def _half(file: h5py.File) -> None:
    file["X"] = np.ones((4, 2), np.float16)
    file["i"] = np.ones((4, 2), ">i2")


ODD_STORES = (
    _external_link,
    _loops,
    _itself,
    _external_storage,
    _virtual,
    _vast,
    _packed_vast,
    _odd_types,
    _columns,
    _odd_names,
    _deep_axes,
    _half,
)


def mangle_h5(generator: np.random.Generator, content: bytes) -> bytes:
    """Links out of the file, loops, vast arrays, odd types, or any bytes."""
    how = generator.random()
    if how < 0.6:
        return mangle_bytes(generator, content)
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        choose(generator, ODD_STORES)(file)
    return stream.getvalue() if how < 0.8 else mangle_bytes(generator, stream.getvalue())


def mangle_idx(generator: np.random.Generator, content: bytes) -> bytes:
    """The packed file, or what is packed, or a bomb."""
    how = generator.random()
    if how < 0.01:
        return gzip_bomb()
    if how < 0.4:
        return mangle_bytes(generator, content)
    whole = gzip.decompress(content)
    damaged = mangle_bytes(generator, whole[:40]) + whole[40:]
    return damaged if how < 0.7 else gzip.compress(damaged, 1)


def one_file(mangle: Mangle) -> Callable[[np.random.Generator, Files], Files]:
    """Damage to one of the files of an input, whichever."""

    def of_files(generator: np.random.Generator, files: Files) -> Files:
        name = choose(generator, list(files))
        return {**files, name: mangle(generator, files[name])}

    return of_files


def mangle_model(generator: np.random.Generator, files: Files) -> Files:
    """Either file or both; most often the digest of the arrays is made to fit again."""
    files = dict(files)
    how = generator.random()
    if how < 0.02:
        del files[choose(generator, list(files))]
        return files
    if how < 0.5:
        files["config.json"] = mangle_json_file(generator, files["config.json"])
    else:
        files["model.safetensors"] = mangle_safetensors(generator, files["model.safetensors"])
        if generator.random() < 0.8:
            config = json.loads(files["config.json"])
            config["arrays_sha256"] = hashlib.sha256(files["model.safetensors"]).hexdigest()
            files["config.json"] = json.dumps(config).encode()
    return files


def mangle_checkpoints(generator: np.random.Generator, files: Files) -> Files:
    """Every checkpoint, most often under the name that fits what it then holds."""
    mangled = {}
    for name, content in files.items():
        folder, _, last = name.rpartition("/")
        damaged = mangle_safetensors(generator, content)
        if generator.random() < 0.7:
            digest = hashlib.sha256(damaged).hexdigest()[:32]
            last = f"{last.partition('-')[0]}-{digest}.safetensors"
        mangled[f"{folder}/{last}"] = damaged
    return mangled


def mangle_run(generator: np.random.Generator, files: Files) -> Files:
    """The lines of metrics, and half of the time the configuration with them."""
    files = {**files, "metrics.jsonl": mangle_json_lines(generator, files["metrics.jsonl"])}
    if generator.random() < 0.5:
        files["config.json"] = mangle_json_file(generator, files["config.json"])
    return files
