"""Compilation in the background, while the main thread is busy with something else.

XLA compiles without Python's lock. A program that was lowered and compiled for some arguments is
found in JAX's cache when it is called with others of the same shapes, so that all the caller has
to do is to wait for it.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class CompileAhead:
    """Two threads that compile programs in the order in which they are submitted.

    Leave the context before the programs are called that were submitted in it, or wait for each.
    """

    def __enter__(self) -> "CompileAhead":
        """Start the threads."""
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="compile-ahead")
        return self

    def submit(self, program: Any, *arguments: Any) -> "Future[None]":
        """Compile `program`, a function of `eqx.filter_jit`, for arguments like these.

        It is traced here: two threads that trace would wait for one another, and the first program
        for the later ones.
        """
        lowered = program.lower(*arguments)
        return self._pool.submit(lambda: lowered.compile() and None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for all of them; after an error, only for the one that is being compiled."""
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
