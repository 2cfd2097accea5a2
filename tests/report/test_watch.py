"""The page of a run in progress: what it tells at each stage, and to whom it answers."""

import http.client
import json
import os
import threading

import pytest

from tiltflow.data.errors import InputError
from tiltflow.report.watch import MOST_REPORTS, make_server, read_state, watch

ENERGY = {"stage": "energy", "total_steps": 400, "held_out_log_likelihood": -2.5, "log_z": None}


def _write(run, *reports, tail=""):
    run.mkdir(exist_ok=True)
    lines = "".join(json.dumps(report) + "\n" for report in reports)
    (run / "metrics.jsonl").write_text(lines + tail)


def _finish(run, status="trusted", reasons=()):
    verdict = {"status": status, "reasons": list(reasons), "figures": {}}
    (run / "config.json").write_text(json.dumps({"verdict": verdict}))
    (run / "report.html").write_text("<title>the report</title>")
    written = (run / "metrics.jsonl").stat().st_mtime + 1
    os.utime(run / "report.html", (written, written))


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def ask(run):
    """Ask the server of `run` on a free port; it is closed at the end."""
    with make_server(run, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        port = server.server_port

        def ask(path="/", method="GET", **headers):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.putrequest(method, path, skip_host="Host" in headers)
            for name, value in headers.items():
                for each in value if isinstance(value, list) else [value]:
                    connection.putheader(name, each.format(port=port))
            connection.endheaders()
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            return answer, body

        ask.server = server
        yield ask
        server.shutdown()
        thread.join()


def test_a_run_that_has_not_begun_is_waited_for(run, ask):
    state = json.loads(ask("/state.json")[1])
    assert (state["status"], state["chart"], state["report"]) == ("waiting", None, False)
    assert ask("/report.html")[0].status == 404


def test_a_run_in_progress_shows_where_it_is(run, ask):
    base = {"stage": "proposal", "step": 100, "total_steps": 4000, "held_out_log_likelihood": -9.0}
    _write(run, base, tail='{"stage": "energy", "st')
    state = json.loads(ask("/state.json")[1])
    assert (state["status"], state["stage"]) == ("running", "fitting the proposal's flow")
    assert state["chart"]["panels"][0]["series"][0]["y"] == [-9]
    rollback = {"stage": "energy", "event": "rollback", "step": 100, "reason": "gap"}
    _write(run, base, ENERGY | {"step": 100}, rollback, ENERGY | {"step": 200}, {"stage": "settle"})
    state = json.loads(ask("/state.json")[1])
    assert (state["stage"], state["step"], state["rollbacks"]) == (
        "settling chains and flow",
        None,
        1,
    )
    assert state["figures"] == {"held-out log-likelihood, nats": -2.5, "log Z, nats": None}
    assert state["chart"]["x"] == [100, 200]
    assert 0 <= state["seconds_since_report"] < 60
    assert not state["report"]


def test_a_run_that_ended_tells_its_verdict_and_has_its_report(run, ask):
    _write(run, ENERGY | {"step": 100}, {"stage": "report"})
    _finish(run, "doubtful", ["R-hat 1.3 </li>"])
    state = json.loads(ask("/state.json")[1])
    assert (state["status"], state["verdict"]) == ("finished", "doubtful")
    assert state["reasons"] == ["R-hat 1.3 </li>"]
    answer, body = ask("/report.html?again=1")
    assert (answer.status, body) == (200, b"<title>the report</title>")


def test_an_old_report_does_not_end_a_run_that_goes_on(run):
    _write(run, ENERGY | {"step": 100})
    _finish(run)
    later = (run / "report.html").stat().st_mtime + 1
    os.utime(run / "metrics.jsonl", (later, later))
    assert read_state(run)["status"] == "running"


def test_a_run_that_failed_says_why(run):
    _write(run, ENERGY | {"step": 100}, {"stage": "failed", "reason": "training ran away"})
    state = read_state(run)
    assert (state["status"], state["reason"]) == ("failed", "training ran away")
    assert state["chart"]["x"] == [100]


@pytest.mark.parametrize(
    "text", ["", "\n", "[]\n3\nnull\n", "{\n", '{"step": "x", "stage": 3}\n', "\x00\xff\n"]
)
def test_damaged_files_are_no_reason_to_stop(run, text):
    run.mkdir()
    (run / "metrics.jsonl").write_bytes(text.encode("latin-1"))
    (run / "config.json").write_text('{"verdict": 3}')
    (run / "report.html").touch()
    json.dumps(read_state(run), allow_nan=False)


def test_a_long_run_is_thinned_and_its_last_report_is_kept(run):
    _write(run, *(ENERGY | {"step": step} for step in range(MOST_REPORTS * 2 + 7)))
    x = read_state(run)["chart"]["x"]
    assert MOST_REPORTS / 2 < len(x) <= MOST_REPORTS and x[-1] == MOST_REPORTS * 2 + 6


def test_it_listens_on_this_machine_only(ask):
    assert ask.server.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("localhost:1", 403),
        ("localhost", 403),
        ("evil.example:{port}", 403),
        ("localhost.evil.example:{port}", 403),
        ("127.0.0.1:{port}@evil.example", 403),
        ("", 403),
        (["127.0.0.1:{port}", "evil.example:{port}"], 403),
    ],
)
def test_only_local_names_are_answered(run, ask, host, status):
    _write(run, ENERGY | {"step": 100})
    _finish(run)
    for path in ("/", "/state.json", "/report.html"):
        answer, body = ask(path, Host=host)
        assert answer.status == status
        assert (b"<title>the report" in body) == (status == 200 and path == "/report.html")


