"""What a run does around Ray; what needs a Ray is in end_to_end/."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lmoe_tune.api.loading import load_spec
from lmoe_tune.errors import UsageError
from lmoe_tune.sweep import cluster
from lmoe_tune.sweep.observer import Observer
from lmoe_tune.sweep.runner import _slots_here, _turn
from lmoe_tune.sweep.settings import RunSettings

PATIENCE_S = 60.0


class Saying(Observer):
    def __init__(self) -> None:
        self.waits = threading.Event()

    def on_message(self, text: str) -> None:
        if "another search of this process is running" in text:
            self.waits.set()


def test_runs_of_several_threads_take_turns_and_a_waiting_one_can_be_stopped() -> None:
    order: list[str] = []

    def second(observer: Saying, stop: threading.Event | None) -> None:
        try:
            with _turn(RunSettings(observer, stop=stop)):
                order.append("second")
        except KeyboardInterrupt:
            order.append("stopped")

    stop = threading.Event()
    observers = Saying(), Saying()
    threads = [
        threading.Thread(target=second, args=(observers[0], None)),
        threading.Thread(target=second, args=(observers[1], stop)),
    ]
    with _turn(RunSettings()):
        for thread, observer in zip(threads, observers, strict=True):
            thread.start()
            assert observer.waits.wait(PATIENCE_S)
        stop.set()
        threads[1].join()
        order.append("first")
    threads[0].join()
    assert order == ["stopped", "first", "second"]


def test_ray_starts_as_many_workers_as_trials_unless_only_it_can_count_the_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = load_spec("digits", ["search.max_concurrent=1"]).spec
    assert _slots_here(spec, None) == 1
    assert _slots_here(spec, "cluster:6379") is None
    on_gpu = load_spec("digits", ["search.max_concurrent=1", "resources.gpu=1"]).spec
    monkeypatch.setattr("lmoe_tune.sweep.runner.num_gpus", lambda: 0)
    assert _slots_here(on_gpu, None) is None


def test_an_observer_cannot_start_another_run() -> None:
    with (
        _turn(RunSettings()),
        pytest.raises(UsageError, match="cannot be started from an observer"),
        _turn(RunSettings()),
    ):
        pass
    with _turn(RunSettings()):
        pass


def test_a_process_that_is_forked_meanwhile_has_its_own_turn() -> None:
    def child() -> None:
        with _turn(RunSettings()):
            pass

    with _turn(RunSettings()):
        forked = multiprocessing.get_context("fork").Process(target=child)
        forked.start()
        forked.join(PATIENCE_S)
    assert forked.exitcode == 0


@pytest.mark.parametrize("local", [False, True])
def test_rays_variables_go_and_the_users_stay(monkeypatch: pytest.MonkeyPatch, local: bool) -> None:
    monkeypatch.setenv("MINE", "before")
    monkeypatch.setenv("GONE", "before")
    monkeypatch.delenv("NEW", raising=False)
    monkeypatch.setenv("RAY_worker_niceness", "3")
    before = dict(os.environ)
    with cluster._environment(local=local):
        assert dict(os.environ) != before
        os.environ["RAY_SOMETHING_OF_ITS_OWN"] = "1"
        os.environ["NEW"] = os.environ["MINE"] = "meanwhile"
        del os.environ["GONE"]
    assert os.environ.pop("NEW") == os.environ["MINE"] == "meanwhile"
    assert "GONE" not in os.environ
    os.environ |= {"MINE": "before", "GONE": "before"}
    assert dict(os.environ) == before


def test_old_logs_of_rays_go_and_those_of_a_running_process_stay(tmp_path: Path) -> None:
    now, gone = time.time(), 2**22 + 1  # no process has such a number
    before = now - 2 * cluster.LOGS_ARE_KEPT_S
    sessions = {  # begun, logged last, process
        "old": (before, before, gone),
        "long": (before, now, gone),
        "running": (before, before, os.getpid()),
        "new": (now, now, gone),
    }
    names = {}
    for place, (called, (begun, logged, pid)) in enumerate(sessions.items()):
        when = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(begun + place))
        names[called] = f"session_{when}_000000_{pid}"
        logs = tmp_path / names[called] / "logs"
        logs.mkdir(parents=True)
        (logs / "raylet.out").touch()
        os.utime(logs / "raylet.out", (logged, logged))
    (tmp_path / "session_latest").symlink_to(tmp_path / names["new"])

    cluster.remove_old_sessions(tmp_path)
    cluster.remove_old_sessions(tmp_path / "nosuch")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"session_latest", *names.values()} - {names["old"]}


IN_C_CODE = """
import ctypes, os, signal, threading, time
from lmoe_tune.sweep.runner import STOPPING, _noticed

libc = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(64)  # of zeros: one that nobody holds
handled = []
signal.signal(signal.SIGTERM, lambda *_: handled.append(1))

with _noticed(STOPPING) as has_arrived:
    def other():
        time.sleep(0.3)  # until the main thread waits below
        print(has_arrived(), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        while not has_arrived():
            time.sleep(0.01)
        print(has_arrived(), flush=True)
        libc.pthread_mutex_unlock(mutex)

    libc.pthread_mutex_lock(mutex)
    thread = threading.Thread(target=other)
    thread.start()
    libc.pthread_mutex_lock(mutex)  # until the other thread lets go; no handler runs meanwhile
    thread.join()
print(has_arrived(), len(handled), signal.set_wakeup_fd(-1), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a mutex of zeros is Linux's")
def test_a_signal_is_noticed_while_the_main_thread_is_in_c_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_C_CODE],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stdout.splitlines() == ["False", "True", "True 1 -1"], done.stderr
