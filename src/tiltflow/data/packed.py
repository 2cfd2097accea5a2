"""Files packed by gzip: what they hold is counted before it is taken into memory."""

import gzip
import zlib
from pathlib import Path

from tiltflow.data.errors import InputError
from tiltflow.data.machine import check_room, find_machine

MOST = 1032
"""Bytes that deflate can make of one."""
AT_ONCE = 2**20


def check_unpacked(path: Path) -> None:
    """Raise `InputError` where a file is damaged, or takes more than the free memory when unpacked.

    Only files that could take so much are gone through for it.
    """
    machine = find_machine()
    if machine is None or MOST * path.stat().st_size <= machine.available:
        return
    size = 0
    try:
        with gzip.open(path, "rb") as file:
            while content := file.read(AT_ONCE):
                size += len(content)
                if size > machine.available:
                    check_room(size, str(path), "what is packed in it, so far as it was unpacked,")
    except (EOFError, OSError, zlib.error) as error:
        raise damaged(path, error) from None


def unpack(path: Path) -> bytes:
    """All that is packed in a file; raises as `check_unpacked`."""
    check_unpacked(path)
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, OSError, zlib.error) as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> InputError:
    """What to say of what `gzip` raises."""
    return InputError(f"{path}: the gzip file is damaged ({error}); write it again")
