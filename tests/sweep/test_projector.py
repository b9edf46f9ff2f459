"""Delivery to tracking with a server that is there, away, or gone for good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lmoe_tune.tracking
from lmoe_tune.errors import TrackingError
from lmoe_tune.sweep import projector
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import write_records
from lmoe_tune.sweep.projector import deliver, sync
from lmoe_tune.tracking import Delivered

URI = "http://user:secret@host:5000"


class Server:
    """In place of a projection: notes the snapshots' states, and is away as often as it is told to."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.models: list[int] = []
        self.away = 0.0

    def project(self, snapshot: Any, models: Any = ()) -> Delivered:
        if self.away > 0:
            self.away -= 1
            raise TrackingError("connection refused")
        self.states.append(snapshot.state)
        self.models.append(len(models))
        return Delivered("1", "parent", {trial.number: f"run-{trial.number}" for trial in snapshot.trials}, {})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(lmoe_tune.tracking, "Projection", lambda uri, artifacts: made)
    clock: Iterator[float] = iter(range(10_000))
    monkeypatch.setattr(projector.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(projector.time, "sleep", lambda seconds: None)
    return made


@pytest.fixture
def written(ledger: Callable[..., Ledger], run_trial: Callable[..., Any]) -> Ledger:
    made = ledger("budget.trials=2", "search.pruner=none")
    write_records(made.folder, made.spec)
    run_trial(made)
    run_trial(made)
    return made


def after(rounds: int) -> Callable[[float], bool]:
    """The sweep's process is done after so many looks."""
    looks = iter([False] * rounds)
    return lambda seconds: next(looks, True)


def test_what_is_new_is_told_once_and_the_end_says_that_all_is_delivered(written: Ledger, server: Server) -> None:
    told: list[dict[str, Any]] = []
    deliver(written, URI, told.append, after(3))
    assert server.states == ["running"] * 3 + ["complete"]
    assert [message.get("delivered") for message in told] == [False, True]
    keys = set(told[0]["attrs"])
    prefix = next(key for key in keys if "#" not in key)
    assert {f"{prefix}#0", f"{prefix}#1"} <= keys
    assert told[1]["attrs"] == {"delivered": {"uri": prefix.removeprefix("mlflow:"), "runs": written.num_runs()}}
    assert "secret" not in str(told)


def test_a_server_that_is_away_is_said_once_and_waited_for(written: Ledger, server: Server) -> None:
    server.away = 3
    told: list[dict[str, Any]] = []
    deliver(written, URI, told.append, after(5))
    messages = [message["message"] for message in told if "message" in message]
    assert len(messages) == 2
    assert "away" in messages[0] and "back" in messages[1]
    assert told[-1]["delivered"] is True


def test_one_that_stays_away_is_given_up_at_the_end(written: Ledger, server: Server) -> None:
    server.away = float("inf")
    told: list[dict[str, Any]] = []
    deliver(written, URI, told.append, after(2))
    assert not any(message.get("delivered") for message in told)


def test_when_the_driver_died_nothing_more_is_delivered(written: Ledger, server: Server) -> None:
    written.begin_run({})  # and no end of it
    told: list[dict[str, Any]] = []
    deliver(written, URI, told.append, after(0))
    assert server.states == [] and told == []


def test_sync_delivers_what_a_killed_driver_left_and_writes_the_ids(written: Ledger, server: Server) -> None:
    written.begin_run({})
    assert sync(written, URI, lambda text: None) is True
    assert server.states == ["complete"]
    assert "run-1" in written.attrs.values()
    assert "secret" not in str(written.attrs)


def test_sync_says_when_the_server_could_not_be_reached(written: Ledger, server: Server) -> None:
    server.away = float("inf")
    said: list[str] = []
    assert sync(written, URI, said.append) is False
    assert len(said) == 1
