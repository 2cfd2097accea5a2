"""IDX files, in which MNIST and its kin come: a header, then bytes in C order.

    two zero bytes, the type (8 for bytes), the number of axes, every axis as 4 bytes (big-endian)

Only files of bytes are read; they may be compressed by gzip.
"""

import math
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tiltflow.data.errors import InputError
from tiltflow.data.packed import unpack

BYTES = 8


def read_idx(path: str | Path) -> UInt8[np.ndarray, "..."]:
    """The array of a file.

    Raises:
        InputError: the file is missing, is no IDX file of bytes, or is cut off.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = unpack(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != BYTES:
        raise InputError(f"{path}: is no IDX file of bytes; give one, as train-images-idx3-ubyte")
    if len(content) < 4 + 4 * content[3]:
        raise InputError(f"{path}: the header is cut off; fetch it anew")
    axes = content[3]
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", axes, offset=4))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if len(values) != math.prod(shape):
        raise InputError(
            f"{path}: found {len(values)} bytes for {shape}; the file is cut off, fetch it anew"
        )
    return values.reshape(shape)
