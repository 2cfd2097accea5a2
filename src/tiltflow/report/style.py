"""The look of every figure: colours, fonts, spines, and how a figure becomes a PNG.

Colours are those of Okabe and Ito (2008), which readers with any common colour blindness can tell
apart. They mean the same thing everywhere: ink is the data or the truth, blue is the learned
density, vermilion is what the chains show.
"""

import io
import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from tiltflow.report.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

INK = "#24292f"
GREY = "#6a737d"
BLUE = "#0072b2"
VERMILION = "#d55e00"
GRID = "#e4e7eb"

DPI = 144
"""Pixels per inch of every PNG: one and a half times the 96 of a web page."""

SMALL, NORMAL, LARGE = 8.5, 9.5, 12.0
"""Font sizes in points: tick labels and notes, axis labels and headings, column titles."""

_LOOK = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: the same figure on every machine
    "font.size": NORMAL,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.labelsize": NORMAL,
    "axes.titlesize": NORMAL,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 5),
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "legend.handlelength": 1.6,
    "legend.borderaxespad": 0.0,
}


@contextmanager
def look() -> Generator[None, None, None]:
    """The house's settings on top of matplotlib's defaults, whatever the user's own style is.

    Also a decorator (`@look()`). The user's settings are back when it ends.
    """
    import matplotlib.style

    with matplotlib.style.context(["default", _LOOK]):
        yield


def new_figure(width: float | int, height: float | int) -> "Figure":
    """An empty white figure of that many inches on the Agg canvas, unknown to pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def density_colours() -> "Colormap":
    """From white (no density) to the blue of the learned density."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("density", ["#ffffff", "#b5d6ea", "#56a7d3", BLUE])


def density_image(
    axes: "Axes",
    values: Float[np.ndarray, "gy gx"],
    lowest: float,
    highest: float,
    extent: tuple[float, float, float, float] | None = None,
) -> "AxesImage":
    """Fill `axes` with a density in steps of colour, framed, without ticks.

    24 steps, interpolated before they are coloured, are as fine as the eye needs, and a third of
    the file. `extent` is left, right, bottom and top.
    """
    image = axes.imshow(
        values,
        origin="lower",
        extent=extent,
        cmap=density_colours().resampled(24),
        vmin=lowest,
        vmax=highest,
        interpolation="bilinear",
        interpolation_stage="data",
        aspect="auto",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(GREY)
    return image


def thin(points: Float[np.ndarray, "n *d"], most: int) -> Float[np.ndarray, "m *d"]:
    """At most `most` rows, evenly spaced, so that sorted data stays represented."""
    if len(points) <= most:
        return points
    return points[np.linspace(0, len(points) - 1, most).round().astype(int)]


def one_line(name: str, most: int) -> str:
    """The name without line breaks, cut to `most` characters."""
    name = " ".join(name.split())
    return name if len(name) <= most else name[: most - 1] + "…"


def png_bytes(figure: "Figure") -> bytes:
    """The figure as a PNG of `DPI` pixels per inch; the same figure gives the same bytes."""
    from PIL import Image

    stream = io.BytesIO()
    with look(), warnings.catch_warnings():
        # A column name in a script that the font lacks is drawn as boxes; the tables spell it out.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    # A palette makes the file about three times smaller, and no eye sees the difference.
    palette = Image.open(stream).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    compact = io.BytesIO()
    palette.save(compact, format="png", optimize=True, dpi=(DPI, DPI))
    return compact.getvalue()


def save_png(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write the figure to `path` as a PNG, all of it or nothing."""
    write_atomically(path, png_bytes(figure))
