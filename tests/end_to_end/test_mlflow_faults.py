"""Whole sweeps beside a tracking server that fails: the trials do not notice, and MLflow gets everything in the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lmoe_tune
from tests.tracking.faulty_server import (
    ERROR,
    HANGS,
    LOST,
    NONE,
    SLOW,
    Fault,
    FaultyProxy,
    Request,
    TrackingServer,
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

EPOCHS = 2
SEARCH = ("search", "digits", "--set", f"train.epochs={EPOCHS}", "--set", "model.baseline.epochs=2")
ALL_EPOCHS = ("--set", "search.pruner=none")
CODE = Path(lmoe_tune.__file__).resolve().parents[1]
PROJECTOR = "lmoe_tune.sweep.delivery"

# Every Python process notes what it is when it connects to the server.
NOTE_CONNECTIONS = """
import os, sys
port, notes = int(os.environ["NOTED_PORT"]), os.environ["NOTES"]

def note(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][1] == port:
        with open(notes, "a") as file:
            file.write(" ".join(sys.orig_argv) + "\\n")

sys.addaudithook(note)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TrackingServer]:
    made = TrackingServer(tmp_path / "server")
    yield made
    made.close()


@pytest.fixture
def proxy(server: TrackingServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(server.port).closing() as made:
        yield made


def told(stderr: str) -> list[str]:
    """What the user is told of MLflow while the sweep runs."""
    return [
        line
        for line in stderr.splitlines()
        if line.startswith(("MLflow is", "MLflow was", "MLflow at", "the process that"))
    ]


@pytest.mark.long
def test_a_slow_server_holds_up_nothing_and_sync_delivers_what_is_missing(
    command: Any,
    tracked: Callable[..., Any],
    server: TrackingServer,
    proxy: FaultyProxy,
    tmp_path: Path,
) -> None:
    (tmp_path / "noting").mkdir()
    (tmp_path / "noting" / "sitecustomize.py").write_text(NOTE_CONNECTIONS, encoding="utf-8")
    notes = tmp_path / "connections.txt"
    proxy.script = lambda request: SLOW
    driver = command.start(
        *SEARCH,
        *ALL_EPOCHS,
        "--trials",
        "4",
        MLFLOW_TRACKING_URI=proxy.uri,
        PYTHONPATH=os.pathsep.join([str(tmp_path / "noting"), str(CODE)]),
        NOTED_PORT=str(proxy.port),
        NOTES=str(notes),
    )
    assert driver.process.wait(300) == 0, driver.output()
    assert [len(trial.epochs) for trial in command.trials()] == [EPOCHS] * 4
    # Four trials need more than the ten answers that come in the 20 s after the last epoch; a machine that is
    # slower still may have delivered before.
    missing = "lmoe-tune sync digits" in driver.output()
    connected = notes.read_text(encoding="utf-8").splitlines()
    assert connected
    of_others = [arguments for arguments in connected if PROJECTOR not in arguments]
    assert len(of_others) <= 4, (
        "the command asks once whether it may start; only a process of its own waits"
    )
    proxy.script = lambda request: NONE
    if missing:
        synced = command.run("sync", "digits", MLFLOW_TRACKING_URI=proxy.uri)
        assert synced.returncode == 0, synced.stderr
        assert "has everything about 'digits'" in synced.stderr
    tracked(SimpleNamespace(home=server.folder)).agrees_with(command.trials())


@pytest.mark.long
def test_a_server_that_comes_and_goes_a_projector_that_is_killed_and_another_server(
    command: Any,
    tracked: Callable[..., Any],
    server: TrackingServer,
    proxy: FaultyProxy,
    tmp_path: Path,
) -> None:
    def script(request: Request) -> Fault:
        return LOST if request.number % 5 == 4 else ERROR if request.number % 7 == 6 else NONE

    proxy.script = script
    driver = command.start(
        *SEARCH, "--trials", "4", MLFLOW_TRACKING_URI=proxy.uri, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"
    )
    driver.wait_until(
        lambda: any(trial.epochs for trial in command.trials()) or driver.process.poll() is not None
    )
    proxy.down()
    for pid, arguments in driver.descendants().items():
        if PROJECTOR in arguments:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    driver.wait_until(lambda: len(command.trials()) > 2 or driver.process.poll() is not None)
    proxy.up()
    assert driver.process.wait(300) == 0, driver.output()
    assert len(told(driver.output())) <= 4, driver.output()

    proxy.script = lambda request: NONE
    if "lmoe-tune sync digits" in driver.output():
        assert command.run("sync", "digits", MLFLOW_TRACKING_URI=proxy.uri).returncode == 0
    here = tracked(SimpleNamespace(home=server.folder))
    here.agrees_with(command.trials())
    server.close()

    other = TrackingServer(tmp_path / "other")
    with FaultyProxy(other.port).closing() as elsewhere:
        synced = command.run("sync", "digits", "--tracking-uri", elsewhere.uri)
        other.close()
    assert synced.returncode == 0, synced.stderr
    there = tracked(SimpleNamespace(home=other.folder))
    there.agrees_with(command.trials())
    assert len(there.runs) == len(here.runs)
    assert models(there) == models(here) != []


def models(store: Any) -> list[tuple[str, str]]:
    found = store.client.search_logged_models([store.experiment_id])
    return sorted(
        (model.tags["lmoe_tune.trial"], model.tags["lmoe_tune.sha256"]) for model in found
    )


@pytest.mark.long
def test_a_complete_sweep_is_not_held_up_by_a_server_that_never_answers(
    copy_of_reference: Any,
) -> None:
    with FaultyProxy(0, lambda request: HANGS).closing() as mute:
        done = copy_of_reference.run(
            "search", "digits", *reference_overrides(), MLFLOW_TRACKING_URI=mute.uri
        )
    assert done.returncode == 0, done.stderr
    assert "lmoe-tune sync digits" in done.stderr


def reference_overrides() -> tuple[str, ...]:
    """Those of the sweep `reference`: with others it would be another one."""
    settings = ("train.epochs=3", "model.baseline.epochs=2", "search.max_concurrent=1")
    return "--trials", "5", *(part for setting in settings for part in ("--set", setting))
