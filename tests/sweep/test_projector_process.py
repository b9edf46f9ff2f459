"""The process that delivers: it is killed, its server hangs, its driver dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.sweep import projector as projector_module
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import write_records
from lmoe_tune.sweep.projector import Projector, deliver_rest
from lmoe_tune.sweep.view import tracking_of
from tests.hearing import Hearing
from tests.tracking.faulty_server import HANGS, FaultyProxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PATIENCE_S = 120.0


@pytest.fixture
def written(
    ledger: Callable[..., Ledger], run_trial: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Ledger:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    made = ledger("budget.trials=2", "search.pruner=none")
    write_records(made.folder, made.spec)
    run_trial(made)
    run_trial(made)
    return made


def wait_until(what: Callable[[], Any]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_one_that_is_killed_is_started_again_and_once_more_at_the_end(
    written: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector_module, "RESTART_INTERVAL_S", 0.0)
    hearing = Hearing()
    projector = Projector(written, f"sqlite:///{written.folder.home}/mlflow.db", hearing)
    first = projector.pid
    os.kill(first, signal.SIGKILL)

    def is_another() -> bool:
        projector.collect()
        return projector.pid != first

    wait_until(is_another)
    os.kill(projector.pid, signal.SIGKILL)
    projector.finish(PATIENCE_S)
    assert projector.delivered
    killed = "was killed (signal 9, SIGKILL; perhaps the machine ran out of memory)"
    assert hearing.said == [f"the process that delivers to MLflow {killed}; another one takes over"]
    assert sorted(tracking_of(written).run_ids) == [0, 1]


def test_one_whose_server_never_answers_is_ended_when_patience_is_over(
    written: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector_module, "PATIENCE_S", 3.0)
    with FaultyProxy(0, lambda request: HANGS).closing() as mute:
        assert deliver_rest(written, mute.uri, Hearing()) is False
        wait_until(lambda: not list(processes_of(written.folder.home)))


def test_one_ends_with_its_driver_even_in_the_middle_of_a_request(written: Ledger) -> None:
    written.begin_run({})
    code = """
import sys, time
from pathlib import Path
from lmoe_tune.sweep import view
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.observer import Observer
from lmoe_tune.sweep.projector import Projector
Projector(view.read_sweep(SweepFolder(Path(sys.argv[1]), "small")), sys.argv[2], Observer())
time.sleep(1000)
"""
    with FaultyProxy(0, lambda request: HANGS).closing() as mute:
        driver = subprocess.Popen([sys.executable, "-c", code, str(written.folder.home), mute.uri])
        wait_until(lambda: mute.requests)
        assert list(processes_of(written.folder.home))
        driver.kill()
        driver.wait()
        wait_until(lambda: not list(processes_of(written.folder.home)))


def processes_of(home: Path) -> list[int]:
    """The projectors that work on a home."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"lmoe_tune.sweep.delivery" in arguments and str(home).encode() in arguments:
            found.append(int(path.parent.name))
    return found
