"""What becomes of the reports of a fit: lines, a bar, TensorBoard's files."""

import json
import re
import subprocess
import sys

import pytest

from tiltflow.data.errors import InputError
from tiltflow.report.progress import Progress, ProgressBar
from tiltflow.report.tensorboard import TensorBoard

REPORTS = [
    {"stage": "proposal", "step": 100, "total_steps": 400, "held_out_log_likelihood": -3.0},
    {"stage": "base", "base": "mixture"},
    {"stage": "energy", "step": 100, "total_steps": 200, "global_acceptance_rate": 0.5},
    {"stage": "energy", "event": "rollback", "step": 100, "reason": "energy gap", "gain": None},
    {
        "stage": "energy",
        "step": 200,
        "total_steps": 200,
        "held_out_log_likelihood": float("nan"),
        "importance_ess": 0.25,
    },
    {"stage": "settle", "step": 0, "total_steps": 100},
    {"stage": "report"},
]


def _lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_bar_shows_stage_steps_and_the_figures_that_matter(capsys):
    bar = ProgressBar()
    for report in REPORTS:
        bar(report)
    bar.close()
    shown = capsys.readouterr().err.split("\r")
    told = [line for line in shown if "energy" in line]
    assert any("100/200" in line and "global=0.500" in line for line in told)
    assert any(
        "200/200" in line and "ESS=0.250" in line and "held-out=nan" in line for line in told
    )
    assert any("proposal:  25%" in line and "held-out=-3.000" in line for line in shown)
    assert any(re.match(r"report \[00:0\d\]", line) for line in shown)
    # The first report of a stage comes after its first steps: no speed and no end is known.
    assert any("100/200" in line and "<?" in line for line in told)


def test_what_was_chosen_is_shown_once_and_stays(tmp_path, capsys):
    choice = {"stage": "choice", "base": "mixture: 8 components", "preprocessing": "whiten"}
    choice |= {"energy_width": 64, "energy_depth": 3, "chains": 256, "local_steps": 10}
    choice["max_steps"] = 1000
    for quiet in (False, True):
        with Progress(tmp_path / str(quiet), quiet=quiet) as progress:
            for report in (REPORTS[0], choice, REPORTS[-1]):
                progress(report)
        assert _lines(tmp_path / str(quiet))[1] == choice
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert (
        "chosen: base mixture: 8 components; preprocessing whiten; energy of 3 layers of 64, at "
        "most 1000 steps; 256 chains, 10 local steps\n"
    ) in shown


def test_lines_are_json_and_quiet_shows_nothing(tmp_path, capsys):
    out = tmp_path / "runs" / "one"
    with Progress(out, quiet=True) as progress:
        for report in REPORTS:
            progress(report)
    assert len(_lines(out)) == len(REPORTS)
    assert _lines(out)[4]["held_out_log_likelihood"] is None
    assert capsys.readouterr() == ("", "")
    assert [path.name for path in out.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("ran away"), "ran away"),
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_what_ended_it_is_the_last_line(tmp_path, error, reason):
    with pytest.raises(type(error)), Progress(tmp_path, quiet=True) as progress:
        progress(REPORTS[0])
        raise error
    assert _lines(tmp_path)[1:] == [{"stage": "failed", "reason": reason}]


def test_input_that_is_refused_leaves_nothing_behind(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(InputError), Progress(out, quiet=True):
        raise InputError("X: no rows")
    assert not out.exists()


def test_without_tensorboardx_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"pip install 'tiltflow\[tensorboard\]'"):
        Progress(tmp_path / "run", quiet=True, tensorboard=True)
    assert not (tmp_path / "run").exists()


def _scalars(folder):
    """All scalars in the folder's only file, read in a process of its own: protocol buffers."""
    (file,) = folder.iterdir()
    code = (
        "import struct, sys\n"
        "from tensorboardX.proto.event_pb2 import Event\n"
        "data, at = open(sys.argv[1], 'rb').read(), 0\n"
        "while at < len(data):\n"
        "    (size,) = struct.unpack('<Q', data[at : at + 8])\n"
        "    event = Event.FromString(data[at + 12 : at + 12 + size])\n"
        "    at += 16 + size\n"
        "    for value in event.summary.value:\n"
        "        print(value.tag, event.step, value.simple_value)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_tensorboard_gets_every_number_at_its_step(tmp_path):
    reason = "the extra `tensorboard` is not installed"
    pytest.importorskip("tensorboardX", reason=reason)
    board = TensorBoard(tmp_path / "tensorboard")
    assert not (tmp_path / "tensorboard").exists()
    for report in REPORTS:
        board(report)
    board.close()
    assert _scalars(tmp_path / "tensorboard") == [
        "proposal/held_out_log_likelihood 100 -3.0",
        "energy/global_acceptance_rate 100 0.5",
        "energy/importance_ess 200 0.25",
    ]


def test_a_fit_that_goes_on_has_every_scalar_once(tmp_path):
    """Its reports come from the start again."""
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    earlier = tmp_path / "tensorboard" / "events.out.tfevents.1.earlier"
    earlier.parent.mkdir()
    earlier.touch()
    with Progress(tmp_path, quiet=True, tensorboard=True) as progress:
        for report in REPORTS:
            progress(report)
    assert len(_scalars(tmp_path / "tensorboard")) == 3
