"""IDX files: written by hand and read back, and what is refused."""

import gzip

import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.idx import read_idx

VALUES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
CONTENT = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 3, 4)) + VALUES.tobytes()
PACKED = gzip.compress(CONTENT, mtime=0)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_is_read_packed_or_not(tmp_path, pack):
    (tmp_path / "images").write_bytes(pack(CONTENT))
    np.testing.assert_array_equal(read_idx(tmp_path / "images"), VALUES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT[:-1], "cut off"),
        (CONTENT[:10], "the header is cut off"),
        (PACKED[:-9], "the gzip file is damaged"),
        (b"\0\0\x0d\x03" + CONTENT[4:], "no IDX file of bytes"),
        (PACKED[:20], "the gzip file is damaged"),
    ],
    ids=["values", "header", "packed", "type", "packed header"],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_idx(tmp_path / "images")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nothing: no such file"):
        read_idx(tmp_path / "nothing")
