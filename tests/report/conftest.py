"""A headless Chromium for tests of pages, spoken to over a pipe (Chrome DevTools Protocol)."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Chromium reads commands from descriptor 3 and writes to 4; until both are set, neither may be hit.
LAUNCH = (
    "import fcntl, os, sys\n"
    "ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 20) for end in sys.argv[1:3]]\n"
    "os.dup2(ends[0], 3), os.dup2(ends[1], 4)\n"
    "os.execvp(sys.argv[3], sys.argv[3:])\n"
)
SECONDS = 60


class Browser:
    """One page at a time; `complaints` are its exceptions and what its console was told."""

    def __init__(self, program, profile):
        here_read, there_write = os.pipe()
        there_read, here_write = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        options += ["--no-first-run", "--disable-background-networking", "--hide-scrollbars"]
        command = [program, *options, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(there_read), str(there_write), *command],
            pass_fds=(there_read, there_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there_read), os.close(there_write)
        os.set_blocking(here_read, False)
        self.read, self.write = here_read, here_write
        self.rest, self.count, self.session = b"", 0, None
        self.complaints, self.requests = [], []

    def start(self):
        """A page, and word of all that happens in it."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        """The result of one command."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        return self._until(lambda told: told.get("id") == self.count, method)["result"]

    def open(self, address, scheme="light", width=1000):
        """Load the page, as a reader sees it who prefers the colour scheme."""
        self.complaints.clear(), self.requests.clear()
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[feature])
        self.send("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def run(self, expression):
        """The value of an expression in the page, though its policy lets no such code run."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression):
        """Until the expression is true."""
        end = time.monotonic() + SECONDS
        while not self.run(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)

    def press(self, key, code=0, shift=False):
        """Press and release a key as a person would."""
        text = {"text": key} if len(key) == 1 else {}
        event = {"key": key, "windowsVirtualKeyCode": code or ord(key[0].upper())}
        event["modifiers"] = 8 if shift else 0
        self.send("Input.dispatchKeyEvent", type="keyDown", **event, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def mouse(self, kind, x, y, button="none"):
        """One event of the mouse, in the page's pixels."""
        buttons = 1 if button == "left" and kind != "mouseReleased" else 0
        event = {"type": kind, "x": x, "y": y, "button": button, "buttons": buttons}
        self.send("Input.dispatchMouseEvent", **event, clickCount=int(button == "left"))

    def close(self):
        """End the browser, which does so when nobody speaks to it any more."""
        os.close(self.read), os.close(self.write)
        try:
            self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _until(self, found, what):
        end = time.monotonic() + SECONDS
        while True:
            *whole, self.rest = self.rest.split(b"\0")
            for position, each in enumerate(whole):
                told = json.loads(each)
                self._note(told)
                if found(told):
                    self.rest = b"\0".join([*whole[position + 1 :], self.rest])
                    assert "error" not in told, (what, told)
                    return told
            assert time.monotonic() < end, f"no answer to {what}"
            try:
                self.rest += os.read(self.read, 1 << 20)
            except BlockingIOError:
                time.sleep(0.01)

    def _note(self, told):
        method, parameters = told.get("method"), told.get("params", {})
        if method in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
            self.complaints.append(parameters)
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium; tests that need it are skipped where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium here (looked for {', '.join(NAMES)})")
    browser = Browser(program, tmp_path_factory.mktemp("chromium"))
    try:
        browser.start()
        yield browser
    finally:
        browser.close()
