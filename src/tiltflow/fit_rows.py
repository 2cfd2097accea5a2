"""The rows of a fit: those that it holds, of a small table all, of a large one a sample.

A large table (`memory.streams_rows`) is gone through twice: `scan` finds what its columns are, then
its rows go to the disk in random order. The first of these are held out, those that follow are the
sample that serves wherever it is enough: grids, preprocessing, base, proposal, the last layer of
the energy. The energy is trained on all rows but those held out, in stretches that are read one
after the other.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from flowjax.bijections import AbstractBijection
from jaxtyping import Float, Int

from tiltflow.data.categories import Levels, declared_names
from tiltflow.data.dequantisation import dequantise
from tiltflow.data.errors import InputError
from tiltflow.data.preprocessing import to_model_units
from tiltflow.data.scanning import Scanned, encoded, scan
from tiltflow.data.schema import (
    Schema,
    describe_columns,
    find_schema,
    on_grids,
    warn_of_ties,
)
from tiltflow.data.shuffled import ShuffledRows, shuffle
from tiltflow.data.streams import Stream
from tiltflow.data.weighting import check_weights, count_held_out, effective_rows, split_rows
from tiltflow.loading import load_table, sizes_of, source_of
from tiltflow.memory import CHUNK_ROWS, MOST_CELLS, SAMPLE_ROWS, check_memory
from tiltflow.training.checkpoints import Checkpoints
from tiltflow.training.identity import identify

HELD_OUT_ROWS = 50_000
"""Most rows of a large table that are held out."""
KEPT_ROWS = 2000

Stretch = Callable[[int, int], Float[np.ndarray, "_ d"]]
"""As many training rows of a large table as asked for, from a place on, ever round."""


class FitRows(NamedTuple):
    """Rows in the user's units, columns on grids spread by noise, and what is known of them."""

    schema: Schema
    rows: int
    """Of the whole table."""
    held_out: Float[np.ndarray, "m d"]
    training: Float[np.ndarray, "n d"]
    kept: Float[np.ndarray, "k d"]
    """As they were given, for the report: 2000 at most."""
    independent_held_out: float
    independent: float
    """How many rows of equal weight have the same error: of those held out, of the training's."""
    stretch: Stretch | None
    """Of a large table; None of a small one, of which all training rows are here."""
    numbers: Int[np.ndarray, " k"] | None
    """Places in the table of the rows held out and then of those of the training, from 0; None of a
    large table, whose rows are shuffled on the disk."""


def take_rows(
    stack: contextlib.ExitStack,
    X: Any,
    sample_weight: Any,
    parameters: dict[str, Any],
    seed: int,
    checkpoints: Checkpoints | None,
) -> FitRows:
    """The rows of a fit to X: a table, the path of one, a stream, or one that was scanned.

    `parameters` are the estimator's. `checkpoints` are begun once the rows are checked. What lies
    on the disk does so until `stack` is closed: with the checkpoints, if there are any.

    Raises:
        InputError: as `find_schema`, `check_weights`, `count_held_out`, `check_memory`, `shuffle`
            and `identify`.
    """
    generator = np.random.default_rng(seed)
    categorical, sizes = parameters["categorical_features"], sizes_of(parameters)
    held_out_share = parameters["validation_fraction"]
    declared = None if categorical is None else declared_names(categorical)

    def begin(levels: Levels, columns: Sequence[str], *data: np.ndarray | str | None) -> None:
        if checkpoints:
            named = {name: list(map(str, each)) for name, each in levels.items()}
            said = {**parameters, "categorical_features": declared, "levels": named}
            checkpoints.begin(identify(said, list(columns), *data))

    source = source_of(X)
    if not isinstance(X, Scanned):
        X = load_table(X, sizes, whole=sample_weight is not None)
    if isinstance(X, Stream):
        X = scan(X, categorical)
    if not isinstance(X, Scanned):
        schema, rows = find_schema(X, categorical, source)
        weights = None if sample_weight is None else check_weights(sample_weight, len(rows))
        check_memory(*rows.shape, **sizes)
        taken = _all_rows(generator, schema, rows, weights, held_out_share)
        begin(schema.levels, schema.columns, rows, weights)
        warn_of_ties(rows, schema)
        return taken
    if sample_weight is not None:
        raise InputError("sample_weight: rows that are streamed have no weights; give an array")
    columns = X.stream.columns
    held = _most(SAMPLE_ROWS, len(columns)) + _most(HELD_OUT_ROWS, len(columns)) + CHUNK_ROWS
    check_memory(held, len(columns), **sizes)
    count_held_out(X.rows, held_out_share)  # refused before the checkpoints are begun
    begin(X.levels, columns, X.digest)
    folder = checkpoints.folder if checkpoints else None
    on_disk = shuffle(generator, encoded(X.stream, X.levels), X.rows, len(columns), folder)
    return _sampled_rows(generator, X, stack.enter_context(on_disk), held_out_share, seed)


def stretch_in_model_units(rows: FitRows, bijection: AbstractBijection) -> Stretch | None:
    """The stretches of a large table as the energy is trained on them."""
    stretch = rows.stretch
    if stretch is None:
        return None
    return lambda first, count: to_model_units(bijection, stretch(first, count))[0]


def numbered_rows(
    rows: FitRows,
) -> tuple[Float[np.ndarray, "k d"], Int[np.ndarray, " k"] | None]:
    """Rows as they were given, each once, with their places in the table, from 0, where known.

    Of a small table all, or `SAMPLE_ROWS` of them at random; of a large one those that are kept.
    """
    if rows.numbers is None:
        return rows.kept, None
    _, first = np.unique(rows.numbers, return_index=True)
    first = np.sort(first)[:SAMPLE_ROWS]
    of_held_out = first < len(rows.held_out)
    spread = np.concatenate(
        [rows.held_out[first[of_held_out]], rows.training[first[~of_held_out] - len(rows.held_out)]]
    )
    return on_grids(rows.schema, spread), rows.numbers[first]


def _all_rows(
    generator: np.random.Generator,
    schema: Schema,
    rows: Float[np.ndarray, "n d"],
    weights: Float[np.ndarray, " n"] | None,
    held_out_share: float,
) -> FitRows:
    of_held_out, of_training = split_rows(generator, len(rows), held_out_share, weights)
    order = np.concatenate([of_held_out, of_training])
    spread = dequantise(generator, rows[order], schema.quanta)
    held_out, training = np.split(spread, [len(of_held_out)])
    kept = rows[order[:KEPT_ROWS]]
    independent = effective_rows(of_held_out), effective_rows(of_training)
    return FitRows(schema, len(rows), held_out, training, kept, *independent, None, order)


def _sampled_rows(
    generator: np.random.Generator,
    scanned: Scanned,
    rows: ShuffledRows,
    held_out_share: float,
    seed: int,
) -> FitRows:
    first = min(_most(HELD_OUT_ROWS, rows.width), count_held_out(rows.rows, held_out_share))
    sample = rows.read(0, min(rows.rows, first + _most(SAMPLE_ROWS, rows.width)))
    stream = scanned.stream
    schema = describe_columns(
        sample, stream.columns, scanned.levels, stream.types, named=stream.named
    )
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

    kept = sample[:KEPT_ROWS]
    # The sample bounds how well weights are known, whatever the energy saw besides.
    independent = float(len(held_out)), float(len(training))
    return FitRows(schema, rows.rows, held_out, training, kept, *independent, stretch, None)


def _most(rows: int, width: int) -> int:
    """So many rows, or fewer of a table so wide that their cells would be those of a large one."""
    return min(rows, max(1000, MOST_CELLS // width))
