"""A table as it is given, or in batches where it is too large. Nothing heavy is imported."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tiltflow.data.streams import Stream, count_cells, open_stream, stream_of
from tiltflow.data.tables import as_frame, read_features
from tiltflow.memory import streams_rows
from tiltflow.training.sizes import Sizes


def load_table(
    X: Any, sizes: dict[str, int | None], label_column: str | None = None, *, whole: bool = False
) -> Any:
    """X as a table in memory, or as a `Stream` where it is large and need not be `whole`.

    X is an array, a list, a data frame, a stream, or the path of a file with an optional
    `label_column`.
    """
    if isinstance(X, str | Path):
        if not whole and streams_rows(*count_cells(X), **sizes):
            return open_stream(X, label_column)
        return as_frame(read_features(X, label_column)[0])
    if isinstance(X, pl.LazyFrame):
        return X.collect() if whole else stream_of(X)
    if isinstance(X, Stream):
        return X
    of_rows = isinstance(X, np.ndarray) or hasattr(X, "columns")
    if of_rows and not whole and len(X.shape) == 2 and streams_rows(*X.shape, **sizes):
        return stream_of(X)
    return X


def sizes_of(parameters: dict[str, Any]) -> dict[str, int | None]:
    """Of the parameters of an estimator those that `choose_sizes` takes; None follows the rows."""
    return {name: parameters[name] for name in Sizes._fields}
