"""SIGINT and SIGTERM while a fit runs: the first lets it stop in order, the second ends it at once.

Python's own handlers wait until compiled code returns, which can take minutes. So the signals'
numbers are also written into a pipe, and a thread that reads it sees them when they come.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The process was asked to stop, and everything worth keeping is on disk."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


@dataclass
class StopRequest:
    """Which signal has asked to stop, if any, and whether a loop runs that will see to it."""

    number: int | None = None
    looping: bool = False


@contextlib.contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Generator[StopRequest, None, None]:
    """While this is open, the first signal sets the request, or raises `Stopped` outside of loops.

    `say` is told of the first signal at once, from a thread. In other threads than the main one,
    which have no signals, nothing is done.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, _: FrameType | None) -> None:
        request.number = number
        if not request.looping:
            raise Stopped(number)

    def watch() -> None:
        asked = False
        while (byte := os.read(read_end, 1)) != b"\0":
            if byte[0] not in SIGNALS:
                continue
            if asked:
                # Files are written by renaming, so there is nothing to clean up.
                os._exit(128 + byte[0])
            asked = True
            if request.looping:
                name = signal.Signals(byte[0]).name
                say(f"{name}: stopping after the steps under way; once more stops at once")

    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    woken_before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    handled_before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in handled_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken_before)
        os.write(write_end, b"\0")
        watcher.join()
        os.close(read_end)
        os.close(write_end)
