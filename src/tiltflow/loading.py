"""A table as it is given, or in batches where it is too large. Nothing heavy is imported."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tiltflow.data.delimited import KeepText
from tiltflow.data.errors import InputError, reason
from tiltflow.data.streams import Stream, count_cells, open_stream, stream_of
from tiltflow.data.tables import as_frame, as_in_file, read_features
from tiltflow.memory import streams_rows
from tiltflow.training.sizes import Sizes


def load_table(
    X: Any,
    sizes: dict[str, int | None],
    label_column: str | None = None,
    *,
    whole: bool = False,
    keep_text: KeepText | None = None,
) -> Any:
    """X as a table in memory, or as a `Stream` where it is large and need not be `whole`.

    X is an array, a list, a data frame, an Arrow table or whatever gives itself as a stream of
    Arrow's, a stream, or the path of a file with an optional `label_column`, of which `keep_text`
    names columns of text (`schema.text_columns`).

    Raises:
        InputError: the file, or Arrow's stream, cannot be read.
    """
    if isinstance(X, str | Path):
        if not whole and streams_rows(*count_cells(X), **sizes):
            return open_stream(X, label_column, keep_text)
        return as_in_file(as_frame(read_features(X, label_column, keep_text)[0]), Path(X))
    # Frames of polars and pandas have the method as well, but need no copy.
    if hasattr(X, "__arrow_c_stream__") and not hasattr(X, "to_numpy"):
        X = _from_arrow(X)
    if isinstance(X, pl.LazyFrame):
        return X.collect() if whole else stream_of(X)
    if isinstance(X, Stream):
        return X
    of_rows = isinstance(X, np.ndarray) or hasattr(X, "columns")
    if of_rows and not whole and len(X.shape) == 2 and streams_rows(*X.shape, **sizes):
        return stream_of(X)
    return X


def source_of(X: Any) -> str:
    """What a message calls X: a file by its path, all else "X"."""
    return str(X) if isinstance(X, str | Path) else "X"


def _from_arrow(X: Any) -> pl.DataFrame:
    try:
        return pl.DataFrame(X)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise InputError(
            f"X: cannot be read as a table of Arrow ({reason(error)}); give a table with columns"
        ) from None


def sizes_of(parameters: dict[str, Any]) -> dict[str, int | None]:
    """Of the parameters of an estimator those that `choose_sizes` takes; None follows the rows."""
    return {name: parameters[name] for name in Sizes._fields}
