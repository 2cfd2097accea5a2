"""The one exception for input a user can mend, and how what libraries raise becomes one."""

import contextlib
from collections.abc import Generator
from pathlib import Path


class InputError(ValueError):
    """Bad input: the message names what and where, what was found, and how to mend it.

    The shell prints it as one line and exits with code 2; in Python it is a `ValueError`.
    """


def reason(error: BaseException) -> str:
    """The first line of what a library says, as part of a message; its name where it says none."""
    line = (str(error).splitlines() or [""])[0].strip()
    return line[:200] or type(error).__name__


@contextlib.contextmanager
def damage_is_named(path: Path, kind: str) -> Generator[None, None, None]:
    """Turn what libraries raise at damaged files into one line that names the file."""
    try:
        yield
    except (InputError, PermissionError):
        raise
    except MemoryError as error:
        raise too_large(path, error) from None
    except BaseException as error:
        # A panic of Polars is no Exception; it names its class, which it does not show.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(
            f"{path}: cannot be read as {kind} ({reason(error)}); the file is damaged or of "
            "another kind: write it again"
        ) from None


def too_large(path: Path, error: MemoryError) -> InputError:
    """What to say where memory did not suffice."""
    return InputError(
        f"{path}: takes more memory than is free ({reason(error)}); give fewer rows or columns"
    )
