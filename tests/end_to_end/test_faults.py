from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

SEARCH = (
    "search",
    "digits",
    "--set",
    "train.epochs=2",
    "--set",
    "model.baseline.epochs=2",
    "--json",
)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.long
def test_trials_whose_loss_is_not_finite_fail_and_the_sweep_goes_on_to_its_end(
    command: Any, tracked: Callable[..., Any]
) -> None:
    done = command.run(*SEARCH, "--trials", "3", "--set", "train.lr=1e12")
    document = json.loads(done.stdout)
    assert document["state"] == "complete"
    assert document["trials"]["failed"] == 3
    assert document["best"] is None
    assert done.returncode == 3, "not one trial worked"
    for trial in command.trials():
        assert trial.state == "failed"
        assert trial.failure is not None
        assert trial.failure.startswith("epoch ")
        assert "train_" in trial.failure or "validation logits" in trial.failure
        assert f"trial {trial.number} failed: {trial.failure}" in done.stderr
    assert "Traceback" not in done.stderr
    store = tracked(command)
    store.agrees_with(command.trials())
    assert {run.data.tags["lmoe_tune.failure"][:6] for run in store.trials.values()} == {"epoch "}


def test_more_failed_trials_than_allowed_is_exit_code_3_and_the_failed_can_be_retried(
    command: Any,
) -> None:
    failing = ("--trials", "4", "--set", "train.lr=1e12", "--set", "budget.max_failed=0")
    done = command.run(*SEARCH, *failing, "--set", "search.max_concurrent=1")
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert document["state"] == "complete"
    assert document["trials"]["failed"] == 1


@pytest.mark.long
def test_failed_trials_of_a_complete_sweep_are_retried_as_new_ones(command: Any) -> None:
    done = command.run(*SEARCH, "--trials", "1", "--set", "train.lr=1e12")
    assert json.loads(done.stdout)["trials"]["failed"] == 1
    again = command.run("resume", "digits", "--retry-failed", "--json")
    first, second = command.trials()
    assert second.params == first.params
    assert second.retry_of == 0
    assert json.loads(again.stdout)["state"] == "complete"


@pytest.mark.long
def test_without_mlflow_a_sweep_completes_and_its_ids_are_null(
    command: Any, closed_port: int
) -> None:
    uri = f"http://user:secret@127.0.0.1:{closed_port}"
    done = command.run(*SEARCH, "--trials", "2", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["state"] == "complete"
    assert document["trials"]["complete"] + document["trials"]["pruned"] == 2
    assert document["experiment_id"] is None
    assert document["parent_run_id"] is None
    assert "lmoe-tune sync digits" in done.stderr
    assert str(closed_port) in document["tracking_uri"]
    assert "secret" not in done.stdout + done.stderr
    for path in command.home.rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes(), path


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(("sync", "digits"), marks=pytest.mark.long),
        pytest.param(("resume", "digits"), marks=pytest.mark.long),
    ],
    ids=["sync", "resume"],
)
def test_what_mlflow_missed_is_delivered_later(
    command: Any, closed_port: int, tracked: Callable[..., Any], again: tuple[str, ...]
) -> None:
    away = command.run(
        *SEARCH, "--trials", "2", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{closed_port}"
    )
    assert away.returncode == 0, away.stderr
    done = command.run(*again)
    assert done.returncode == 0, done.stderr
    tracked(command).agrees_with(command.trials())


@pytest.mark.long
def test_the_time_budget_ends_a_sweep(command: Any) -> None:
    done = command.run(*SEARCH, "--set", "budget={time: 12s}")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["state"] == "complete"
    assert document["trials"]["running"] == 0
    assert document["trials"]["failed"] == 0
    again = command.run("resume", "digits")
    assert again.returncode == 0
    assert "complete" in again.stderr
