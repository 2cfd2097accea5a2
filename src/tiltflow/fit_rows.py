"""The rows of a fit: those that it holds, of a small table all, of a large one a sample.

A large table (`memory.streams_rows`) is gone through twice: `scan` finds what its columns are, then
its rows go to the disk in random order. The first of these are held out, those that follow are the
sample that serves wherever it is enough: grids, preprocessing, base, proposal, the last layer of
the energy. The energy is trained on all rows but those held out, in stretches that are read one
after the other.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float

from tiltflow.data.dequantisation import dequantise
from tiltflow.data.errors import InputError
from tiltflow.data.scanning import Scanned, encoded, scan
from tiltflow.data.schema import Schema, describe_columns, find_schema, warn_of_ties
from tiltflow.data.shuffled import ShuffledRows, shuffle
from tiltflow.data.streams import Stream, count_cells, open_stream, stream_of
from tiltflow.data.tables import as_frame, read_features
from tiltflow.data.weighting import check_weights, effective_rows, split_rows
from tiltflow.memory import CHUNK_ROWS, MOST_CELLS, SAMPLE_ROWS, check_memory, streams_rows

HELD_OUT_ROWS = 50_000
"""Most rows of a large table that are held out."""
KEPT_ROWS = 2000

Begin = Callable[..., None]
"""Called with levels, columns and the data (arrays, or their digest) once they are checked."""


class FitRows(NamedTuple):
    """Rows in the user's units, columns on grids spread by noise, and what is known of them."""

    schema: Schema
    held_out: Float[np.ndarray, "m d"]
    training: Float[np.ndarray, "n d"]
    kept: Float[np.ndarray, "k d"]
    """As they were given, for the report: 2000 at most."""
    independent: float
    """How many held-out rows of equal weight have the same error."""
    stretch: Callable[[int, int], Float[np.ndarray, "_ d"]] | None
    """Of a large table, as many training rows as asked for from a place on, ever round."""


def load_table(
    X: Any, sizes: dict[str, int], label_column: str | None = None, *, whole: bool = False
) -> Any:
    """X as a table in memory, or as a `Stream` where it is large and need not be `whole`.

    X is an array, a list, a data frame, or the path of a file with an optional `label_column`.
    """
    if isinstance(X, str | Path):
        if not whole and streams_rows(*count_cells(X), **sizes):
            return open_stream(X, label_column)
        return as_frame(read_features(X, label_column)[0])
    if isinstance(X, pl.LazyFrame):
        return X.collect() if whole else stream_of(X)
    of_rows = isinstance(X, np.ndarray) or hasattr(X, "columns")
    if of_rows and not whole and len(X.shape) == 2 and streams_rows(*X.shape, **sizes):
        return stream_of(X)
    return X


def take_rows(
    stack: contextlib.ExitStack,
    X: Any,
    sample_weight: Any,
    *,
    categorical: Sequence[str] | None,
    held_out_share: float,
    seed: int,
    sizes: dict[str, int],
    begin: Begin,
    folder: Callable[[], Path | None],
) -> FitRows:
    """The rows of a fit to X, a table, the path of one, or one that was scanned.

    What lies on the disk does so until `stack` is closed, in `folder`, which is asked for after
    `begin` was called.

    Raises:
        InputError: as `find_schema`, `check_weights`, `check_memory` and `shuffle`.
    """
    generator = np.random.default_rng(seed)
    if not isinstance(X, Scanned):
        X = load_table(X, sizes, whole=sample_weight is not None)
    if isinstance(X, Stream):
        X = scan(X, categorical)
    if not isinstance(X, Scanned):
        return _in_memory(generator, X, sample_weight, categorical, held_out_share, sizes, begin)
    if sample_weight is not None:
        raise InputError("sample_weight: rows that are streamed have no weights; give an array")
    columns = X.stream.columns
    held = _most(SAMPLE_ROWS, len(columns)) + _most(HELD_OUT_ROWS, len(columns)) + CHUNK_ROWS
    check_memory(held, len(columns), **sizes)
    begin(X.levels, columns, X.digest)
    rows = stack.enter_context(
        shuffle(generator, encoded(X.stream, X.levels), X.rows, len(columns), folder())
    )
    return _streamed(generator, X, rows, held_out_share, seed)


def _in_memory(
    generator: np.random.Generator,
    X: Any,
    sample_weight: Any,
    categorical: Sequence[str] | None,
    held_out_share: float,
    sizes: dict[str, int],
    begin: Begin,
) -> FitRows:
    schema, rows = find_schema(X, categorical)
    weights = None if sample_weight is None else check_weights(sample_weight, len(rows))
    check_memory(*rows.shape, **sizes)
    begin(schema.levels, schema.columns, rows, weights)
    warn_of_ties(rows, schema)
    of_held_out, of_training = split_rows(generator, len(rows), held_out_share, weights)
    order = np.concatenate([of_held_out, of_training])
    spread = dequantise(generator, rows[order], schema.quanta)
    held_out, training = np.split(spread, [len(of_held_out)])
    kept = rows[order[:KEPT_ROWS]]
    return FitRows(schema, held_out, training, kept, effective_rows(of_held_out), None)


def _streamed(
    generator: np.random.Generator,
    scanned: Scanned,
    rows: ShuffledRows,
    held_out_share: float,
    seed: int,
) -> FitRows:
    first = min(_most(HELD_OUT_ROWS, rows.width), max(1, round(held_out_share * rows.rows)))
    sample = rows.read(0, min(rows.rows, first + _most(SAMPLE_ROWS, rows.width)))
    schema = describe_columns(sample, scanned.stream.columns, scanned.levels)
    warn_of_ties(sample, schema)
    held_out, training = np.split(dequantise(generator, sample, schema.quanta), [first])
    trained_on = rows.rows - first

    def stretch(start: int, count: int) -> Float[np.ndarray, "_ d"]:
        parts, place = [], start
        while count:
            taken = min(count, trained_on - place % trained_on)
            parts.append(rows.read(first + place % trained_on, taken))
            place, count = place + taken, count - taken
        # By its place, so that a fit that goes on has the same noise.
        noise = np.random.default_rng([seed, start])
        return dequantise(noise, np.concatenate(parts), schema.quanta)

    return FitRows(schema, held_out, training, sample[:KEPT_ROWS], first, stretch)


def _most(rows: int, width: int) -> int:
    """So many rows, or fewer of a table so wide that their cells would be those of a large one."""
    return min(rows, max(1000, MOST_CELLS // width))
