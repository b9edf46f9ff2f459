from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from lmoe_tune.processes import Process, descendants, running
from lmoe_tune.sweep import guard as module
from lmoe_tune.sweep.guard import Vitals, guarded

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
PATIENCE_S = 30.0


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def seen(child: subprocess.Popen[bytes]) -> Process:
    return next(process for process in descendants(os.getpid()) if process.pid == child.pid)


def test_a_process_is_alive_until_it_dies_even_if_nobody_waited_for_it(
    child: subprocess.Popen[bytes],
) -> None:
    process = seen(child)
    assert process.is_alive()
    assert process in running()
    assert "time.sleep(60)" in process.command
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert not process.is_alive()
    child.wait()
    assert not process.is_alive()
    assert process.command == ""


def test_a_later_process_with_the_same_pid_is_another_one() -> None:
    assert not Process(os.getpid(), "0").is_alive()


def test_what_must_live_is_named_when_it_has_died(child: subprocess.Popen[bytes]) -> None:
    vitals = Vitals({"Ray's head": seen(child)})
    assert vitals.check() is None
    child.kill()
    child.wait()
    assert vitals.check() == f"Ray's head (process {child.pid} on this machine) has died"


def test_a_head_that_does_not_answer_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        host, port = listener.getsockname()
        vitals = Vitals({}, (host, port))
        assert vitals.check() is None
    assert vitals.check() is None, "it may be restarted"
    monkeypatch.setattr(module, "UNREACHABLE_S", -1.0)
    assert (
        vitals.check() == f"the head of the Ray cluster at {host}:{port} does not answer any more"
    )


def test_a_head_that_never_answered_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNREACHABLE_S", -1.0)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = listener.getsockname()
    assert Vitals({}, address).check() is None


def test_the_block_hears_what_has_died_and_the_process_is_not_ended_once_it_leaves(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_S", 0.01)
    heard, given_up = threading.Event(), threading.Event()

    def on_lost(lost: str) -> float:
        heard.set()
        return PATIENCE_S

    with guarded(Vitals({"it": seen(child)}), on_lost, given_up.set):
        child.kill()
        assert heard.wait(PATIENCE_S)
    assert not given_up.is_set()


def test_a_block_that_does_not_leave_ends_the_process(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_S", 0.01)
    given_up = threading.Event()
    with guarded(Vitals({"it": seen(child)}), lambda lost: 0.01, given_up.set):
        child.kill()
        assert given_up.wait(PATIENCE_S)
