"""Delimited text (CSV): header, separator, comments and ragged rows, found before Polars parses.

Polars fills a short row with nulls, renames repeated headers and reads a blank line as a row, all
silently; the `csv` module reads the first two records always, and the whole file only where one
of these may have happened, so that large files are parsed once, by Polars.
"""

import contextlib
import csv
import gzip
import zlib
from collections.abc import Callable, Generator, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from tiltflow.data.checks import check_width, is_number
from tiltflow.data.errors import InputError, reason
from tiltflow.data.matching import CountedColumns
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

    A first line of numbers is data (columns `x0`, `x1`, ..., which are `CountedColumns`). So is a
    first line that mixes numbers and text, unless a text cell of it stands above a number. Lines
    that start with `#` are comments; the separator is the first of comma, semicolon and tab that
    the first line holds.
    Empty cells and `NA`, `N/A`, `null`, `NaN` are missing.

    Returns a (n,) array for each column: int64 if every cell is a whole number for which float64
    has room, float64 with NaN where missing if every other cell is a number or a boolean, else an
    object array of strings with "" where missing.

    Raises `InputError` for what is no such file: no rows, ragged, names repeated or empty, not
    UTF-8, damaged.
    """
    with _damage_is_named(path):
        layout = _layout(path)
        frame = _parse(path, layout)
        columns = {name: _column(frame[name]) for name in layout.names}
    return columns if layout.has_header else CountedColumns(columns)


class CsvBatches(NamedTuple):
    """The names of the columns of a CSV file, and a way through its rows."""

    names: list[str]
    has_header: bool
    whole: list[str]  # names of columns of whole numbers
    batches: Callable[[], Iterator[dict[str, np.ndarray]]]


def csv_batches(path: Path, rows_of: Callable[[int], int]) -> CsvBatches:
    """A way through a file by so many rows as `rows_of` says, given the number of columns.

    What is numbers and what is text is decided over all rows, which are read once for that; all is
    as in `read_csv`.

    Raises `InputError` as `read_csv` does.
    """
    with _damage_is_named(path):
        layout = _layout(path)
        kinds = {name: _Kind(True, True, True, 0) for name in layout.names}
        rows = rows_of(len(layout.names))
        short = False
        with _parsing_is_explained(path, layout):
            for frame in _text_batches(path, layout, rows, []):
                short = short or frame.width != len(layout.names)
                short = short or frame[:, -1].null_count() > 0
                for name, text in zip(kinds, frame.get_columns()):
                    kinds[name] = _kind(_cells(text), kinds[name])
        found = _blank_rows(path, layout) if short else []
        blank = found if len(layout.names) > 1 else []
        # Blank lines were rows of missing cells so far.
        kinds = {
            name: kind._replace(missing=kind.missing - len(blank)) for name, kind in kinds.items()
        }

    def batches() -> Iterator[dict[str, np.ndarray]]:
        with _damage_is_named(path), _parsing_is_explained(path, layout):
            for frame in _text_batches(path, layout, rows, blank):
                text = _named(path, layout, frame)
                yield {name: _converted(_cells(text[name]), kinds[name]) for name in kinds}

    whole = [name for name, kind in kinds.items() if _becomes_whole(kind)]
    return CsvBatches(layout.names, layout.has_header, whole, batches)


@contextlib.contextmanager
def _damage_is_named(path: Path) -> Generator[None, None, None]:
    """Turn what is raised at files that are no text into one line that names the file."""
    try:
        if path.suffix.lower() == ".gz":
            check_unpacked(path)
        yield
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
    with _parsing_is_explained(path, layout), panics_are_not_printed():
        frame = pl.read_csv(path, **_parser(layout))
    width = len(layout.names)
    if frame.width != width or frame[:, -1].null_count() > 0:
        blank = _blank_rows(path, layout)
        if width > 1 and blank:
            frame = frame.with_row_index("").filter(~pl.col("").is_in(blank)).drop("")
    return _named(path, layout, frame)


def _named(path: Path, layout: _Layout, frame: pl.DataFrame) -> pl.DataFrame:
    width = len(layout.names)
    if frame.width != width:
        raise InputError(
            f"{path}: has {width} columns by its first line and {frame.width} by its line feeds; "
            "end every line with a line feed, and quote cells that hold one"
        )
    frame.columns = layout.names
    return frame


def _text_batches(
    path: Path, layout: _Layout, rows: int, blank: list[int]
) -> Iterator[pl.DataFrame]:
    """The file as frames of strings, without the rows that are `blank`."""
    first = 0
    for frame in pl.scan_csv(path, **_parser(layout)).collect_batches(chunk_size=rows):
        size = len(frame)
        here = [row - first for row in blank if first <= row < first + size]
        if here:
            frame = frame.with_row_index("").filter(~pl.col("").is_in(here)).drop("")
        first += size
        yield frame


def _parser(layout: _Layout) -> dict[str, Any]:
    return {
        "glob": False,
        "has_header": layout.has_header,
        "separator": layout.separator,
        "comment_prefix": "#",
        "skip_lines": layout.first_line - 1,
        "infer_schema": False,
    }


@contextlib.contextmanager
def _parsing_is_explained(path: Path, layout: _Layout) -> Generator[None, None, None]:
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        _blank_rows(path, layout)  # names the row, where a row is the cause
        raise InputError(
            f"{path}: cannot be read as CSV ({reason(error)}); mend the file"
        ) from None


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


class _Kind(NamedTuple):
    """Whether all cells seen so far are numbers, booleans, whole numbers; and how many miss."""

    numbers: bool
    booleans: bool
    whole: bool
    missing: int


def _column(text: pl.Series) -> np.ndarray:
    """Strings as numbers where all of them are, as booleans where all are, else as they stand."""
    numbers = _as_numbers(text)
    if numbers.null_count() == text.null_count():  # most often, and much faster than what follows
        return _converted(text, _Kind(True, False, _are_whole(text), text.null_count()))
    cells = _cells(text)
    return _converted(cells, _kind(cells, _Kind(True, True, True, 0)))


def _cells(text: pl.Series) -> pl.Series:
    text = text.str.strip_chars()
    return text.set(text.is_in(MISSING), None)


def _kind(cells: pl.Series, before: _Kind) -> _Kind:
    numbers = before.numbers and _as_numbers(cells).null_count() == cells.null_count()
    # A column that is all missing so far is of both kinds.
    booleans = before.booleans and _are_booleans(cells)
    whole = before.whole and numbers and _are_whole(cells)
    return _Kind(numbers, booleans, whole, before.missing + cells.null_count())


def _are_booleans(cells: pl.Series) -> bool:
    """Whether all that are not missing are; of most columns the first cells tell that not."""
    parts = (part.drop_nulls().str.to_lowercase() for part in (cells.head(100), cells))
    return all(part.is_in(["true", "false"]).all() for part in parts)


def _are_whole(cells: pl.Series) -> bool:
    """Whether all that are not missing are, and float64 has room for them."""
    parts = ((part, part.cast(pl.Int64, strict=False)) for part in (cells.head(100), cells))
    return all(
        whole.null_count() == part.null_count() and whole.is_between(-(2**53), 2**53).all()
        for part, whole in parts
    )


def _becomes_whole(kind: _Kind) -> bool:
    """Integers have no value for a cell that is missing."""
    return kind.numbers and kind.whole and not kind.missing


def _as_numbers(cells: pl.Series) -> pl.Series:
    return cells.cast(pl.Float64, strict=False)


def _converted(cells: pl.Series, kind: _Kind) -> np.ndarray:
    if _becomes_whole(kind):
        return cells.cast(pl.Int64).to_numpy()
    if kind.numbers:
        return _as_numbers(cells).fill_null(float("nan")).to_numpy()
    if kind.booleans:
        booleans = (cells.str.to_lowercase() == "true").cast(pl.Float64)
        return booleans.fill_null(float("nan")).to_numpy()
    return np.asarray(cells.fill_null("").to_list(), dtype=object)
