"""Tables of plain text for the terminal, and numbers with their spread to sensible digits."""

import math
import unicodedata
from collections.abc import Sequence
from typing import SupportsFloat

import numpy as np

_NUMBER_CHARACTERS = frozenset("0123456789.,+-−–—±%×eE()[] ")


def is_numeric_column(cells: Sequence[str]) -> bool:
    """Whether every cell is a number, an interval, a number with a spread, a dash or empty."""

    def has_number(cell: str) -> bool:
        return any(character.isdigit() for character in cell)

    plain = [cell.replace("nan", "0").replace("inf", "0") for cell in cells]
    return any(has_number(cell) for cell in plain) and all(
        set(cell) <= _NUMBER_CHARACTERS and (has_number(cell) or cell.strip() in "-−–—")
        for cell in plain
    )


def check_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Raise `ValueError` where a row has not one cell for each column."""
    for index, row in enumerate(rows):
        if len(row) != len(columns):
            raise ValueError(f"row {index} has {len(row)} cells for {len(columns)} columns")


def _printable(cell: str) -> str:
    """The cell on one line: a name from a user's file must not move the terminal's cursor."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cell)


def _width(cell: str) -> int:
    """Terminal columns that the cell takes: none for combining marks, two for wide characters."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in cell
    )


def format_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned table: a header, a rule, one line for each row; numbers stand to the right.

    No trailing blanks, no newline at the end. Raises `ValueError` for a row of the wrong length.
    """
    check_rows(columns, rows)
    lines = [[_printable(cell) for cell in line] for line in [columns, *rows]]
    widths = [max(_width(line[j]) for line in lines) for j in range(len(columns))]
    right = [is_numeric_column([row[j] for row in rows]) for j in range(len(columns))]

    def align(line: Sequence[str]) -> str:
        pads = [" " * (width - _width(cell)) for cell, width in zip(line, widths)]
        cells = [pad + cell if r else cell + pad for cell, pad, r in zip(line, pads, right)]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([align(lines[0]), rule, *(align(line) for line in lines[1:])])


def _exponent(value: float, digits: int) -> int:
    """The power of ten of the value once rounded to that many significant digits."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _fixed(value: float, decimals: int) -> str:
    """Fixed-point; negative decimals round to tens, hundreds and so on."""
    return f"{round(value, decimals) + 0.0:.{max(decimals, 0)}f}"


def in_decimals(values: Sequence[float | int], decimals: int) -> str:
    """One value with so many decimals; several as `mean_and_std` writes them."""
    return f"{values[0]:.{decimals}f}" if len(values) == 1 else mean_and_std(values)


def mean_and_std(values: Sequence[SupportsFloat] | np.ndarray) -> str:
    """Mean ± standard deviation (n − 1) of the values, the spread to 2 significant digits.

    One value: itself to 3 significant digits. Values that are not finite are left out and counted,
    as in "0.31 ± 0.02 (1 of 4 not finite)". Raises `ValueError` where there are no values.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size == 0:
        raise ValueError("mean_and_std needs at least one value")
    finite = numbers[np.isfinite(numbers)]
    lost = numbers.size - finite.size
    if finite.size == 0:
        return f"{numbers[0]}" if numbers.size == 1 else f"nan ({lost} of {lost} not finite)"
    note = f" ({lost} of {numbers.size} not finite)" if lost else ""
    if finite.size == 1:
        return _one_value(float(finite[0])) + note
    return _mean_with_spread(float(finite.mean()), float(finite.std(ddof=1))) + note


def _one_value(value: float) -> str:
    if value == 0:
        return "0"
    exponent = _exponent(value, 3)
    return _fixed(value, 2 - exponent) if -4 <= exponent < 6 else f"{value:.2e}"


def _mean_with_spread(mean: float, spread: float) -> str:
    if spread == 0:
        return f"{_one_value(mean)} ± 0"
    largest = math.floor(math.log10(max(abs(mean), spread)))
    if not -4 <= largest < 6:
        scaled = _mean_with_spread(mean / 10.0**largest, spread / 10.0**largest)
        return f"({scaled})e{largest:+03d}"
    decimals = 1 - _exponent(spread, 2)
    if largest + decimals > 8:  # the spread is below anything worth printing of the mean
        return f"{_fixed(mean, 8 - largest)} ± {spread:.1e}"
    return f"{_fixed(mean, decimals)} ± {_fixed(spread, decimals)}"
