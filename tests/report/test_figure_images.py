"""The figure of images: every image in its place, and a small file."""

import numpy as np
import pytest

from tiltflow.report.figure_images import ImageRow, draw_figure_images
from tiltflow.report.style import png_bytes


def rows(count):
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    return [ImageRow(f"model {i}", "2 bits", [images[:4], images[4:]]) for i in range(count)]


def test_every_image_has_its_place_under_its_heading():
    figure = draw_figure_images(["draws", "inpainted"], rows(3))
    assert len(figure.axes) == 18
    words = [text.get_text() for text in figure.texts]
    assert words.count("draws") == words.count("inpainted") == 1
    assert {"model 0", "model 1", "model 2"} <= set(words)
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    for one in range(18):
        for other in range(one):
            assert not boxes[one].overlaps(boxes[other])
    assert len(png_bytes(figure)) < 300_000


def test_nothing_and_other_groups_are_refused():
    with pytest.raises(ValueError, match="at least one row"):
        draw_figure_images(["draws"], [])
    with pytest.raises(ValueError, match="model 0: 2 groups for 1 headings"):
        draw_figure_images(["draws"], rows(1))
