from __future__ import annotations

import json
import stat
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


@pytest.fixture
def printed(reference: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        (reference.cwd / "stdout.json").read_text(encoding="utf-8")
    )
    return document


def test_a_whole_sweep_prints_one_json_document(reference: Any, printed: dict[str, Any]) -> None:
    assert printed["sweep"] == "digits"
    assert printed["state"] == "complete"
    counts = printed["trials"]
    assert counts["planned"] == 5
    assert counts["complete"] + counts["pruned"] == 5
    assert counts["failed"] == counts["running"] == 0
    best = printed["best"]
    assert set(best["params"]) == {"mixing_alpha", "consistency_weight", "outlier_ratio"}
    complete = [
        trial for trial in reference.trials() if trial.state == "complete" and trial.violation == 0
    ]
    assert best["value"] == max(trial.value for trial in complete)
    assert printed["tracking_uri"] == f"sqlite:///{reference.home / 'mlflow.db'}"
    assert printed["wall_s"] > 0


def test_mlflow_shows_what_the_ledger_holds(
    reference: Any, printed: dict[str, Any], tracked: Callable[..., Any]
) -> None:
    store = tracked(reference)
    store.agrees_with(reference.trials())
    assert store.experiment_id == printed["experiment_id"]
    parent = store.parents[0]
    assert parent.info.run_id == printed["parent_run_id"]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["lmoe_tune.sweep"] == "digits"
    assert parent.data.tags["lmoe_tune.best_trial"] == str(printed["best"]["trial"])
    assert store.trials[printed["best"]["trial"]].info.run_id == printed["best"]["run_id"]


def test_the_promised_metrics_are_there_for_every_epoch(
    reference: Any, tracked: Callable[..., Any]
) -> None:
    promised = {
        "train_loss",
        "train_id_loss",
        "train_mix_loss",
        "train_consistency_loss",
        "train_margin",
    }
    promised |= {
        "val_accuracy",
        "val_fine_auroc",
        "val_coarse_auroc",
        "val_auroc",
        "val_fine_tnr95",
    }
    promised |= {"val_coarse_tnr95", "lr", "epoch_s", "images_per_s", "reserved_s"}
    for run in tracked(reference).trials.values():
        assert promised <= set(run.data.metrics)


def test_the_best_model_loads_from_mlflow_and_predicts(
    printed: dict[str, Any], tracked: Callable[..., Any], reference: Any
) -> None:
    import mlflow
    from sklearn.datasets import load_digits

    store = tracked(reference)
    mlflow.set_tracking_uri(store.uri)
    detector = mlflow.pyfunc.load_model(f"models:/{printed['best']['model_id']}")
    digits = load_digits()
    images = (digits.images[:64] * (255 / 16)).round().astype("float32")
    predicted = detector.predict(images)
    assert list(predicted.columns) == ["class", "score"]
    assert len(predicted) == 64
    known = set(detector.unwrap_python_model().detector.classes)
    rows = [
        place
        for place, label in enumerate(digits.target[:64])
        if str(label) in set(map(str, known))
    ]
    right = [str(predicted["class"][row]) == str(digits.target[row]) for row in rows]
    assert rows and sum(right) / len(right) > 0.8


def test_the_best_checkpoint_is_there_and_those_of_other_trials_are_bounded(
    reference: Any, printed: dict[str, Any]
) -> None:
    from pathlib import Path

    assert Path(printed["best"]["checkpoint"]).is_file()
    kept = {
        path.parts[-3] for path in reference.folder.path.glob("trials/*/checkpoints/epoch-*.pt")
    }
    assert str(printed["best"]["trial"]) in kept
    assert len(kept) <= 3
    assert not (reference.folder.path / ".ray").exists()


def test_the_other_commands_agree_with_it(reference: Any, printed: dict[str, Any]) -> None:
    status = json.loads(reference.look("status", "digits", "--format", "json").stdout)
    assert status == printed
    rows = json.loads(reference.look("leaderboard", "digits", "--format", "json").stdout)
    assert sorted(row["trial"] for row in rows) == [0, 1, 2, 3, 4]
    assert rows[0]["trial"] == printed["best"]["trial"]
    assert all(row["run_id"] for row in rows)
    best = json.loads(reference.look("best", "digits", "--format", "json").stdout)
    assert best == printed["best"]
    assert json.loads(reference.look("list", "--format", "json").stdout) == [printed]


def test_the_same_command_again_says_that_it_is_complete(
    reference: Any, printed: dict[str, Any]
) -> None:
    before = reference.folder.ledger.read_bytes()
    again = reference.look("search", "digits", "--trials", "5", *settings())
    assert again.returncode == 0
    assert "complete" in again.stderr
    assert "lmoe-tune resume digits --trials +" in again.stderr
    assert reference.folder.ledger.read_bytes() == before
    as_json = json.loads(
        reference.look("search", "digits", "--trials", "5", *settings(), "--json").stdout
    )
    assert as_json == printed


def test_a_changed_spec_is_refused_line_by_line(reference: Any) -> None:
    before = reference.folder.ledger.read_bytes()
    changed = ("--set", "train.lr=0.02", "--set", "space.mixing_alpha.high=5")
    refused = reference.look("search", "digits", "--trials", "5", *settings(), *changed)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "train.lr: 0.01 -> 0.02" in refused.stderr
    assert (
        "space.mixing_alpha.high: 10.0 -> 5.0" in refused.stderr
        or "space.mixing_alpha.high: 10 -> 5" in refused.stderr
    )
    assert "--name" in refused.stderr and "--fresh" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert reference.folder.ledger.read_bytes() == before


def test_a_finished_sweep_is_extended(copy_of_reference: Any, tracked: Callable[..., Any]) -> None:
    command = copy_of_reference
    before = command.records()
    done = command.run("resume", "digits", "--trials", "+2", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["state"] == "complete"
    assert document["trials"]["planned"] == 7
    assert [trial.number for trial in command.trials()] == list(range(7))
    assert command.records()[:5] == before
    tracked(command).agrees_with(command.trials())
    assert json.loads(command.look("search", "digits", *settings(), "--json").stdout) == document


def test_the_records_of_a_sweep_are_written_beside_its_ledger(reference: Any) -> None:
    folder = reference.folder
    assert "train" in folder.spec.read_text(encoding="utf-8")
    environment = json.loads(folder.environment.read_text(encoding="utf-8"))
    assert {"torch", "ray", "optuna", "mlflow"} <= set(environment["packages"])
    assert environment["data"]
    assert stat.S_ISREG(folder.ledger.stat().st_mode)


def settings() -> tuple[str, ...]:
    return (
        "--set", "train.epochs=3", "--set", "model.baseline.epochs=2", "--set", "search.max_concurrent=1"
    )  # fmt: skip
