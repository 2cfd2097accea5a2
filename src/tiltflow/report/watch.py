"""A page on this machine that follows a run: its curves and figures now, its report at the end.

It reads what `fit` writes and changes nothing. The server listens on the loopback address alone,
knows three fixed paths, and answers only requests that name it by a local name, so that no web
site can reach it by a name of its own (DNS rebinding).
"""

import json
import time
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tiltflow.data.errors import InputError
from tiltflow.report.charts import number, training_chart
from tiltflow.report.files import json_lines
from tiltflow.report.html import page

ADDRESS = "127.0.0.1"
MOST_REPORTS = 2000
STAGES = {
    "proposal": "fitting the proposal's flow",
    "base": "choosing the base",
    "choice": "compiling the energy's training",
    "energy": "training the energy",
    "settle": "settling chains and flow",
    "polish": "polishing the last layer",
    "report": "judging and writing the report",
}
FIGURES = {
    "held_out_log_likelihood": "held-out log-likelihood, nats",
    "gain": "gain over the best so far, nats",
    "log_z": "log Z, nats",
    "local_acceptance_rate": "acceptance of local moves",
    "global_acceptance_rate": "acceptance of the flow's proposals",
    "importance_ess": "effective share of the flow's draws",
    "gradient_norm": "norm of the gradient",
    "steps_per_second": "steps per second",
}


