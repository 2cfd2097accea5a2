"""One pass over all rows of a stream: what a fit has to know of them before it begins.

As in `find_schema`: categorical columns and their levels, what is no number, what is missing, and
constant columns, with the same refusals.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from tiltflow.data.categories import (
    Levels,
    check_declared,
    declared_names,
    encode,
    is_missing,
    mostly_words,
    order_levels,
)
from tiltflow.data.checks import (
    as_numbers,
    check_count,
    is_number,
    not_finite,
    refuse_constant,
)
from tiltflow.data.column_types import typed_levels
from tiltflow.data.errors import InputError
from tiltflow.data.matching import match_and_warn
from tiltflow.data.schema import Schema
from tiltflow.data.streams import Stream, take_columns

MOST_COUNTED = 100_000
"""Different cells of a column of text that are counted; what has more is no category."""


class Scanned(NamedTuple):
    """A stream, and what was found over all its rows."""

    stream: Stream
    rows: int
    levels: Levels
    digest: str
    """Of all cells, so that nobody goes on with a fit to other data."""


def scan(stream: Stream, categorical: Iterable[Any] | None) -> Scanned:
    """Go through all rows once; `categorical` names columns that are so whatever they hold.

    Raises:
        InputError: as `find_schema`, and where a categorical column has over 100 000 levels.
    """
    declared = declared_names(categorical)
    check_declared(declared, stream.columns)
    found = [
        _Column(name, stream.source, asked=name in declared or name in stream.levels)
        for name in stream.columns
    ]
    rows = 0
    for batch in stream.batches():
        # Levels are of the kind that a whole table would have in one array.
        kind = np.result_type(*(cells.dtype for cells in batch.values()))
        for column in found:
            cells = batch[column.name]
            column.add(cells.astype(kind) if column.asked else cells, rows)
        rows += len(batch[stream.columns[0]])
    levels = {}
    for column in found:
        if column.is_categorical():
            levels[column.name] = column.order(stream.levels.get(column.name, ()))
    _refuse_cells(found, levels, stream.source)
    check_count(rows, len(found), stream.source)
    for column in found:
        if column.name not in levels:
            refuse_constant(column.least, column.most, column.name, stream.source)
    digest = hashlib.sha256(b"".join(column.digest.digest() for column in found))
    return Scanned(stream, rows, typed_levels(levels, stream.types), digest.hexdigest())


def encoded(stream: Stream, levels: Levels) -> Iterator[Float[np.ndarray, "n d"]]:
    """All rows as numbers, a batch at a time, codes in the place of levels, nan where one misses.

    Raises:
        InputError: text where numbers were, or a level that is not known.
    """
    first_row = 0
    for batch in stream.batches():
        parts = []
        for name, cells in batch.items():
            column, place = cells[:, None], (stream.source, first_row)
            if name in levels:
                parts.append(encode(column, [name], levels, *place).astype(np.float64))
            else:
                parts.append(as_numbers(column, [name], *place))
        first_row += len(parts[0])
        yield np.concatenate(parts, axis=1)


def numbers_in_batches(schema: Schema, stream: Stream) -> Iterator[Float[np.ndarray, "n d"]]:
    """Rows of a stream as `to_numbers` gives those of a table, with the same warnings.

    A batch with a cell that is not finite ends it, once all such cells have been counted.

    Raises (while they are taken):
        InputError: a column is missing, text among numbers, or cells that are not finite.
    """
    names = dict(zip(stream.columns, stream.columns))
    taken = match_and_warn(
        names,
        schema.columns,
        stream.source,
        named=stream.named,
        names_are_real=schema.named,
    )
    bad = {name: _Bad() for name in schema.columns}
    first_row = 0
    for rows in encoded(take_columns(stream, taken), schema.levels):
        for name, column in zip(schema.columns, rows.T):
            bad[name].add(~np.isfinite(column), column, first_row)
        first_row += len(rows)
        if not any(each.count for each in bad.values()):
            yield rows
    _refuse_bad(bad, stream.source)


@dataclass
class _Bad:
    """Cells that a fit cannot take: how many, and the first."""

    count: int = 0
    row: int = 0
    value: float = math.nan

    def add(self, bad: Any, values: Any, first_row: int) -> None:
        bad = np.asarray(bad)
        if not bad.any():
            return
        if self.count == 0:
            place = int(bad.argmax())
            self.row, self.value = first_row + place, float(values[place])
        self.count += int(bad.sum())


@dataclass
class _Column:
    """What was found in one column so far."""

    name: str
    source: str
    asked: bool
    """Whether it was declared as categorical."""
    digest: Any = field(default_factory=hashlib.sha256)
    counts: Counter[Any] = field(default_factory=Counter)
    words: int = 0
    numbers: int = 0
    first_word: tuple[int, Any] = (0, "")
    missing: _Bad = field(default_factory=_Bad)
    no_number: InputError | None = None
    not_finite: _Bad = field(default_factory=_Bad)
    least: float = math.inf
    most: float = -math.inf

    def add(self, cells: Shaped[np.ndarray, " n"], first_row: int) -> None:
        """Take the next cells, the first of which is in row `first_row` of the table."""
        of_objects = cells.dtype.kind in "OU"
        if self.asked or of_objects:
            self._count(list(cells), first_row)
        if of_objects:
            self.digest.update("".join(f"{cell!r}\0" for cell in cells.tolist()).encode())
        else:
            self.digest.update(np.ascontiguousarray(cells, np.float64).data)
        if self.asked or self.no_number:
            return
        try:
            numbers = as_numbers(cells[:, None], [self.name], self.source, first_row)[:, 0]
        except InputError as error:
            self.no_number = error  # only if the column is no text
            return
        self.not_finite.add(~np.isfinite(numbers), numbers, first_row)
        self.least = min(self.least, float(numbers.min()))
        self.most = max(self.most, float(numbers.max()))

    def is_categorical(self) -> bool:
        """Whether it was declared so, or is text; raises `InputError` as `mostly_words`."""
        words = self.words, self.numbers, self.first_word
        return self.asked or mostly_words(*words, self.name, self.source)

    def order(self, ordered: Sequence[Any]) -> tuple[Any, ...]:
        """Its levels, as `order_levels` has them."""
        if self.asked and len(self.counts) > MOST_COUNTED:
            raise InputError(
                f"{self.source}: column '{self.name}' holds over {MOST_COUNTED} levels, too many "
                "to learn their shares; do not declare it as categorical, or drop it"
            )
        return order_levels(self.counts, self.name, ordered, self.source, asked=self.asked)

    def _count(self, cells: list[Any], first_row: int) -> None:
        found = Counter(cell if isinstance(cell, Hashable) else 0 for cell in cells)
        missing = [cell for cell in found if is_missing(cell)]
        if missing:
            self.missing.add(
                [is_missing(cell) for cell in cells], [math.nan] * len(cells), first_row
            )
            for cell in missing:
                del found[cell]
        words = {cell for cell in found if isinstance(cell, str) and not is_number(cell)}
        if words and not self.words:
            place = next(
                i for i, cell in enumerate(cells) if isinstance(cell, str) and cell in words
            )
            self.first_word = first_row + place, cells[place]
        of_words = sum(found[cell] for cell in words)
        self.words += of_words
        self.numbers += found.total() - of_words
        if len(self.counts) <= MOST_COUNTED:
            self.counts.update(found)
        else:  # refused in the end: only the number of rows still matters
            self.counts[next(iter(self.counts))] += found.total()


def _refuse_cells(found: Sequence[_Column], levels: Levels, source: str) -> None:
    """Raise an `InputError` at the first cell that is no number or not finite, if there is one."""
    for column in found:
        if column.name not in levels and column.no_number:
            raise column.no_number
    _refuse_bad(
        {
            column.name: column.missing if column.name in levels else column.not_finite
            for column in found
        },
        source,
    )


def _refuse_bad(bad: dict[str, _Bad], source: str) -> None:
    count = sum(each.count for each in bad.values())
    if count:
        name = min((name for name in bad if bad[name].count), key=lambda name: bad[name].row)
        raise not_finite(bad[name].row, name, bad[name].value, count, source)
