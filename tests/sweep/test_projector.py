"""Delivery to tracking with a server that is there, away, or gone for good."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.errors import TrackingAwayError, TrackingError, TrackingRefusedError
from lmoe_tune.sweep import delivery
from lmoe_tune.sweep.delivery import deliver
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import write_records
from lmoe_tune.sweep.projector import Reception, sync
from lmoe_tune.sweep.tracked import FILE, tracked
from lmoe_tune.tracking import CheckpointGoneError, Delivered, Place
from tests.hearing import Hearing

URI = "http://user:secret@host:5000"


class Server:
    """In place of a projection: notes the snapshots' states, and is away as often as it is told to."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.models: list[int] = []
        self.away: Iterable[bool] = []
        self.left: list[int] = []
        self.said: tuple[str, ...] = ()
        self.called = "small"
        self.known: Place | None = None
        self.error: TrackingError = TrackingAwayError("MLflow cannot be reached")

    def project(self, snapshot: Any, models: Any = (), *, limit_s: float) -> Delivered:
        self.away = iter(self.away)
        if next(self.away, False):
            raise self.error
        self.states.append(snapshot.state)
        self.models.append(len(models))
        run_ids = {trial.number: f"run-{trial.number}" for trial in snapshot.trials}
        num_left = self.left.pop(0) if self.left else 0
        return Delivered("1", self.called, "parent", run_ids, {}, num_left, self.said)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()

    def projection(uri: str, artifacts: Path, known: Place | None) -> Server:
        made.known = known
        return made

    monkeypatch.setattr(delivery, "Projection", projection)
    clock: Iterator[float] = iter(range(10_000))
    monkeypatch.setattr(delivery.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(delivery.time, "sleep", lambda seconds: None)
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


def test_what_is_new_is_told_once_and_the_end_says_that_all_is_delivered(
    written: Ledger, server: Server
) -> None:
    told: list[dict[str, Any]] = []
    deliver(written, URI, told.append, after(3))
    assert server.states == ["running"] * 3 + ["complete"]
    assert [message.get("delivered") for message in told] == [False, True, None]
    assert told[2] == {"left": 0}
    server = {"server": "http://host:5000"}
    assert told[0]["lines"] == [
        server
        | {
            "experiment": "small",
            "called": "small",
            "experiment_id": "1",
            "parent_run_id": "parent",
        },
        server | {"trial": 0, "run_id": "run-0"},
        server | {"trial": 1, "run_id": "run-1"},
    ]
    assert told[1]["lines"] == [server | {"runs": written.num_runs()}]
    assert "secret" not in str(told)


def test_a_server_that_is_away_is_said_once_and_waited_for(written: Ledger, server: Server) -> None:
    server.away = [True] * 3
    hearing = Hearing()
    reception, said = Reception(written.folder, hearing), hearing.said
    deliver(written, URI, reception.take, after(5))
    assert said == [
        "MLflow cannot be reached; no record is lost: MLflow gets them later",
        "MLflow is back",
    ]
    assert reception.delivered


def test_a_server_that_comes_and_goes_is_said_in_three_lines(
    written: Ledger, server: Server
) -> None:
    server.away = [True, False] * 50
    hearing = Hearing()
    said = hearing.said
    deliver(written, URI, Reception(written.folder, hearing).take, after(100))
    assert [line.partition(";")[0] for line in said[:2]] == [
        "MLflow cannot be reached",
        "MLflow is back",
    ]
    assert said[2:] == ["MLflow was unreachable 50 times; now it has everything"]


def test_the_longer_it_is_away_the_rarer_it_is_asked(written: Ledger, server: Server) -> None:
    server.away = [True] * 6
    pauses: list[float] = []

    def finishing(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == 9

    deliver(written, URI, lambda told: None, finishing)
    assert pauses == [0, 2, 4, 8, 15, 15, 15, 2, 2]


def test_a_checkpoint_that_the_driver_dropped_meanwhile_is_no_word_to_the_user(
    written: Ledger, server: Server
) -> None:
    server.error = CheckpointGoneError("epoch-0003.pt is gone")
    server.away = [False, True, False, True, False]
    hearing = Hearing()
    reception, said = Reception(written.folder, hearing), hearing.said
    deliver(written, URI, reception.take, after(3))
    assert said == []
    assert reception.delivered


def test_one_that_stays_away_is_given_up_at_the_end(written: Ledger, server: Server) -> None:
    server.away = itertools.repeat(True)
    told: list[dict[str, Any]] = []
    deliver(written, URI, told.append, after(2))
    assert not any(message.get("delivered") for message in told)


def test_when_the_driver_died_nothing_more_is_delivered(written: Ledger, server: Server) -> None:
    written.begin_run({})  # and no end of it
    told: list[dict[str, Any]] = []
    deliver(written, URI, told.append, after(0))
    assert server.states == [] and told == []


def test_sync_delivers_what_a_killed_driver_left_and_writes_the_ids(
    written: Ledger, server: Server
) -> None:
    written.begin_run({})
    assert sync(written, URI, Hearing()) is True
    assert server.states == ["complete"]
    found = tracked(written.folder, URI)
    assert (found.run_ids[1], found.runs) == ("run-1", written.num_runs())
    assert "secret" not in (written.folder.path / FILE).read_text(encoding="utf-8")


def test_sync_says_when_the_server_could_not_be_reached(written: Ledger, server: Server) -> None:
    server.away = itertools.repeat(True)
    hearing = Hearing()
    said = hearing.said
    assert sync(written, URI, hearing) is False
    assert len(said) == 1


def test_a_refusal_is_said_once_and_tried_again_now_and_then(
    written: Ledger, server: Server
) -> None:
    server.error = TrackingRefusedError("MLflow refuses: 403; ask for the right to write")
    server.away = [True] * 3
    hearing = Hearing()
    reception, said = Reception(written.folder, hearing), hearing.said
    deliver(written, URI, reception.take, after(5))
    assert len(said) == 2
    assert said[0].startswith("MLflow refuses: 403; ask for the right to write; no record is lost")
    assert said[1] == "MLflow accepts the records again"
    assert reception.delivered and reception.refusal is None


def test_nobody_waits_at_the_end_for_a_store_that_refuses(written: Ledger, server: Server) -> None:
    server.error = TrackingRefusedError("MLflow refuses: 404")
    server.away = itertools.repeat(True)
    attempts: list[object] = []
    deliver(written, URI, attempts.append, after(0))
    assert attempts == [{"refused": "MLflow refuses: 404"}]
    with pytest.raises(TrackingRefusedError, match="404"):
        sync(written, URI, Hearing())


def test_a_backlog_at_the_end_is_worked_off_however_long_it_takes(
    written: Ledger, server: Server
) -> None:
    server.left = [900, 500, 100]
    hearing = Hearing()
    reception = Reception(written.folder, hearing)
    deliver(written, URI, reception.take, after(0))
    assert hearing.work == [(0, 900), (400, 900), (800, 900), (900, 900)]
    assert reception.delivered


def test_what_mlflow_does_not_take_is_told_with_the_rest_delivered(
    written: Ledger, server: Server
) -> None:
    server.said = ("the metric 'ce@1 (%)' is not shown",)
    hearing = Hearing()
    reception, said = Reception(written.folder, hearing), hearing.said
    deliver(written, URI, reception.take, after(2))
    assert said == ["the metric 'ce@1 (%)' is not shown"]
    assert reception.delivered


def test_an_experiment_that_was_renamed_is_said_once_and_its_parts_follow_it(
    written: Ledger, server: Server
) -> None:
    hearing = Hearing()
    said = hearing.said
    sync(written, URI, hearing)
    assert server.known is None and said == []

    server.called = "nicer"
    tuned = written.folder.tuned("mixoe")
    write_records(tuned, written.spec)
    part = Ledger.writing(tuned, written.spec)
    for ledger in (written, part, written):
        sync(ledger, URI, hearing)
        assert server.known == Place("small", "1", "parent")
    assert said == [
        "the experiment 'small' is called 'nicer' in MLflow; the sweep's runs stay in it"
    ]
