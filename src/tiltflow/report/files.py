"""Write a whole file or none, by a temporary name; add lines to one that grows, and read them."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path`; a reader sees the old file or the new one, never a part.

    Raises `OSError` where the folder is missing or not writable; nothing is left behind then.
    """
    target = Path(path)
    # Beside the target, because a rename is atomic only within one file system.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def append_json_lines(path: Path, lines: Iterable[Any]) -> None:
    """Add a line of JSON for each of `lines`, so that a long run that is stopped has kept them."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def json_lines(content: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Lines that are JSON objects, each as it stands and as what it means.

    Others are left out: the last one may be half written, and any may be damaged.
    """
    for line in content.splitlines():
        try:
            value = json.loads(line.decode())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield line, value


def keep_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Leave only these lines in a file, so that what is added does not go on with half a line."""
    content = b"".join(line + b"\n" for line in lines)
    if content != path.read_bytes():
        write_atomically(path, content)
