"""A fit that is stopped or killed, and gone on with, by both doors."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tiltflow
from tiltflow import BalancedEBM
from tiltflow.cli import main
from tiltflow.data.errors import InputError
from tiltflow.data.table_writing import write_table
from tiltflow.estimator_files import describe
from tiltflow.training.checkpoints import Checkpoints
from tiltflow.training.run_folder import checkpoint_files
from tiltflow.training.stopping import Stopped, StopRequest

OPTIONS = {
    "preprocessing": "standardise",
    "base": "gaussian",
    "chains": 64,
    "energy_width": 8,
    "energy_depth": 1,
    "local_steps": 2,
}


def two_modes(n=300):
    generator = np.random.default_rng(0)
    return generator.normal(np.where(generator.random((n, 1)) < 0.25, 6.0, 0.0))


def without_speed(reports):
    return [{k: v for k, v in each.items() if k != "steps_per_second"} for each in reports]


def fit(run, resume, stage=None):
    """A fit that asks itself to stop at the first report of `stage`, and its reports."""
    stop, reports = StopRequest(), []

    def on_report(report):
        reports.append(report)
        if report["stage"] == stage:
            stop.number = signal.SIGTERM

    estimator = BalancedEBM(**OPTIONS, max_steps=300, random_state=1)
    with Checkpoints(run, seconds=1000, resume=resume, stop=stop) as checkpoints:
        return estimator.fit(two_modes(), on_report=on_report, checkpoints=checkpoints), reports


def test_an_estimator_goes_on_bit_for_bit(tmp_path):
    whole, reports = fit(tmp_path / "whole", False)
    for resume, stage in enumerate(("proposal", "energy", "polish")):
        with pytest.raises(Stopped):
            fit(tmp_path / "parts", resume > 0, stage)
    parts, again = fit(tmp_path / "parts", True)
    assert without_speed(again) == without_speed(reports)
    (config, arrays), (other_config, other_arrays) = describe(whole), describe(parts)
    for each in (config, other_config):
        each["metrics"] = without_speed(each["metrics"])
    assert config == other_config
    assert arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, other_arrays[name], err_msg=name)
    with (
        pytest.raises(InputError, match="was begun otherwise"),
        Checkpoints(tmp_path / "parts", resume=True) as checkpoints,
    ):
        BalancedEBM(random_state=1).fit(two_modes(), checkpoints=checkpoints)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The installed command on a small table, in a process that the test may stop."""
    folder = tmp_path_factory.mktemp("stopped")
    write_table(folder / "table.csv", {"a": two_modes()[:, 0]})
    program = os.path.join(os.path.dirname(sys.executable), "tiltflow")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    # What one process has compiled the next need not.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def begin(*more, out="run"):
        return subprocess.Popen(
            [program, "fit", folder / "table.csv", "--out", folder / out, "--quiet",
             "--checkpoint-seconds=0", *options, *more],
            env=os.environ | cache, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return folder / "run", begin


def wait_for(run, process, lines):
    """Until so many reports of the energy are written."""
    while True:
        assert process.poll() is None, process.communicate()
        metrics = run / "metrics.jsonl"
        if metrics.exists() and metrics.read_text().count('"energy_gap"') >= lines:
            return
        time.sleep(0.01)


def test_stopped_by_a_signal_killed_and_gone_on_with(command):
    run, begin = command
    with begin() as first:
        while not (run / "checkpoints" / "lock").exists():
            time.sleep(0.01)
        with begin("--resume") as second:
            said = second.communicate()[1]
            assert second.returncode == 2
            assert f"process {first.pid} is fitting into it" in said
        wait_for(run, first, 1)
        first.send_signal(signal.SIGTERM)
        _, said = first.communicate()
    assert first.returncode == 143
    asked, stopped = said.splitlines()
    assert asked.startswith("tiltflow: SIGTERM: stopping after the steps under way")
    assert stopped == "tiltflow: stopped by SIGTERM; go on by the same command with --resume"

    with begin("--resume") as killed:
        wait_for(run, killed, 4)
        killed.kill()
    newest = checkpoint_files(run)[-1]
    newest.write_bytes(newest.read_bytes()[:-50])
    with begin() as refused:
        assert "unfinished fit; go on with it by --resume" in refused.communicate()[1]
    with begin("--resume") as last:
        said = last.communicate()[1]
    assert last.returncode in (0, 1), said
    assert f"{newest}: cannot be used" in said.splitlines()[0]
    names = {path.name for path in run.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "model.safetensors", "report.html"}
    reports = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [report["step"] for report in reports if report["stage"] == "energy"]
    assert steps == [100 * (i + 1) for i in range(len(steps))]
    stages = [report["stage"] for report in reports]
    assert stages.count("base") == stages.count("settle") == 1

    with begin("--resume") as again:
        assert "this fit is finished" in again.communicate()[0]
    assert again.returncode == 0


def test_ctrl_c_leaves_a_checkpoint_and_the_fit_goes_on_to_the_same_bits(command):
    run, begin = command[0].with_name("interrupted"), command[1]
    with begin(out="interrupted") as first:
        wait_for(run, first, 2)
        first.send_signal(signal.SIGINT)
        _, said = first.communicate()
    assert first.returncode == 130
    assert said.splitlines()[-1] == (
        "tiltflow: stopped by SIGINT; go on by the same command with --resume"
    )
    assert checkpoint_files(run) and not (run / "model.safetensors").exists()
    written = (run / "metrics.jsonl").read_text().count('"energy_gap"')
    for more, out in (("--resume",), "interrupted"), ((), "whole"):
        with begin(*more, out=out) as process:
            said = process.communicate()[1]
        assert process.returncode in (0, 1), said
    whole = run.with_name("whole")
    (reports, again) = (
        without_speed(map(json.loads, (each / "metrics.jsonl").read_text().splitlines()))
        for each in (whole, run)
    )
    assert again == reports
    # It was stopped within the training of the energy.
    assert written < sum(each["stage"] == "energy" for each in reports)
    name = "model.safetensors"
    assert (run / name).read_bytes() == (whole / name).read_bytes()


STORED = Path(__file__).parent / "stored_models"


@pytest.fixture
def disk(monkeypatch):
    """A disk that has no room left after so many files."""
    left = [10**9]

    def fsync(number):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    return left


@pytest.mark.parametrize("room", [0, 1])
def test_a_full_disk_at_the_last_save_leaves_no_half_of_a_model(
    room, disk, tmp_path, monkeypatch, capsys
):
    fitted = vars(tiltflow.load(STORED / "format_3_early"))

    def fit(self, X, **_):
        disk[0] = room
        vars(self).update(fitted)

    monkeypatch.setattr(BalancedEBM, "fit", fit)
    write_table(tmp_path / "table.csv", {"a": two_modes()[:, 0], "b": two_modes()[::-1, 0]})
    run = tmp_path / "run"
    assert main(["fit", str(tmp_path / "table.csv"), "--out", str(run), "--quiet"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in said and "same command with --resume" in said
    assert {path.name for path in run.iterdir()} <= {"checkpoints", "metrics.jsonl"}
    disk[0] = 10**9
    assert main(["score", str(run), str(tmp_path / "table.csv"), "--out", "never.csv"]) == 2
    assert "is not there; name a folder that fit has made" in capsys.readouterr().err


@pytest.mark.parametrize("room", [0, 1])
def test_a_full_disk_leaves_the_model_that_was_there(room, disk, tmp_path):
    old, new = (tiltflow.load(STORED / f"format_3_{name}") for name in ("early", "flow"))
    old.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    disk[0] = room
    with pytest.raises(OSError, match="No space left"):
        new.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
