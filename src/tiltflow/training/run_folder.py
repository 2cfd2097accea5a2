"""The folder of a run: new, unfinished or finished, and whose it is at present.

Who writes into it holds a lock on `checkpoints/lock`, which the system gives back when the process
ends, however it ends. Where there is no `fcntl` (Windows), nobody is kept out.
"""

import contextlib
import os
from pathlib import Path

from tiltflow.data.errors import InputError

try:
    import fcntl
except ImportError:
    fcntl = None

CHECKPOINTS, LOCK = "checkpoints", "lock"
MODEL = ("config.json", "model.safetensors")


def check_run_folder(run: Path, resume: bool) -> None:
    """Refuse a folder that a fit cannot be written into, or gone on with in it.

    Raises:
        InputError: it says what is there and what to do.
    """
    if run.exists() and not run.is_dir():
        raise InputError(f"{run}: is a file; name a folder")
    above = next(folder for folder in (run, *run.absolute().parents) if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{run}: no folder can be made in '{above}'; choose another place")
    if not run.is_dir() or not any(run.iterdir()):
        return
    _check_lock(run)
    finished = is_finished(run)
    begun = (run / CHECKPOINTS).is_dir() and not finished
    if not resume and begun:
        raise InputError(
            f"{run}: holds an unfinished fit; go on with it by --resume, or name a new folder"
        )
    if not resume:
        raise InputError(f"{run}: the folder is not empty; name a new one or empty it")
    if not begun and not finished:
        raise InputError(f"{run}: holds no fit to go on with; name the folder of one")


def is_finished(run: Path) -> bool:
    """Whether a fit has saved its model, and removed its checkpoints, which it does last."""
    return all((run / name).is_file() for name in MODEL) and not checkpoint_files(run)


def checkpoint_files(run: Path) -> list[Path]:
    """The checkpoints that are there, good or damaged, the newest last."""
    return sorted((run / CHECKPOINTS).glob("[0-9]" * 8 + "-*.safetensors"))


def take_lock(run: Path) -> int:
    """Make the folder and lock it; returns the open file, for `release_lock`.

    Raises:
        InputError: another process has it, which is named, or nothing can be written there.
    """
    path = run / CHECKPOINTS / LOCK
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(
                f"{run}: cannot be written into ({error.strerror}); choose another place"
            ) from None
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(run, file) from None
        # A run that ends removes the file: what was locked then may be no file of the folder.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                break
        os.close(file)
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return file


def _check_lock(run: Path) -> None:
    """Refuse a folder that is another's, before much is read."""
    path = run / CHECKPOINTS / LOCK
    if fcntl is None or not path.is_file():
        return
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _held(run, file) from None
    os.close(file)


def _held(run: Path, file: int) -> InputError:
    holder = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
    os.close(file)
    return InputError(
        f"{run}: process {holder} is fitting into it; wait for it or name another folder"
    )


def release_lock(file: int) -> None:
    """Let the next one in."""
    os.close(file)
