"""Checkpoints of a running fit, from which it goes on bit for bit.

A fit is a sequence of stages: preprocessing, base, energy, and what follows. A checkpoint holds the
results of those that are done and all that the loop of the present one carries. Going on is to run
the fit again: stages that are done give back their results (and their reports once more), a loop
starts where it was. Templates for the arrays are made anew by the same code; nothing is unpickled.

A checkpoint is one safetensors file named `NUMBER-DIGEST.safetensors`, with the first half of its
SHA-256. It is written under another name, synchronised and renamed, by a thread, while training
goes on; the newest three are kept.
"""

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from safetensors.numpy import save

from tiltflow.data.errors import InputError
from tiltflow.models.files import fill_tree, tree_arrays, unpack_arrays, write_durably
from tiltflow.training.identity import check_same
from tiltflow.training.run_folder import (
    CHECKPOINTS,
    LOCK,
    check_run_folder,
    checkpoint_files,
    is_finished,
    release_lock,
    take_lock,
)
from tiltflow.training.stopping import Stopped, StopRequest

KEPT = 3
DIGEST_LENGTH = 32
ABOUT = "about"
"""The array of bytes that holds identity and records, as JSON."""

Tree = TypeVar("Tree")


class Saved(NamedTuple):
    """What a stage has saved: figures that JSON can hold, and arrays by name."""

    record: dict[str, Any]
    arrays: dict[str, np.ndarray]
    source: str

    def fill(self, template: Tree) -> Tree:
        """`template` with the arrays that were saved; raises as `fill_tree`."""
        return fill_tree("", template, self.arrays, self.source)


class Checkpoints:
    """The checkpoints of one fit, in `run`/checkpoints; to be closed, by `with`.

    Args:
        run: the folder of the run: new or empty, or with `resume` one that was begun.
        seconds: time from one checkpoint to the next; 0 saves after every chunk of steps.
        resume: go on from the newest good checkpoint, or begin where there is none.
        stop: asked between chunks whether to save and stop.

    Raises:
        InputError: `seconds` is negative.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        *,
        seconds: int | float = 60.0,
        resume: bool = False,
        stop: StopRequest | None = None,
    ):
        if not seconds >= 0:
            raise InputError(f"seconds: found {seconds}; give 0 or more")
        self.run, self.seconds, self.resume = Path(run), seconds, resume
        self.stop = stop or StopRequest()
        self._identity: dict[str, Any] = {}
        self._stages: dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]] = {}
        self._number, self._written_at = 0, time.monotonic()
        self._lock: int | None = None
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._pending: Future[None] | None = None

    def begin(self, identity: dict[str, Any]) -> None:
        """Lock the folder, and read what there is to go on from.

        `identity` is what a fit to go on with must have been begun with, see `identity.py`.

        Raises:
            InputError: the folder is another's or no such folder, `identity` differs, or no
                checkpoint can be read.
        """
        check_run_folder(self.run, self.resume)
        if is_finished(self.run):
            raise InputError(f"{self.run}: this fit is finished; load it, or name another folder")
        self._lock = take_lock(self.run)
        self._identity = json.loads(json.dumps(identity, default=repr))
        for half_written in (self.run / CHECKPOINTS).glob(".*.partial"):
            half_written.unlink()
        files = self._files()
        self._number = int(files[-1].name.partition("-")[0]) if files else 0
        for path in reversed(files):
            try:
                identity, self._stages = read_checkpoint(path)
            except (OSError, ValueError) as error:
                warnings.warn(
                    f"{path}: cannot be used ({error}); going back to the checkpoint before",
                    RuntimeWarning,
                    stacklevel=2,
                )
                continue
            check_same(self._identity, identity, str(self.run))
            return
        if files:
            raise InputError(
                f"{self.run}: none of its {len(files)} checkpoints can be read; "
                "begin anew in another folder"
            )

    @property
    def folder(self) -> Path:
        """Where the checkpoints are."""
        return self.run / CHECKPOINTS

    def stage(self, name: str) -> "Stage":
        """The part of the checkpoints that belongs to one stage."""
        return Stage(self, name)

    def remove(self) -> None:
        """Remove all checkpoints: the fit is done and saved."""
        if self._lock is None:
            return
        self._wait()
        # The newest last: while there is any, a fit can be gone on with.
        for path in self._files():
            path.unlink()
        (self.run / CHECKPOINTS / LOCK).unlink()
        (self.run / CHECKPOINTS).rmdir()

    def close(self) -> None:
        """Let the writer finish, and the folder be another's."""
        self._writer.shutdown()
        if self._lock is not None:
            release_lock(self._lock)
            self._lock = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if isinstance(error, InputError) and self._lock is not None and not self._files():
            # Refused input leaves nothing behind.
            (self.run / CHECKPOINTS / LOCK).unlink()
            (self.run / CHECKPOINTS).rmdir()
            with contextlib.suppress(OSError):
                self.run.rmdir()
        self.close()

    def _files(self) -> list[Path]:
        return checkpoint_files(self.run)

    def _is_due(self) -> bool:
        if self._pending is not None:
            if not self._pending.done():
                return False
            self._wait()
        return time.monotonic() - self._written_at >= self.seconds

    def _put(self, name: str, tree: Any, record: dict[str, Any], *, wait: bool) -> None:
        """Save what stage `name` has come to, with all that stages before it left."""
        arrays = {key: np.array(array, order="C") for key, array in tree_arrays("", tree).items()}
        # By way of JSON, because a loop goes on adding to its lists.
        self._stages[name] = (json.loads(json.dumps(record)), arrays)
        self._wait()
        self._number += 1
        self._pending = self._writer.submit(self._write, dict(self._stages), self._number)
        self._written_at = time.monotonic()
        if wait:
            self._wait()

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _write(self, stages: dict[str, Any], number: int) -> None:
        content = _pack(self._identity, stages)
        digest = hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]
        write_durably({self.run / CHECKPOINTS / f"{number:08d}-{digest}.safetensors": content})
        for path in self._files()[:-KEPT]:
            path.unlink()


