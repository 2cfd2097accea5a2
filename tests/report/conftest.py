"""A made-up fit and its report, and a headless Chromium, spoken to over a pipe, to read it in."""

import json
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from tiltflow.data.schema import Schema
from tiltflow.evaluation.mode_weights import ModeWeights
from tiltflow.evaluation.verdict import judge
from tiltflow.extreme_rows import ExtremeRows
from tiltflow.report.fit_evidence import FitEvidence, LogZEstimate
from tiltflow.report.fit_report import write_fit_report

EVIL = "</script><img src=https://example.org/x onerror=alert(1)>"

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


def _metrics():
    return [
        {
            "stage": "energy",
            "step": step,
            "total_steps": 300,
            "held_out_log_likelihood": -2 - 1 / step,
            "log_z": 0.01 * step,
            "local_acceptance_rate": 0.6,
            "global_acceptance_rate": 0.8,
            "importance_ess": 0.7,
            "gain": 0.1 if step < 200 else -0.1,
        }
        for step in range(10, 310, 10)
    ]


@pytest.fixture(scope="session")
def made_up_fit():
    """An estimator and its evidence, on four columns, one of them named to do harm."""
    generator = np.random.default_rng(0)
    draws = generator.standard_normal((12, 100, 4))
    rows = generator.standard_normal((200, 4)).round(3)
    rows[:, 3] = rows[:, 3] > 0
    verdict = judge({"rhat": 1.3, "ess_bulk": 900.0})
    names = ["a", "b", EVIL, "d"]
    quanta = np.array([0.001, 0, 0, 1])
    schema = Schema(tuple(names), {"d": ("<low>", "high")}, quanta, np.zeros(4))
    estimator = SimpleNamespace(
        verdict_=verdict,
        feature_names_in_=names,
        held_out_log_likelihood_=-5.25,
        held_out_log_likelihood_stderr_=0.5,
        quanta_=quanta,
        levels_=schema.levels,
        schema_=schema,
        metrics_=_metrics(),
        base_="gaussian",
        preprocessing_="standardise",
        local_steps_=10,
        chains_=256,
        energy_width_=64,
        energy_depth_=3,
        n_iter_=200,
        max_steps_=300,
        stopped_=None,
        versions_={"python": "3.11.0"},
        get_params=lambda: {"base": "auto"},
        _frozen=SimpleNamespace(climbs=False),
    )
    weights = ModeWeights(
        np.arange(2),
        rows[:2],
        np.array([0.7, 0.3]),
        np.array([[0.6, 0.8], [0.2, 0.4]]),
        np.array([[0.55, 0.85], [0.15, 0.45]]),
    )
    ones = np.ones(4)
    evidence = FitEvidence(
        rows=rows,
        extremes=ExtremeRows(
            rows[:10], np.sort(generator.standard_normal(10))[::-1], np.arange(90, 100), 200
        ),
        samples=generator.standard_normal((300, 4)),
        draws=draws,
        draw_log_prob=-(draws**2).sum(axis=2),
        rhat=ones,
        ess_bulk=900 * ones,
        ess_tail=900 * ones,
        weights=weights,
        weights_of="modes",
        log_z=(LogZEstimate("bridge sampling", 0.5, 0.01, "both"),),
    )
    return estimator, evidence


@pytest.fixture(scope="session")
def report(made_up_fit, tmp_path_factory):
    """The file of its report."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_fit_report(path, *made_up_fit)
    return path