def watch(run: Path, port: int) -> None:
    """Serve the page of `run` until interrupted; the folder need not be there yet.

    Raises `InputError` for a file in its place, and for a port that cannot be had.
    """
    with make_server(run, port) as server:
        print(f"watching {run} at http://{ADDRESS}:{server.server_port}/ ; Ctrl-C ends it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def make_server(run: Path, port: int) -> ThreadingHTTPServer:
    """The server, listening; port 0 takes a free one. Raises as `watch` does."""
    if run.exists() and not run.is_dir():
        raise InputError(f"{run}: is a file; name the folder of a run")
    if not 0 <= port < 65536:
        raise InputError(
            f"--port: {port} is no port; give one from 1 to 65535, or 0 for a free one"
        )

    class Handler(_Handler):
        folder = run
        body = _page(run)

    try:
        return ThreadingHTTPServer((ADDRESS, port), Handler)
    except OSError as error:
        raise InputError(
            f"--port: {port} cannot be had ({error.strerror}); leave it out for a free one"
        ) from None


class _Handler(BaseHTTPRequestHandler):
    folder: Path
    body: bytes
    timeout = 10
    server_version = "tiltflow"
    sys_version = ""

    def do_GET(self) -> None:
        """One of three paths, and nothing that a path could be made to mean."""
        port = self.connection.getsockname()[1]
        if self.headers.get_all("Host") not in ([f"{ADDRESS}:{port}"], [f"localhost:{port}"]):
            self.send_error(403, "This address is for this machine only")
            return
        path = self.path.partition("?")[0]
        if path == "/":
            self._answer(self.body, "text/html; charset=utf-8")
        elif path == "/state.json":
            state = json.dumps(read_state(self.folder), allow_nan=False)
            self._answer(state.encode(), "application/json")
        elif path == "/report.html":
            try:
                report = (self.folder / "report.html").read_bytes()
            except OSError:
                self.send_error(404, "There is no report yet")
                return
            self._answer(report, "text/html; charset=utf-8")
        else:
            self.send_error(404, "There is nothing here")

    do_HEAD = do_GET

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def end_headers(self) -> None:
        """Nothing is kept, guessed, framed or read by another origin."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""


def read_state(run: Path) -> dict[str, Any]:
    """What the files of a run tell of it now, as JSON has it.

    `status` is "waiting" (nothing written yet), "running", "finished" (a report newer than the
    last line of metrics.jsonl) or "failed".
    """
    reports, age = _reports(run)
    last = reports[-1] if reports else {}
    status = "running" if reports else "waiting"
    if last.get("stage") == "failed":
        status = "failed"
    elif _is_newer(run / "report.html", run / "metrics.jsonl"):
        status = "finished"
    stage = str(last.get("stage", ""))
    measured = [each for each in reports if "held_out_log_likelihood" in each]
    now = measured[-1] if measured else {}
    figures = {said: number(now.get(name)) for name, said in FIGURES.items() if name in now}
    state = {
        "status": status,
        "stage": STAGES.get(stage, stage.replace("_", " ")),
        "step": number(last.get("step")),
        "total_steps": number(last.get("total_steps")),
        "seconds_since_report": age,
        "figures": figures,
        "rollbacks": sum(each.get("event") == "rollback" for each in reports),
        "reason": str(last.get("reason", "")) if status == "failed" else "",
        "chart": _chart(reports),
        "report": (run / "report.html").is_file(),
        "verdict": "",
        "reasons": [],
    }
    return state | (_verdict(run) if status == "finished" else {})


def _reports(run: Path) -> tuple[list[dict[str, Any]], float | None]:
    """The lines of metrics.jsonl, but for one that is half written, and its age in seconds."""
    path = run / "metrics.jsonl"
    try:
        content = path.read_bytes()
        age = max(time.time() - path.stat().st_mtime, 0.0)
    except OSError:
        return [], None
    found = [report for _, report in json_lines(content)]
    every = -(-len(found) // MOST_REPORTS) or 1
    return found[(len(found) - 1) % every :: every], round(age, 1)


def _chart(reports: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The curves of the energy's training, or before it those of what is fitted now."""
    if any(each.get("stage") == "energy" and "step" in each for each in reports):
        return training_chart(reports)
    key = "held_out_log_likelihood"
    rows = [it for it in reports if number(it.get("step")) is not None and key in it]
    if not rows:
        return None
    rows = [it for it in rows if it.get("stage") == rows[-1].get("stage")]
    title = "Held-out log-likelihood of what is fitted first, nats"
    series = {"name": "held out", "colour": "model", "y": [number(row[key]) for row in rows]}
    return {
        "label": f"{title}, against step",
        "x": [row["step"] for row in rows],
        "x_name": "step",
        "panels": [{"title": title, "fixed": None, "robust": [0.1, 1], "series": [series]}],
    }


def _verdict(run: Path) -> dict[str, Any]:
    try:
        verdict = json.loads((run / "config.json").read_text(encoding="utf-8"))["verdict"]
        return {
            "verdict": str(verdict["status"]),
            "reasons": [str(it) for it in verdict["reasons"]],
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _is_newer(path: Path, than: Path) -> bool:
    """Whether `path` is there and no older than the other file, if that is there."""
    try:
        written = path.stat().st_mtime
        return not than.exists() or written >= than.stat().st_mtime
    except OSError:
        return False


def _page(run: Path) -> bytes:
    name = escape(run.resolve().name)
    return page(
        f"tiltflow: {run.resolve().name}",
        f"""<header>
<h1>tiltflow: {name}</h1>
<p class="lead" id="status" role="status">Waiting for an answer.</p>
<ul id="reasons" hidden></ul>
<p id="report" hidden><a href="report.html">Open the report</a></p>
</header>
<main>
<section id="now" hidden>
<h2>Now</h2>
<progress id="progress" aria-label="Steps of this stage"></progress>
<p class="hint" id="steps"></p>
<div class="scroll" role="region" tabindex="0" aria-label="Figures">
<table><caption><span class="hidden">Figures of the last report</span></caption>
<tbody id="figures"></tbody></table>
</div>
</section>
<section id="curves" hidden>
<h2>Curves</h2>
<div id="chart"></div>
</section>
</main>
<footer><p>Shown by tiltflow on this machine only.</p>
<noscript><p>This page needs its script to ask for news.</p></noscript></footer>""",
        "watch.js",
        connect="'self'",
    )
