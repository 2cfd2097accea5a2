"""Arrays in NPY, NPZ and HDF5 files, each looked at before it is read.

What a header claims is compared with what the file holds and with the free memory; nothing is
unpickled, and nothing is read but the file that was named: an HDF5 file can refer to others.
"""

import io
import math
import zipfile
from pathlib import Path
from typing import IO

import h5py
import numpy as np

from tiltflow.data.errors import InputError, damage_is_named
from tiltflow.data.machine import check_room
from tiltflow.data.packed import MOST

NPY, ZIP = b"\x93NUMPY", b"PK"
LAST_CODE = 0x10FFFF
FLOAT = 8
"""Bytes of the number that every cell becomes."""
SMALL = 2**20


def load_npy(path: Path) -> np.ndarray:
    """The array of an NPY file, of any shape and dtype.

    Raises:
        InputError: it is none, is damaged, claims more than it holds or than fits into memory, or
            holds pickled objects.
    """
    with damage_is_named(path, "NPY"), path.open("rb") as file:
        _check_magic(file, path, "NPY", NPY)
        return _load(file, path.stat().st_size, path, "the array")


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an NPZ file by name, of any shapes; raises as `load_npy`."""
    arrays = {}
    with damage_is_named(path, "NPZ"), path.open("rb") as file:
        _check_magic(file, path, "NPZ", ZIP)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            check_room(sum(member.file_size for member in members), str(path))
            for member in members:
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as packed:
                    arrays[name] = _load(packed, member.file_size, path, f"array '{name}'")
    return arrays


def load_h5(path: Path) -> dict[str, np.ndarray]:
    """The datasets at the top of an HDF5 file by name, text as strings; raises as `load_npy`.

    So it does where there are groups alone, which it names.
    """
    arrays, groups = {}, []
    with damage_is_named(path, "HDF5"), h5py.File(path, "r") as file:
        for name in file:
            link = file.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise InputError(
                    f"{path}: '{name}' is a link to another place; store the numbers in this file"
                )
            item = file[name]
            if isinstance(item, h5py.Dataset):
                arrays[name] = _load_dataset(item, path)
            else:
                groups.append(name)
    if groups and not arrays:
        raise InputError(
            f"{path}: holds groups alone ({', '.join(groups)}), which are not looked into; store "
            "the table at the top of the file, as one array or as one of each column"
        )
    return arrays


def _load_dataset(dataset: h5py.Dataset, path: Path) -> np.ndarray:
    name = str(dataset.name).removeprefix("/")
    if dataset.is_virtual or dataset.external:
        raise InputError(
            f"{path}: the numbers of '{name}' are in another file; store them in this one"
        )
    if dataset.shape is None:
        raise InputError(f"{path}: '{name}' is empty; drop it, or give it numbers")
    count, stored = math.prod(dataset.shape), dataset.id.get_storage_size()
    claimed = count * dataset.dtype.itemsize
    if claimed > SMALL + MOST * stored:
        raise InputError(
            f"{path}: '{name}' claims {claimed} bytes of shape {dataset.shape}, and {stored} are "
            "stored; most of its numbers were never written: write the file again"
        )
    check_room(claimed + FLOAT * count, str(path), f"'{name}'")
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return np.asarray(dataset.asstr()[()], np.str_)
    return np.asarray(dataset[()])


def _check_magic(file: IO[bytes], path: Path, kind: str, magic: bytes) -> None:
    if file.read(len(magic)) != magic:  # np.load would take it for a pickle
        raise InputError(f"{path}: is not an {kind} file; write it again with NumPy")
    file.seek(0)


def _load(file: IO[bytes] | io.BufferedIOBase, size: int, path: Path, what: str) -> np.ndarray:
    """An array from the start of an open file of `size` bytes."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:  # 3.0 is for names of fields, which no table has
        raise InputError(
            f"{path}: {what} is of NPY version {'.'.join(map(str, version))}; save plain numbers"
        )
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise InputError(
            f"{path}: holds pickled Python objects, which are never loaded; save a numeric "
            "array instead, such as array.astype(float)"
        )
    claimed, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if any(length < 0 for length in shape) or claimed > held:
        raise InputError(
            f"{path}: {what} claims {claimed} bytes of shape {shape}, {held} are there; the file "
            "is damaged: write it again"
        )
    check_room(claimed + FLOAT * math.prod(shape), str(path), what)
    file.seek(0)
    array = np.lib.format.read_array(file, allow_pickle=False)
    if dtype.kind == "U" and not _is_text(array):
        raise InputError(f"{path}: {what} holds text that is no Unicode; write the file again")
    return array


def _is_text(array: np.ndarray) -> bool:
    """Whether all code points are such: NumPy makes strings of others, too."""
    codes = np.ascontiguousarray(array.astype("=U")).view(np.uint32)
    return not np.any((codes > LAST_CODE) | ((codes >= 0xD800) & (codes < 0xE000)))
