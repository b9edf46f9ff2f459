from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmoe_tune.errors import LmoeTuneError, StorageError, UsageError
from lmoe_tune.sweep import folder as module
from lmoe_tune.sweep.folder import SweepFolder, SweepLockedError, find_sweep, find_sweeps

HOLD = (
    "import sys, time; from pathlib import Path; from lmoe_tune.sweep.folder import SweepFolder\n"
    "with SweepFolder(Path(sys.argv[1]), sys.argv[2]).locked():\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


@pytest.fixture
def holder(folder: SweepFolder) -> Iterator[subprocess.Popen[str]]:
    """A process that works on the sweep."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.home), folder.name],
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_holder_is_refused_with_the_pid_and_host_of_the_first(
    folder: SweepFolder, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_PATIENCE_S", 0.1)
    who = f"process {holder.pid} on {socket.gethostname()}"
    with (
        pytest.raises(SweepLockedError, match=rf"'small' is being worked on by {who}"),
        folder.locked(),
    ):
        pass
    assert folder.is_running()


def test_a_second_holder_in_the_same_process_is_not_told_to_stop_it(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_PATIENCE_S", 0.1)
    with (
        folder.locked(),
        pytest.raises(SweepLockedError, match="which is this one: wait until that has ended"),
        folder.locked(),
    ):
        pass


def test_the_lock_of_a_killed_process_is_free_at_once(
    folder: SweepFolder, holder: subprocess.Popen[str]
) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert not folder.is_running()
    with folder.locked():
        assert json.loads((folder.path / "lock").read_text(encoding="utf-8"))["pid"] == os.getpid()


def test_whoever_holds_it_is_seen_by_its_own_process_too(folder: SweepFolder) -> None:
    with folder.locked():
        assert folder.is_running()
        with pytest.raises(SweepLockedError), folder.locked():
            pass
    assert not folder.is_running()


def test_somebody_who_looks_for_an_instant_keeps_nobody_out(folder: SweepFolder) -> None:
    import fcntl
    import threading

    with folder.locked():
        pass
    looking = (folder.path / "lock").open("rb")
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.2, looking.close).start()
    with folder.locked():
        pass


def test_a_lock_file_that_says_nothing_useful_is_no_obstacle(
    folder: SweepFolder, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_PATIENCE_S", 0.1)
    (folder.path / "lock").write_text("", encoding="utf-8")
    with pytest.raises(SweepLockedError, match="another process"), folder.locked():
        pass


def test_a_sweep_that_nobody_started_does_not_run(tmp_path: Path) -> None:
    assert not SweepFolder(tmp_path, "nothing").is_running()
    assert not SweepFolder(tmp_path, "nothing").exists()
    assert list(tmp_path.iterdir()) == []


def test_sweeps_are_found_the_one_worked_on_last_first(tmp_path: Path) -> None:
    assert find_sweeps(tmp_path) == []
    for place, name in enumerate(("a", "b", "c")):
        sweep = SweepFolder(tmp_path, name)
        sweep.path.mkdir(parents=True)
        sweep.ledger.write_bytes(b"")
        os.utime(sweep.ledger, ns=(0, (place % 2) * 10**9 + place))
    (tmp_path / "sweeps" / "empty").mkdir()
    assert [sweep.name for sweep in find_sweeps(tmp_path)] == ["b", "c", "a"]


def test_a_name_that_there_is_not_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no sweep 'x' in .*; there are none yet"):
        find_sweep(tmp_path, "x")
    sweep = SweepFolder(tmp_path, "digits")
    sweep.path.mkdir(parents=True)
    sweep.ledger.write_bytes(b"")
    assert find_sweep(tmp_path, "digits") == sweep
    (tmp_path / "sweeps" / "file").touch()
    for name in ("x", ".", "..", "../sweeps/digits", "digits/", "x" * 300, "file"):
        with pytest.raises(UsageError, match="there are digits"):
            find_sweep(tmp_path, name)


def test_a_file_system_without_locks_is_said(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(LmoeTuneError, match="cannot be locked .*No locks available.*--home"),
        folder.locked(),
    ):
        pass
    assert not folder.is_running()


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.EROFS, UsageError, "make it writable"),
        (errno.EACCES, UsageError, "make it writable"),
        (errno.ENOSPC, StorageError, "make room"),
        (errno.EDQUOT, StorageError, "make room"),
        (errno.EIO, StorageError, "see what is wrong"),
    ],
)
def test_a_lock_that_cannot_be_written_is_said_with_what_to_do(
    folder: SweepFolder,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[Exception],
    said: str,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(kind, match=said), folder.locked():
        pass


def test_a_misspelt_sweep_is_guessed_and_of_many_the_first_ones_are_named(tmp_path: Path) -> None:
    for name in ("cars", *(f"birds{number:02d}" for number in range(20))):
        made = SweepFolder(tmp_path, name)
        made.path.mkdir(parents=True)
        made.ledger.touch()

    with pytest.raises(UsageError) as caught:
        find_sweep(tmp_path, "casr")

    assert "did you mean 'cars'?" in str(caught.value)
    assert "and 13 more" in str(caught.value)


def test_a_sweeps_folder_is_taken_for_its_name_and_a_wrong_directory_is_suspected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LMOE_TUNE_HOME", raising=False)
    home = tmp_path / "lmoe_runs"
    with pytest.raises(UsageError, match="none yet: go to where it was started, or name its home"):
        find_sweep(home, "cars")

    sweep = SweepFolder(home, "cars")
    sweep.path.mkdir(parents=True)
    sweep.ledger.touch()

    for typed in ("lmoe_runs/sweeps/cars/", "./cars"):
        with pytest.raises(UsageError, match="did you mean 'cars'"):
            find_sweep(home, typed)
    with pytest.raises(UsageError, match="there are none yet$"):
        find_sweep(tmp_path / "given", "birds")


def test_a_sweep_in_a_home_above_is_found_and_how_to_name_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LMOE_TUNE_HOME", raising=False)
    home = tmp_path / "my project" / "lmoe_runs"
    sweep = SweepFolder(home, "cars")
    sweep.path.mkdir(parents=True)
    sweep.ledger.touch()
    (tmp_path / "my project" / "src").mkdir()

    monkeypatch.chdir(tmp_path / "my project" / "src")
    for given in (Path.cwd() / "lmoe_runs", home / "sweeps", sweep.path):
        with pytest.raises(UsageError, match="it is in .*my project/lmoe_runs: --home '/"):
            find_sweep(given, "cars")
