"""What is written comes back to the bit, what is damaged is left out, and nobody else gets in."""

import errno
import hashlib
import os
import resource
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save as pack

from tiltflow.data.errors import InputError
from tiltflow.training.checkpoints import Checkpoints
from tiltflow.training.identity import identify
from tiltflow.training.run_folder import checkpoint_files, is_finished
from tiltflow.training.stopping import Stopped, StopRequest

IDENTITY = {"chains": 2, "the data": "abc"}


def tree(value):
    """As a loop carries it: float32, a weakly typed count, float64 of NumPy, and no arrays."""
    return {
        "weights": (jnp.full((2, 3), value), None, jax.nn.relu),
        "count": jnp.asarray(int(value)),
        "mean": np.full(2, value / 3),
    }


def save(run, *values):
    """A run that is killed after it has saved `values`, one after the other."""
    with Checkpoints(run, seconds=0) as checkpoints:
        checkpoints.begin(IDENTITY)
        for value in values:
            # What is carried goes on changing while it is written.
            record = {"reports": [value]}
            checkpoints.stage("energy").offer(lambda: (tree(value), record))  # noqa: B023
            record["reports"].append("later")
            checkpoints._wait()


def found(run, **options):
    with Checkpoints(run, resume=True, **options) as checkpoints:
        checkpoints.begin(IDENTITY)
        saved = checkpoints.stage("energy").saved()
        return saved and (saved.record["reports"], saved.fill(tree(0.0)))


def assert_found(run, value):
    reports, back = found(run)
    assert reports == [value]
    for left, right in zip(jax.tree.leaves(back), jax.tree.leaves(tree(value)), strict=True):
        if left is not jax.nn.relu:
            assert type(left) is type(right)
            assert (left.dtype, left.shape) == (right.dtype, right.shape)
            np.testing.assert_array_equal(left, right)
    assert back["count"].weak_type


def test_the_newest_comes_back_and_three_are_kept(tmp_path):
    run = tmp_path / "a" / "run"
    save(run, 1.0, 2.0, 3.0, 4.0)
    assert_found(run, 4.0)
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert [name.partition("-")[0] for name in names] == [
        "00000002",
        "00000003",
        "00000004",
        "lock",
    ]
    assert found(tmp_path / "new") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: b"",
        lambda content: content + b"\0",
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    save(tmp_path, 1.0, 2.0)
    before, newest = checkpoint_files(tmp_path)
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.warns(RuntimeWarning, match="going back to the checkpoint before"):
        assert_found(tmp_path, 1.0)
    before.write_bytes(b"nothing")
    with (
        pytest.warns(RuntimeWarning, match="damaged"),
        pytest.raises(InputError, match="none of its 2 checkpoints can be read"),
    ):
        found(tmp_path)
    assert len(checkpoint_files(tmp_path)) == 2


def _with(about):
    return pack({"about": np.frombuffer(about, np.uint8), "energy.0": np.zeros(2)})


@pytest.mark.parametrize(
    "content",
    [
        b"nothing",
        pack({"x.0": np.zeros(2)}),
        _with(b"{"),
        _with(b"[" * 100_000),
        _with(b"\xff"),
        _with(b"[]"),
        _with(b'{"identity": 3, "records": {}}'),
        _with(b'{"identity": {}, "records": {"energy": 3}}'),
        _with(b'{"identity": {}, "records": {"base": {}}}'),
    ],
)
def test_a_name_that_fits_makes_no_checkpoint(tmp_path, content):
    """The digest is that of the content, which is none of a checkpoint."""
    save(tmp_path, 1.0)
    digest = hashlib.sha256(content).hexdigest()[:32]
    (tmp_path / "checkpoints" / f"00000002-{digest}.safetensors").write_bytes(content)
    with pytest.warns(RuntimeWarning, match="going back to the checkpoint before"):
        assert_found(tmp_path, 1.0)


def test_a_half_written_file_is_none(tmp_path):
    save(tmp_path, 1.0)
    (tmp_path / "checkpoints" / ".00000002-ab.safetensors.partial").write_bytes(b"half")
    assert_found(tmp_path, 1.0)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


KILLED = """
import os, random, signal, sys, time, warnings
import numpy as np
from tiltflow.training.checkpoints import Checkpoints

warnings.simplefilter("error", RuntimeWarning)
run, kills = sys.argv[1], 30
random.seed(0)
last = 0
for kill in range(kills):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with Checkpoints(run, seconds=0, resume=True) as checkpoints:
            checkpoints.begin({})
            saved = checkpoints.stage("energy").saved()
            at = saved.record["at"] if saved else 0
            while True:
                at += 1
                checkpoints.stage("energy").done([np.full(400_000, at)], {"at": at})
                checkpoints._wait()
                os.write(writing, f"{at} ".encode())
    os.close(writing)
    told = os.read(reading, 16)
    time.sleep(random.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reading, 1000):
        told += more
    os.close(reading)
    with Checkpoints(run, resume=True) as checkpoints:
        checkpoints.begin({})
        saved = checkpoints.stage("energy").saved()
    at, said = saved.record["at"], int(told.split()[-1])
    assert (saved.arrays[".0"] == at).all()
    assert last < said <= at <= said + 1, (last, said, at)
    last = at
print(kills, "kills,", last, "checkpoints")
"""


