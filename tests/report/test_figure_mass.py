"""The figure of masses stays readable for any number of methods, energies and seeds."""

import numpy as np
import pytest

from tiltflow.report.figure_mass import Course, Panel, draw_figure_mass
from tiltflow.report.style import png_bytes

STEPS = np.arange(5) * 10


def panel(method, energy, *masses):
    return Panel(method, energy, [Course(STEPS, np.full(5, mass)) for mass in masses])


def draw(panels):
    return draw_figure_mass(panels, truth=0.25, mode="the mode at −10")


def test_methods_are_columns_and_energies_rows_that_never_overlap():
    figure = draw([panel(m, e, 0.2, 0.3) for e in ("small", "large") for m in ("a", "b", "c")])
    boxes = [axes.get_position() for axes in figure.axes]
    assert len({round(box.x0, 6) for box in boxes}) == 3
    assert len({round(box.y0, 6) for box in boxes}) == 2
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            assert one.x1 < other.x0 or other.x1 < one.x0 or one.y1 < other.y0 or other.y1 < one.y0
    assert figure.axes[0].get_title(loc="left") == "last: 0.250 ± 0.071, truth 0.25"
    png_bytes(figure)


def test_a_mass_that_is_not_a_number_and_a_method_without_seeds_are_drawn_all_the_same():
    figure = draw([panel("wild", "small", np.nan), panel("none", "small")])
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "last: nan, truth 0.25",
        "no course",
    ]
    png_bytes(figure)


def test_no_panel_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        draw([])
