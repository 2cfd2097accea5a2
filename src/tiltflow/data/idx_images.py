"""Images in IDX files, the format of MNIST and Fashion-MNIST, as arrays of bytes.

    0x00000803, n, h, w as big-endian 32-bit integers, then n h w bytes, row by row

(LeCun, Cortes, Burges 1998.) Gzipped where the name ends in .gz.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tiltflow.data.errors import InputError

BYTES_OF_THREE_AXES = 0x00000803


def read_idx_images(path: Path) -> UInt8[np.ndarray, "n h w"]:
    """All images of a file.

    Raises:
        InputError: the file is missing, damaged, or holds anything else.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); fetch it anew") from None
    header = np.frombuffer(content[:16].ljust(16, b"\0"), ">u4")
    if header[0] != BYTES_OF_THREE_AXES or len(content) < 16:
        raise InputError(f"{path}: is no IDX file of images; give one such as train-images-idx3")
    shape = tuple(int(size) for size in header[1:])
    if len(content) != 16 + np.prod(shape, dtype=np.int64):
        raise InputError(
            f"{path}: has {len(content) - 16} bytes after its header, which says {shape}; "
            "fetch it anew"
        )
    return np.frombuffer(content, np.uint8, offset=16).reshape(shape)
