"""Delimited text (CSV): header, separator, comments and ragged rows, found before Polars parses.

Polars fills a short row with nulls, renames repeated headers and reads a blank line as a row, all
silently; the `csv` module reads the first two records always, and the whole file only where one
of these may have happened, so that large files are parsed once, by Polars.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from tiltflow.data.checks import check_width, is_number
from tiltflow.data.errors import InputError, reason
from tiltflow.data.packed import check_unpacked, damaged
from tiltflow.data.panics import panics_are_not_printed

SEPARATORS = (",", ";", "\t")
MISSING = ("", "NA", "N/A", "null", "NULL", "nan", "NaN", "NAN")


class _Layout(NamedTuple):
    names: list[str]  # one per column
    has_header: bool
    first_line: int  # physical line of the first record, from 1
    separator: str


def read_csv(path: Path) -> dict[str, np.ndarray]:
    """Columns of a CSV file, `.csv` or `.csv.gz`, in their order.

    A first line of numbers is data (columns `x0`, `x1`, ...). So is a first line that mixes
    numbers and text, unless a text cell of it stands above a number. Lines that start with `#` are
    comments; the separator is the first of comma, semicolon and tab that the first line holds.
    Empty cells and `NA`, `N/A`, `null`, `NaN` are missing.

    Returns a (n,) array for each column: float64 with NaN where missing if every other cell is a
    number or a boolean, else an object array of strings with "" where missing.

    Raises `InputError` for what is no such file: no rows, ragged, names repeated or empty, not
    UTF-8, damaged.
    """
    try:
        if path.suffix.lower() == ".gz":
            check_unpacked(path)
        layout = _layout(path)
        frame = _parse(path, layout)
        return {name: _column(frame[name]) for name in layout.names}
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: byte {error.start} is not UTF-8 text; save the table as UTF-8"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, error) from None


def _records(path: Path, separator: str | None = None) -> Iterator[tuple[int, str, list[str]]]:
    """Line number from 1, separator and cells of each line that is not a comment."""
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    line = 0
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:

        def lines() -> Iterator[str]:
            nonlocal line
            for text in file:
                line += 1
                if not text.startswith("#"):
                    yield text

        content = lines()
        try:
            first = next((text for text in content if text.strip()), "")
            if separator is None:
                # What is quoted separates nothing.
                bare = "".join(first.split('"')[::2])
                separator = next((s for s in SEPARATORS if s in bare), ",")
            start = line
            for cells in csv.reader(chain([first], content), delimiter=separator, strict=True):
                yield start or line, separator, cells
                start = 0  # where the first record starts, for the others where they end
        except csv.Error as error:
            raise InputError(f"{path}: line {line} is not valid CSV ({error}); mend it") from None


def _layout(path: Path) -> _Layout:
    """Header or not, names and separator, from the first two records."""
    records = ((line, sep, cells) for line, sep, cells in _records(path) if cells)
    line, separator, first = next(records, (0, ",", []))
    if not first:
        raise InputError(f"{path}: the file is empty; give a table with rows of numbers")
    check_width(len(first), str(path))
    first = [cell.strip() for cell in first]
    _, _, second = next(records, (0, "", []))
    if not _is_header(first, [cell.strip() for cell in second]):
        return _Layout([f"x{i}" for i in range(len(first))], False, line, separator)
    seen: set[str] = set()
    for position, name in enumerate(first):
        if not name:
            raise InputError(
                f"{path}: column {position + 1} has no name in the header (line {line}); "
                "name it, or drop it if it only counts the rows"
            )
        if name in seen:
            raise InputError(
                f"{path}: the header (line {line}) names column '{name}' twice; "
                "rename or drop one of the two"
            )
        seen.add(name)
    if not second:
        raise InputError(f"{path}: there is a header but no rows; give rows of numbers")
    return _Layout(first, True, line, separator)


def _is_header(first: list[str], second: list[str]) -> bool:
    text = [cell not in MISSING and not is_number(cell) for cell in first]
    if not any(is_number(cell) for cell in first):
        return True
    return any(is_text and is_number(below) for is_text, below in zip(text, second))


def _parse(path: Path, layout: _Layout) -> pl.DataFrame:
    """The file as a frame of strings, named, without blank lines."""
    try:
        with panics_are_not_printed():
            frame = pl.read_csv(
                path,
                glob=False,
                has_header=layout.has_header,
                separator=layout.separator,
                comment_prefix="#",
                skip_lines=layout.first_line - 1,
                infer_schema=False,
            )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        _blank_rows(path, layout)  # names the row, where a row is the cause
        raise InputError(
            f"{path}: cannot be read as CSV ({reason(error)}); mend the file"
        ) from None
    width = len(layout.names)
    if frame.width != width or frame[:, -1].null_count() > 0:
        blank = _blank_rows(path, layout)
        if width > 1 and blank:
            frame = frame.with_row_index("").filter(~pl.col("").is_in(blank)).drop("")
    if frame.width != width:
        raise InputError(
            f"{path}: has {width} columns by its first line and {frame.width} by its line feeds; "
            "end every line with a line feed, and quote cells that hold one"
        )
    frame.columns = layout.names
    return frame


def _blank_rows(path: Path, layout: _Layout) -> list[int]:
    """Rows, from 0, that are blank lines; raises `InputError` at the first ragged row."""
    width, blank, row = len(layout.names), [], -int(layout.has_header)
    for line, _, cells in _records(path, layout.separator):
        if line < layout.first_line:
            continue
        if not cells:
            blank.append(row)
        elif len(cells) != width:
            above = "the header" if layout.has_header else "row 1"
            raise InputError(
                f"{path}: row {row + 1} (line {line}) has {len(cells)} cells where {above} has "
                f"{width}; give every row as many cells"
            )
        row += 1
    return blank


def _column(text: pl.Series) -> np.ndarray:
    """Strings as numbers where all of them are, as booleans where all are, else as they stand."""
    numbers = text.cast(pl.Float64, strict=False)
    if numbers.null_count() == text.null_count():  # most often, and much faster than what follows
        return numbers.fill_null(float("nan")).to_numpy()
    text = text.str.strip_chars()
    text = text.set(text.is_in(MISSING), None)
    numbers = text.cast(pl.Float64, strict=False)
    if numbers.null_count() == text.null_count():
        return numbers.fill_null(float("nan")).to_numpy()
    lower = text.str.to_lowercase()
    if lower.drop_nulls().is_in(["true", "false"]).all():
        return (lower == "true").cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.asarray(text.fill_null("").to_list(), dtype=object)
