from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SEARCH = (
    "search", "digits", "--trials", "5", "--set", "train.epochs=3", "--set", "model.baseline.epochs=2",
)  # fmt: skip
ONE_SLOT = ("--set", "search.max_concurrent=1")


def ledger_is_there(command: Any) -> bool:
    return bool(command.folder.ledger.is_file() and command.folder.ledger.stat().st_size > 0)


def baseline_has_begun(command: Any) -> bool:
    return any(command.home.glob("baselines/*/epoch-0001-*.pt"))


def an_epoch_is_recorded(command: Any) -> bool:
    return any(trial.epochs for trial in command.trials())


def a_trial_has_ended(command: Any) -> bool:
    return any(trial.state != "running" for trial in command.trials())


def all_have_started(command: Any) -> bool:
    return len(command.trials()) == 5


@pytest.mark.parametrize(
    "moments",
    [
        (ledger_is_there, an_epoch_is_recorded),
        pytest.param((baseline_has_begun, a_trial_has_ended), marks=pytest.mark.long),
        pytest.param((all_have_started,), marks=pytest.mark.long),
    ],
    ids=[
        "while it starts and after an epoch",
        "in the baseline and after a trial",
        "in the last trial",
    ],
)
def test_killed_and_resumed_it_ends_bit_for_bit_as_the_uninterrupted_sweep(
    command: Any,
    reference: Any,
    tracked: Callable[..., Any],
    moments: tuple[Callable[[Any], bool], ...],
) -> None:
    if baseline_has_begun in moments:
        shutil.rmtree(command.home / "baselines")
    arguments = (*SEARCH, *ONE_SLOT)
    for moment in moments:
        driver = command.start(*arguments)
        driver.wait_until(lambda moment=moment: moment(command))
        driver.kill()
        state = json.loads(command.look("status", "digits", "--format", "json").stdout)["state"]
        assert state == "interrupted"
        arguments = ("resume",)
    done = command.run("resume", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["state"] == "complete"
    assert document["trials"]["planned"] == 5
    assert document["trials"]["running"] == 0
    assert command.records() == reference.records()
    tracked(command).agrees_with(command.trials())


@pytest.mark.long
def test_killed_with_two_slots_it_finishes_what_was_planned(
    command: Any, tracked: Callable[..., Any]
) -> None:
    driver = command.start(*SEARCH)
    driver.wait_until(lambda: any(trial.epochs for trial in command.trials()[1:]))
    driver.kill()
    before = command.trials()
    done = command.run(*SEARCH, "--json")  # the same command goes on
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "complete"
    trials = command.trials()
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    assert {trial.state for trial in trials} <= {"complete", "pruned"}
    for old, new in zip(before, trials, strict=False):
        assert new.params == old.params
        assert new.epochs[: len(old.epochs)] == old.epochs
    if any(trial.state == "running" and trial.epochs for trial in before):
        assert "continues after epoch" in done.stderr
    tracked(command).agrees_with(trials)


def test_a_worker_that_is_killed_continues_and_the_sweep_completes(
    command: Any, reference: Any
) -> None:
    driver = command.start(*SEARCH, *ONE_SLOT)
    driver.wait_until(lambda: an_epoch_is_recorded(command))
    (worker,) = driver.workers()
    waiting = [name for name in driver.descendants().values() if name.startswith("ray::IDLE")]
    assert not waiting, "a process that has imported torch for nothing, on each core"
    os.kill(worker, signal.SIGKILL)
    assert driver.process.wait(120) == 0, driver.output()
    assert re.search(
        r"its process died \(it was killed.*\); it continues in a new one", driver.output()
    )
    assert command.records() == reference.records()


def test_a_second_driver_is_kept_out_and_looking_is_possible(command: Any) -> None:
    long = (*SEARCH, "--set", "train.epochs=1000", "--set", "search.pruner=none")
    driver = command.start(*long)
    driver.wait_until(lambda: an_epoch_is_recorded(command))
    second = command.run(*long)
    assert second.returncode == 1
    assert f"process {driver.process.pid} on " in second.stderr
    status = json.loads(command.look("status", "digits", "--format", "json").stdout)
    assert status["state"] == "running"
    assert driver.end(signal.SIGINT, 60) == 130, driver.output()


@pytest.mark.long
def test_killed_as_soon_as_it_had_a_ledger_it_is_resumed_as_it_was_asked_for(
    copy_of_reference: Any, reference: Any
) -> None:
    command = copy_of_reference
    lines = command.folder.ledger.read_bytes().splitlines(keepends=True)
    first = next(place for place, line in enumerate(lines) if b'"left":0,' in line)
    command.folder.ledger.write_bytes(b"".join(lines[: first + 1]))
    shutil.rmtree(command.folder.path / "trials")
    (command.home / "mlflow.db").unlink()
    done = command.run("resume", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"]["planned"] == 5
    assert command.records() == reference.records()
