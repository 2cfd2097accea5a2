"""What Polars prints when it panics at a damaged file, which is no more than what it raises."""

import contextlib
import os
import tempfile
from collections.abc import Generator


@contextlib.contextmanager
def panics_are_not_printed() -> Generator[None, None, None]:
    """Hold back what is written to stderr meanwhile; it is written after all unless this panics.

    A panic is printed by the threads of Polars, each with its own, before any of it is raised.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # a process without a stderr prints nothing
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        panicked = False
        try:
            yield
        except BaseException as error:
            panicked = type(error).__name__ == "PanicException"
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            if not panicked:
                held.seek(0)
                # A pipe that nobody reads any more is no reason to fail.
                with contextlib.suppress(OSError):
                    os.write(2, held.read())
