from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from lmoe_tune.sweep import view
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.tracked import append

Run = Callable[..., Any]


def test_the_summary_has_the_keys_of_the_contract(swept: Ledger) -> None:
    found = json.loads(json.dumps(view.summary(swept)))
    assert found["sweep"] == "small"
    assert found["state"] == "interrupted"
    assert found["trials"] == {"planned": 9, "complete": 2, "pruned": 1, "failed": 1, "running": 1}
    assert found["best"]["trial"] == 1
    assert found["best"]["value"] == 0.8
    assert found["best"]["params"] == swept.trial(1).params
    assert found["tracking_uri"] == f"sqlite:///{swept.folder.home / 'mlflow.db'}"
    assert found["experiment_id"] is None and found["parent_run_id"] is None
    assert isinstance(found["wall_s"], float)
    started = datetime.fromisoformat(found["started"])
    assert started.timestamp() == swept.created_ms // 1000


def test_on_one_level_lists_are_counted_or_joined() -> None:
    document = {
        "sweep": "a",
        "trials": {"complete": 2},
        "best": {"trial": 1, "value": 0.5, "params": {}},
        "started_from": [{"sweep": "b", "trials": [1, 2]}, {"sweep": "c", "trials": []}],
        "changes": ["x", "y"],
        "test_openings": [{}, {}],
        "questions": [3, 4],
    }
    assert view.flattened(document) == {
        "sweep": "a",
        "complete": 2,
        "best_trial": 1,
        "best_value": 0.5,
        "started_from": "b (trial 1, 2); c (trial none)",
        "changes": "x; y",
        "test_openings": 2,
        "questions": "3, 4",
    }
    assert view.flattened({"best": None, "questions": None}) == {
        "best_trial": None,
        "best_value": None,
        "questions": None,
    }


def test_the_leaderboard_has_the_keys_of_the_contract_and_its_order(swept: Ledger) -> None:
    rows = json.loads(json.dumps(view.leaderboard(swept)))
    assert all(
        {"trial", "state", "value", "params", "metrics", "epochs", "run_id"} <= set(row)
        for row in rows
    )
    assert [(row["trial"], row["state"]) for row in rows] == [
        (1, "complete"),
        (0, "complete"),
        (4, "running"),
        (2, "pruned"),
        (3, "failed"),
    ]
    assert [row["epochs"] for row in rows] == [3, 3, 1, 1, 0]
    assert rows[0]["metrics"]["val_auroc"] == rows[0]["value"] == 0.8
    assert rows[-1]["failure"] == "epoch 1: train_loss is nan" and rows[-1]["value"] is None


def test_a_sweep_is_running_interrupted_or_complete(
    ledger: Callable[..., Ledger], run_trial: Run
) -> None:
    written = ledger("budget.trials=1", "search.pruner=none")
    assert view.state_of(written) == "interrupted"
    with written.folder.locked():
        assert view.state_of(written) == "running"
    run_trial(written)
    assert view.state_of(written) == "complete"


def test_an_infeasible_best_is_marked(ledger: Callable[..., Ledger], run_trial: Run) -> None:
    written = ledger("search.pruner=none")
    assert view.best_of(written) is None
    run_trial(written, val_accuracy=0.1)
    best = view.best_of(written)
    assert best is not None and best["feasible"] is False


def test_ids_from_mlflow_are_shown_with_their_trials(swept: Ledger) -> None:
    server = view.tracking_of(swept).uri
    lines: list[dict[str, Any]] = [
        {"experiment_id": "1", "parent_run_id": "p"},
        {"models": {1: "m-1"}},
        {"trial": 0, "run_id": "r0"},
        {"trial": 1, "run_id": "r1"},
    ]
    append(swept.folder, [{"server": server, **line} for line in lines])
    found = view.summary(swept)
    assert (found["experiment_id"], found["parent_run_id"]) == ("1", "p")
    assert (found["best"]["run_id"], found["best"]["model_id"]) == ("r1", "m-1")
    assert [row["run_id"] for row in view.leaderboard(swept)] == ["r1", "r0", None, None, None]


def test_ids_of_another_server_are_not_shown(
    swept: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = view.tracking_of(swept).uri
    append(swept.folder, [{"server": server, "experiment_id": "1", "parent_run_id": "p"}])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@elsewhere:5000")
    found = view.summary(swept)
    assert found["experiment_id"] is None
    assert "elsewhere:5000" in found["tracking_uri"]
    assert "secret" not in json.dumps(found)


def test_a_sweep_is_read_from_its_folder_alone(swept: Ledger) -> None:
    again = view.read_sweep(swept.folder)
    assert again.trials() == swept.trials()
    assert again.spec == swept.spec
