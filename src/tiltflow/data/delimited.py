"""Delimited text (CSV): header, separator, comments and ragged rows, found before Polars parses.

Polars fills a short row with nulls, renames repeated headers and reads a blank line as a row, all
silently; the `csv` module reads the first two records always, and the whole file only where one
of these may have happened, so that large files are parsed once, by Polars.
"""

import contextlib
import csv
import gzip
import warnings
import zlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
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
from tiltflow.data.text_columns import (
    MISSING,
    TEXT,
    Kind,
    as_found,
    as_kind,
    becomes_whole,
    has_commas,
    kind_of,
    may_have_comma,
    without_missing,
)

SEPARATORS = (",", ";", "\t")

KeepText = Callable[[Sequence[str], bool], Collection[str]]
"""Of a table's columns, of which it is told whether they have names, those that are text."""


class _Layout(NamedTuple):
    names: list[str]  # one per column
    has_header: bool
    first_line: int  # physical line of the first record, from 1
    separator: str


def read_csv(path: Path, keep_text: KeepText | None = None) -> dict[str, np.ndarray]:
    """Columns of a CSV file, `.csv`, `.csv.gz` or `.tsv`, in their order.

    A first line of numbers is data (columns `x0`, `x1`, ..., which are `CountedColumns`). So is a
    first line that mixes numbers and text, unless a text cell of it stands above a number. Lines
    that start with `#` are comments; the separator is the first of comma, semicolon and tab that
    the first line holds, or the one that leaves numbers with decimal commas. These are read as
    points, with a warning, where a column holds nothing else but whole numbers. Columns that
    `keep_text` names are text, whatever they hold. Empty cells and `NA`, `N/A`, `null`, `NaN` are
    missing.

    Returns a (n,) array for each column: int64 if every cell is a whole number for which float64
    has room, float64 with NaN where missing if every other cell is a number or a boolean, else an
    object array of strings with "" where missing.

    Raises `InputError` for what is no such file: no rows, ragged, names repeated or empty, not
    UTF-8, damaged.
    """
    with _damage_is_named(path):
        layout = _layout(path)
        frame = _parse(path, layout)
        firsts = _firsts(layout, keep_text)
        found = {name: as_found(frame[name], first) for name, first in firsts.items()}
    _warn_of_commas(path, {name: kind for name, (_, kind) in found.items()})
    columns = {name: column for name, (column, _) in found.items()}
    return columns if layout.has_header else CountedColumns(columns)


class CsvBatches(NamedTuple):
    """The names of the columns of a CSV file, and a way through its rows."""

    names: list[str]
    has_header: bool
    whole: list[str]  # names of columns of whole numbers
    batches: Callable[[], Iterator[dict[str, np.ndarray]]]


def csv_batches(
    path: Path, rows_of: Callable[[int], int], keep_text: KeepText | None = None
) -> CsvBatches:
    """A way through a file by so many rows as `rows_of` says, given the number of columns.

    What is numbers and what is text is decided over all rows, which are read once for that; all is
    as in `read_csv`.

    Raises `InputError` as `read_csv` does.
    """
    with _damage_is_named(path):
        layout = _layout(path)
        kinds = _firsts(layout, keep_text)
        rows = rows_of(len(layout.names))
        short = False
        with _parsing_is_explained(path, layout):
            for frame in _text_batches(path, layout, rows, []):
                short = short or frame.width != len(layout.names)
                short = short or frame[:, -1].null_count() > 0
                for name, text in zip(kinds, frame.get_columns()):
                    kinds[name] = kind_of(without_missing(text), kinds[name])
        found = _blank_rows(path, layout) if short else []
        blank = found if len(layout.names) > 1 else []
        # Blank lines were rows of missing cells so far.
        kinds = {
            name: kind._replace(missing=kind.missing - len(blank)) for name, kind in kinds.items()
        }

    _warn_of_commas(path, kinds)

    def batches() -> Iterator[dict[str, np.ndarray]]:
        with _damage_is_named(path), _parsing_is_explained(path, layout):
            for frame in _text_batches(path, layout, rows, blank):
                text = _named(path, layout, frame)
                yield {name: as_kind(without_missing(text[name]), kinds[name]) for name in kinds}

    whole = [name for name, kind in kinds.items() if becomes_whole(kind)]
    return CsvBatches(layout.names, layout.has_header, whole, batches)


def _firsts(layout: _Layout, keep_text: KeepText | None) -> dict[str, Kind]:
    """What each column may be before its cells are seen."""
    kept = keep_text(layout.names, layout.has_header) if keep_text else ()
    first = Kind(commas=layout.separator != ",")
    return {name: TEXT if name in kept else first for name in layout.names}


def _warn_of_commas(path: Path, kinds: Mapping[str, Kind]) -> None:
    """Nobody but the user knows that 1,234 was not meant as a thousand."""
    found = [name for name, kind in kinds.items() if has_commas(kind)]
    if found:
        warnings.warn(
            f"{path}: decimal commas are read as points (1,234 as 1.234) in {', '.join(found)}",
            stacklevel=5,
        )


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
                tabs = path.suffix.lower() == ".tsv" and "\t" in first
                separator = "\t" if tabs else _separator(first)
            start = line
            for cells in csv.reader(chain([first], content), delimiter=separator, strict=True):
                yield start or line, separator, cells
                start = 0  # where the first record starts, for the others where they end
        except csv.Error as error:
            raise InputError(f"{path}: line {line} is not valid CSV ({error}); mend it") from None


def _separator(line: str) -> str:
    """What parts the cells of a file that starts with a line."""
    # What is quoted separates nothing.
    bare = "".join(line.split('"')[::2])
    for separator in (each for each in SEPARATORS if each != "," and each in bare):
        cells = [cell.strip() for cell in bare.split(separator)]
        if all("," not in cell or may_have_comma(cell) for cell in cells):
            return separator
    return next((each for each in SEPARATORS if each in bare), ",")


def _layout(path: Path) -> _Layout:
    """Header or not, names and separator, from the first two records."""
    records = ((line, sep, cells) for line, sep, cells in _records(path) if cells)
    line, separator, first = next(records, (0, ",", []))
    if not first:
        raise InputError(f"{path}: the file is empty; give a table with rows of numbers")
    check_width(len(first), str(path))
    first = [cell.strip() for cell in first]
    _, _, second = next(records, (0, "", []))
    if not _is_header(first, [cell.strip() for cell in second], separator):
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


def _is_header(first: list[str], second: list[str], separator: str) -> bool:
    def is_one(cell: str) -> bool:
        return is_number(cell) or (separator != "," and may_have_comma(cell))

    text = [cell not in MISSING and not is_one(cell) for cell in first]
    if not any(is_one(cell) for cell in first):
        return True
    return any(is_text and is_one(below) for is_text, below in zip(text, second))


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
