"""The first signal is seen at once and obeyed in order, the second ends the process at once."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from tiltflow.training.stopping import Stopped, stop_on_signals

# Compiled code that lets no Python run for a minute.
BUSY = """
import hashlib
from tiltflow.training.stopping import stop_on_signals
with stop_on_signals(lambda what: print(what, flush=True)) as stop:
    stop.looping = True
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_a_loop_the_request_is_set_and_else_the_work_stops(number):
    before = signal.getsignal(number)
    said = []
    with stop_on_signals(said.append) as stop:
        stop.looping = True
        signal.raise_signal(number)
        assert stop.number == number
    assert signal.getsignal(number) is before
    assert len(said) == 1 and said[0].startswith(signal.Signals(number).name)
    with pytest.raises(Stopped) as stopped, stop_on_signals(said.append):
        signal.raise_signal(number)
    assert stopped.value.exit_code == 128 + number
    assert len(said) == 1


def test_a_second_signal_ends_the_process_also_within_compiled_code():
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True) as busy:
        assert busy.stdout is not None
        assert busy.stdout.readline() == "busy\n"
        time.sleep(0.2)
        busy.send_signal(signal.SIGTERM)
        assert "once more stops at once" in busy.stdout.readline()
        busy.send_signal(signal.SIGINT)
        assert busy.wait(timeout=10) == 130


def test_other_threads_have_no_signals():
    seen = []

    def work():
        with stop_on_signals(seen.append) as stop:
            seen.append(stop.number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