@pytest.mark.parametrize(
    "path",
    [
        "/metrics.jsonl",
        "/config.json",
        "/../secret",
        "/%2e%2e/secret",
        "//secret",
        "/report.html/../../secret",
        "/report.html%00",
        "/./report.html",
        "http://evil.example/",
        "/..\\secret",
    ],
)
def test_there_are_three_paths_and_no_others(tmp_path, run, ask, path):
    _write(run, ENERGY | {"step": 100})
    (tmp_path / "secret").write_text("secret words")
    answer, body = ask(path)
    assert answer.status in (403, 404) and b"secret words" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_sent_to_it(ask, method):
    assert ask("/", method)[0].status == 501


def test_answers_are_not_kept_nor_framed_and_the_page_may_ask_its_own_server(ask):
    answer, body = ask("/")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert b"connect-src 'self'" in body and b"default-src 'none'" in body
    head, nothing = ask("/", "HEAD")
    assert (head.status, nothing) == (200, b"")
    assert head.headers["Content-Length"] == str(len(body))


def test_lines_and_verdicts_that_are_damaged_are_passed_over(run):
    vast = ENERGY | {"step": 10**400, "held_out_log_likelihood": -(10**400)}
    _write(run, ENERGY | {"step": 100}, vast, tail="[" * 100_000 + "\n" + '{"a": ' * 100_000)
    state = read_state(run)
    assert (state["status"], state["step"]) == ("running", None)
    assert state["chart"]["x"] == [100]
    json.dumps(state, allow_nan=False)
    _finish(run)
    (run / "config.json").write_text('{"verdict": ' * 100_000)
    assert read_state(run)["verdict"] == ""


def test_the_name_of_the_run_is_escaped(tmp_path):
    run = tmp_path / "<img src=x onerror=alert(1)>"
    with make_server(run, 0) as server:
        body = server.RequestHandlerClass.body  # pyright: ignore[reportAttributeAccessIssue]
    assert b"<img" not in body and b"&lt;img" in body


def test_bad_arguments_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        make_server(tmp_path / "file", 0)
    with pytest.raises(InputError, match="-1 is no port"):
        make_server(tmp_path, -1)
    with make_server(tmp_path, 0) as server, pytest.raises(InputError, match="cannot be had"):
        make_server(tmp_path, server.server_port)


def test_interrupting_it_ends_it_cleanly(tmp_path, capsys, monkeypatch):
    def interrupted(self, poll_interval=0.5):
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", interrupted)
    watch(tmp_path, 0)
    assert "at http://127.0.0.1:" in capsys.readouterr().out