def test_thirty_kills_at_random_moments_lose_nothing_that_was_written(tmp_path):
    """Of a process that does nothing but write; none is damaged, as warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "run"], capture_output=True, text=True
    )
    assert done.stdout.startswith("30 kills"), done.stderr


def test_other_data_or_arguments_are_refused(tmp_path):
    save(tmp_path, 1.0)
    with (
        pytest.raises(InputError, match=r"chains was 2, is 4; the data\)"),
        Checkpoints(tmp_path, resume=True) as checkpoints,
    ):
        checkpoints.begin({"chains": 4, "the data": "abd"})
    assert_found(tmp_path, 1.0)


def test_the_identity_is_of_data_arguments_and_seed():
    rows = np.arange(6.0).reshape(3, 2)
    one = identify({"random_state": np.int64(3), "chains": 2}, ["a", "b"], rows, None)
    assert one == identify({"chains": 2, "random_state": 3}, ["a", "b"], rows.copy(order="F"), None)
    for other in (rows + 1e-12, rows.reshape(2, 3), rows.astype(np.float32)):
        assert identify({"random_state": 3, "chains": 2}, ["a", "b"], other, None) != one
    assert identify({"random_state": 3, "chains": 2}, ["a", "b"], rows, rows) != one
    with pytest.raises(InputError, match="random_state: found None"):
        identify({"random_state": None}, ["a"], rows)


def test_time_decides_and_a_request_to_stop(tmp_path):
    stop = StopRequest()
    with Checkpoints(tmp_path, seconds=1000, stop=stop) as checkpoints:
        checkpoints.begin(IDENTITY)
        stage = checkpoints.stage("energy")
        stage.offer(lambda: pytest.fail("it is not time"))
        assert stop.looping
        stop.number = 15
        with pytest.raises(Stopped) as stopped:
            stage.offer(lambda: (tree(5.0), {"reports": [5.0]}))
        assert stopped.value.exit_code == 143
    assert_found(tmp_path, 5.0)


def test_a_stage_that_is_done_is_not_done_again_and_its_parts_are_forgotten(tmp_path):
    stop = StopRequest()
    with Checkpoints(tmp_path, seconds=0, stop=stop) as checkpoints:
        checkpoints.begin(IDENTITY)
        base = checkpoints.stage("base")
        base.part("flow").offer(lambda: (tree(1.0), {}))
        base.once(lambda: (tree(2.0), {"kind": "x"}), lambda _: pytest.fail("nothing is filled"))
        assert not stop.looping
        checkpoints.stage("based").done(tree(3.0), {})
    with Checkpoints(tmp_path, resume=True) as checkpoints:
        checkpoints.begin(IDENTITY)
        base = checkpoints.stage("base")
        assert base.part("flow").saved() is None
        assert checkpoints.stage("based").saved() is not None
        kept, record = base.once(lambda: pytest.fail("once more"), lambda _: tree(0.0))
        assert record == {"kind": "x"}
        np.testing.assert_array_equal(kept["mean"], tree(2.0)["mean"])


def test_a_second_run_is_refused_by_the_number_of_the_first(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.begin(IDENTITY)
        for resume in (True, False):
            with pytest.raises(InputError, match=f"process {os.getpid()} is fitting into it"):
                Checkpoints(tmp_path, resume=resume).begin(IDENTITY)
    with pytest.raises(InputError, match="holds an unfinished fit; go on with it by --resume"):
        Checkpoints(tmp_path).begin(IDENTITY)
    assert found(tmp_path) is None


def test_folders_of_something_else_are_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    for resume, message in ((False, "not empty"), (True, "no fit to go on with")):
        with pytest.raises(InputError, match=message):
            Checkpoints(tmp_path, resume=resume).begin(IDENTITY)
    with pytest.raises(InputError, match="is a file"):
        Checkpoints(tmp_path / "notes.txt").begin(IDENTITY)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_where_nothing_can_be_written_it_says_so(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match=r"cannot be written into \(Read-only file system\)"):
        Checkpoints(tmp_path / "run").begin(IDENTITY)


def test_a_full_disk_is_an_error_and_the_last_checkpoint_remains(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(tmp_path, 1.0)
    with Checkpoints(tmp_path, seconds=0, resume=True) as checkpoints:
        checkpoints.begin(IDENTITY)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            checkpoints.stage("energy").done(tree(2.0), {"reports": [2.0]})
            checkpoints.stage("energy").done(tree(2.0), {"reports": [2.0]})
        monkeypatch.undo()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert_found(tmp_path, 1.0)


def test_a_write_that_the_system_cuts_off_is_an_error(tmp_path):
    """By a real limit on the size of files, at which a write stops half-way."""
    save(tmp_path, 1.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(tmp_path, seconds=0, resume=True) as checkpoints:
        checkpoints.begin(IDENTITY)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                checkpoints.stage("energy").done(tree(2.0), {"reports": [2.0]})
                checkpoints._wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_found(tmp_path, 1.0)


def test_refused_input_leaves_nothing_and_a_finished_fit_no_checkpoints(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(InputError), Checkpoints(run) as checkpoints:
        checkpoints.begin(IDENTITY)
        raise InputError("X: cannot be whitened")
    assert not run.exists()
    with Checkpoints(run, seconds=0) as checkpoints:
        checkpoints.begin(IDENTITY)
        checkpoints.stage("energy").done(tree(1.0), {})
        checkpoints._wait()
        for name in ("config.json", "model.safetensors"):
            (run / name).touch()
        assert not is_finished(run)
        checkpoints.remove()
    assert is_finished(run)
    assert not (run / "checkpoints").exists()
    with pytest.raises(InputError, match="this fit is finished; load it"):
        found(run)


def test_settings_are_checked(tmp_path):
    with pytest.raises(InputError, match="seconds: found -1"):
        Checkpoints(tmp_path, seconds=-1)
