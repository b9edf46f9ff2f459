from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from lmoe_tune.training import epoch_timeout
from lmoe_tune.training.epoch_timeout import each_within

pytestmark = pytest.mark.slow

START = """\
import os, signal, time
from lmoe_tune.training import epoch_timeout
epoch_timeout.GRACE_S = 0.2
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START + script],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        encoding="utf-8",
    )


def test_all_items_come_and_their_error_too() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2)
        raise ValueError("three")

    for seconds in (None, 1000.0):
        found = []
        with pytest.raises(ValueError, match="three"):
            for item in each_within(seconds, items()):
                found.append(item)
        assert found == [1, 2]


def test_a_process_that_hangs_prints_its_stacks_and_exits() -> None:
    done = run(
        """
def hangs():
    yield 1
    time.sleep(1000)
epoch_timeout.GRACE_S = 100
print(list(epoch_timeout.each_within(0.2, hangs())))
"""
    )
    assert done.returncode == 1
    assert "in hangs" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the timer is Linux's")
def test_a_process_that_is_stopped_is_killed() -> None:
    done = run(
        """
def stops():
    yield 1
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(1000)
print(list(epoch_timeout.each_within(0.2, stops())))
"""
    )
    assert done.returncode == -signal.SIGKILL


def test_the_time_between_items_is_not_counted() -> None:
    done = run(
        """
for item in epoch_timeout.each_within(0.5, iter([1, 2])):
    time.sleep(1)
print("alive")
"""
    )
    assert (done.returncode, done.stdout) == (0, "alive\n")


@pytest.mark.skipif(sys.platform != "linux", reason="the timer is Linux's")
def test_a_process_that_is_stopped_outside_its_epochs_is_killed() -> None:
    done = run(
        """
epoch_timeout.kill_when_frozen(2.0)
os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(1000)
"""
    )
    assert done.returncode == -signal.SIGKILL


def test_the_time_until_then_starts_again_as_long_as_python_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = threading.Semaphore(0)
    timer = SimpleNamespace(set=lambda seconds: again.release())
    monkeypatch.setattr(epoch_timeout, "_KillTimer", lambda: timer)
    monkeypatch.setattr(epoch_timeout, "BEAT_S", 0.05)
    epoch_timeout.kill_when_frozen(123.0)
    for _ in range(3):
        assert again.acquire(timeout=30)
