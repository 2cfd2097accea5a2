"""Files of small images in the place of the data sets."""

import gzip
import struct

import numpy as np
import pytest

from tiltflow.experiments import grey_images


@pytest.fixture
def image_folder(tmp_path, monkeypatch):
    """Images of 4 x 4 pixels, uniform bytes, in the place of both data sets."""
    generator = np.random.default_rng(0)
    for data in grey_images.DATA.values():
        (tmp_path / data).mkdir()
        for name, count in zip(grey_images.FILES.values(), (300, 100)):
            images = generator.integers(0, 256, (count, 4, 4), dtype=np.uint8)
            header = struct.pack(">IIII", 0x803, *images.shape)
            (tmp_path / data / name).write_bytes(gzip.compress(header + images.tobytes()))
    monkeypatch.setattr(grey_images, "FOLDER", tmp_path)
    return tmp_path
