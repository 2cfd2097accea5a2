"""IDX files: what was written is read, and anything else is refused by name."""

import gzip
import struct

import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.idx_images import read_idx_images

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
CONTENT = struct.pack(">IIII", 0x803, 2, 3, 4) + IMAGES.tobytes()


def test_images_are_read_plain_and_gzipped(tmp_path):
    (tmp_path / "plain").write_bytes(CONTENT)
    (tmp_path / "zipped.gz").write_bytes(gzip.compress(CONTENT))
    for name in ("plain", "zipped.gz"):
        np.testing.assert_array_equal(read_idx_images(tmp_path / name), IMAGES)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("labels", struct.pack(">II", 0x801, 2) + b"\x01\x02", "is no IDX file of images"),
        ("short", CONTENT[:10], "is no IDX file of images"),
        ("cut", CONTENT[:-1], r"has 23 bytes after its header, which says \(2, 3, 4\)"),
        ("broken.gz", gzip.compress(CONTENT)[:-9], "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: {words}"):
        read_idx_images(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: cannot be read"):
        read_idx_images(tmp_path / "nowhere")
