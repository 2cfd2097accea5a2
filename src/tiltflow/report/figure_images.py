"""Small grey images in rows, one row for each model, under headings of groups.

After Chao, Sun, Hsu, Kira, Lee (2023), "Training Energy-Based Normalizing Flow with Score-Matching
Objectives", Figures 3 and 4: draws, and what Langevin steps make of images with parts missing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import UInt8

from tiltflow.report.style import GREY, NORMAL, SMALL, look, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches; every image has its place by hand.
_IMAGE, _GAP, _GROUP, _LABEL, _HEADING, _MARGIN = 0.42, 0.03, 0.18, 1.75, 0.3, 0.1


class ImageRow(NamedTuple):
    """A model: its name, a note below it, and its images in groups, of equal sizes in all rows."""

    name: str
    note: str
    groups: Sequence[UInt8[np.ndarray, "n h w"]]


@look()
def draw_figure_images(headings: Sequence[str], rows: Sequence[ImageRow]) -> "Figure":
    """Draw all rows; a heading for each group.

    Raises `ValueError` for no rows, or other groups than headings.
    """
    if not rows:
        raise ValueError("draw_figure_images needs at least one row")
    for row in rows:
        if len(row.groups) != len(headings):
            raise ValueError(f"{row.name}: {len(row.groups)} groups for {len(headings)} headings")
    sizes = [len(group) for group in rows[0].groups]
    wide = [size * _IMAGE + (size - 1) * _GAP for size in sizes]
    width = _MARGIN + _LABEL + sum(wide) + _GROUP * (len(wide) - 1) + _MARGIN
    height = _HEADING + len(rows) * (_IMAGE + 2 * _GAP) + _MARGIN
    figure = new_figure(width, height)
    for index, row in enumerate(rows):
        bottom = height - _HEADING - (index + 1) * (_IMAGE + 2 * _GAP)
        for lift, text, style in (
            (0.25, row.name, {"size": NORMAL, "weight": "bold"}),
            (0.08, row.note, {"size": SMALL, "color": GREY}),
        ):
            at = _MARGIN / width, (bottom + lift) / height
            figure.text(*at, text, fontdict=style, parse_math=False)
        left = _MARGIN + _LABEL
        for heading, group, size in zip(headings, row.groups, wide):
            if index == 0:
                at = left / width, (height - _HEADING + 0.08) / height
                figure.text(*at, heading, size=SMALL, parse_math=False)
            for place, image in enumerate(group):
                x = left + place * (_IMAGE + _GAP)
                box = (x / width, bottom / height, _IMAGE / width, _IMAGE / height)
                axes = figure.add_axes(box)
                axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                axes.set_axis_off()
            left += size + _GROUP
    return figure
