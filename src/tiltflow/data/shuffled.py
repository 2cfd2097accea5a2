"""Rows on the disk, in random order: any stretch of them is a sample, read at one go.

Every row goes to one of several heaps at random; a heap is small enough to be put in random order
in memory, and one heap after the other is the table in an order that is uniform over all. The files
have no names, so that nothing is left of them when the process ends, however it ends.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Float

from tiltflow.data.errors import InputError

HEAP_BYTES = 64_000_000
MOST_HEAPS = 128


class ShuffledRows(NamedTuple):
    """Rows of float64 in a file."""

    file: IO[bytes]
    rows: int
    width: int

    def read(self, first: int, count: int) -> Float[np.ndarray, "count width"]:
        """Rows from the `first` on."""
        row_bytes = 8 * self.width
        self.file.seek(first * row_bytes)
        found = np.frombuffer(self.file.read(count * row_bytes), np.float64)
        return found.reshape(count, self.width)


@contextlib.contextmanager
def shuffle(
    generator: np.random.Generator,
    batches: Iterable[Float[np.ndarray, "_ width"]],
    rows: int,
    width: int,
    folder: Path | None,
) -> Generator[ShuffledRows, None, None]:
    """Write all `batches`, `rows` rows together, into a file in `folder`, as long as this is open.

    With None, that is the system's folder for temporary files.

    Raises:
        InputError: there is no room, or the number of rows is another.
    """
    size = 8 * rows * width
    heaps = min(MOST_HEAPS, -(-size // HEAP_BYTES))
    place = tempfile.gettempdir() if folder is None else folder
    needed = size + size // heaps
    if shutil.disk_usage(place).free < needed:
        raise InputError(
            f"{place}: the rows take {needed / 1e9:.1f} GB there while the fit runs, which is more "
            "than is free; make room, or name another folder (of a run, or by TMPDIR)"
        )
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile(dir=place)) for _ in range(heaps)]
        for batch in batches:
            heap = generator.integers(heaps, size=len(batch))
            for number, file in enumerate(files):
                file.write(np.ascontiguousarray(batch[heap == number], np.float64).data)
        if sum(file.tell() for file in files) != size:
            raise InputError("the table: has changed while it was read; begin anew")
        store = stack.enter_context(tempfile.TemporaryFile(dir=place))
        for file in files:
            file.seek(0)
            heap = np.frombuffer(file.read(), np.float64).reshape(-1, width)
            file.close()
            store.write(generator.permutation(heap).data)
        store.flush()
        yield ShuffledRows(store, rows, width)