@dataclass(frozen=True)
class Stage:
    """One stage's part of the checkpoints; with None nothing is kept, and nothing found."""

    checkpoints: Checkpoints | None
    name: str = ""

    def part(self, name: str) -> "Stage":
        """A stage within this one, forgotten when this one is done."""
        return Stage(self.checkpoints, f"{self.name}/{name}")

    def saved(self) -> Saved | None:
        """What was saved of this stage, if anything was."""
        if self.checkpoints is None or self.name not in self.checkpoints._stages:
            return None
        source = f"{self.checkpoints.run}: checkpoint of '{self.name}'"
        return Saved(*self.checkpoints._stages[self.name], source)

    def offer(self, make: Callable[[], tuple[Any, dict[str, Any]]]) -> None:
        """To be called between the chunks of a loop; saves arrays and record if it is time.

        Raises:
            Stopped: a signal asked for it; what `make` gives is saved.
        """
        if self.checkpoints is None:
            return
        stop = self.checkpoints.stop
        stop.looping = True
        if stop.number is not None or self.checkpoints._is_due():
            self.checkpoints._put(self.name, *make(), wait=stop.number is not None)
        if stop.number is not None:
            raise Stopped(stop.number)

    def done(self, tree: Any, record: dict[str, Any]) -> None:
        """Save the result of this stage; its parts are forgotten.

        Raises:
            Stopped: a signal asked for it; the result is saved.
        """
        if self.checkpoints is None:
            return
        stages = self.checkpoints._stages
        for name in [name for name in stages if name.startswith(f"{self.name}/")]:
            del stages[name]
        stop = self.checkpoints.stop
        self.checkpoints._put(self.name, tree, record, wait=stop.number is not None)
        stop.looping = False
        if stop.number is not None:
            raise Stopped(stop.number)

    def once(
        self,
        compute: Callable[[], tuple[Tree, dict[str, Any]]],
        template: Callable[[dict[str, Any]], Tree],
    ) -> tuple[Tree, dict[str, Any]]:
        """The arrays and the record that `compute` gives, or gave before the fit was stopped.

        Raises as `done` does, and as `Saved.fill`.
        """
        if saved := self.saved():
            return saved.fill(template(saved.record)), saved.record
        tree, record = compute()
        self.done(tree, record)
        return tree, record


UNSAVED = Stage(None)


def stage_of(checkpoints: Checkpoints | None, name: str) -> Stage:
    """The stage called `name`, or one that keeps nothing."""
    return UNSAVED if checkpoints is None else checkpoints.stage(name)


def replay(
    reports: list[dict[str, Any]], on_report: Callable[[dict[str, Any]], None] | None
) -> None:
    """Give reports of before the stop once more, so that whoever takes them has all of them."""
    if on_report:
        for report in reports:
            on_report(report)


def _pack(identity: dict[str, Any], stages: dict[str, Any]) -> bytes:
    about = json.dumps(
        {"identity": identity, "records": {name: stages[name][0] for name in stages}}
    )
    arrays = {f"{name}{key}": array for name in stages for key, array in stages[name][1].items()}
    return save({ABOUT: np.frombuffer(about.encode(), np.uint8), **arrays})


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The identity and the stages; `ValueError` where the content is not what was written."""
    content = path.read_bytes()
    digest = path.stem.partition("-")[2]
    if hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH] != digest:
        raise ValueError(f"its {len(content)} bytes are damaged")
    arrays = unpack_arrays(content)
    try:
        about = json.loads(arrays.pop(ABOUT).tobytes().decode())
        identity, records = dict(about["identity"]), dict(about["records"])
        if not all(isinstance(record, dict) for record in records.values()):
            raise TypeError("a record is no dictionary")
        stages = {name: (record, {}) for name, record in records.items()}
        for key, array in arrays.items():
            name, dot, index = key.rpartition(".")
            stages[name][1][dot + index] = array
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"what it is about is damaged: {error!r:.100}") from None
    return identity, stages
