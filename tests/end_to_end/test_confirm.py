"""A confirmation as a user runs it: killed in its middle, resumed, looked at."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.records import TrialRecord
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.view import read_spec, read_sweep
from tests.end_to_end.conftest import EPOCHS

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

CONFIRM = ("confirm", "digits", "--seeds", "2", "--top", "1")
ROWS = 6


def jobs_of(command: Any) -> list[TrialRecord]:
    try:
        return read_sweep(command.folder.confirmation).trials()
    except (LmoeTuneError, FileNotFoundError):
        return []


@pytest.fixture
def quick(copy_of_reference: Any) -> Any:
    """The finished sweep, as if its trials had one epoch and both cores: so has every job."""
    path = copy_of_reference.folder.spec
    text = path.read_text(encoding="utf-8")
    assert "max_concurrent: 1\n" in text and f"epochs: {EPOCHS}\n" in text
    path.write_text(
        text.replace("max_concurrent: 1\n", "max_concurrent: 2\n").replace(
            f"epochs: {EPOCHS}\n", "epochs: 1\n"
        ),
        encoding="utf-8",
    )
    return copy_of_reference


@pytest.fixture
def beaten(quick: Any) -> Any:
    """The same with one more trial, made up, that is the best: where the defaults are, nothing is confirmed."""
    ledger = Ledger.writing(quick.folder, read_spec(quick.folder))
    best = ledger.best()
    assert best is not None
    metrics = best.metrics | {"val_auroc": 1.0}
    assert ledger.record_epoch(ledger.ask().number, 1, metrics, {"val_accuracy": 0.0})
    return quick


def test_killed_and_resumed_it_gives_one_document_that_agrees_with_everything(
    beaten: Any, tracked: Callable[..., Any]
) -> None:
    command = beaten
    driver = command.start(*CONFIRM)
    driver.wait_until(lambda: any(job.state == "complete" for job in jobs_of(command)))
    driver.kill()
    before = jobs_of(command)
    assert not (command.folder.confirmation.path / "confirm.json").exists()
    done = command.run(*CONFIRM, "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    assert found["sweep"] == "digits"
    assert found["verdict"] in ("real", "small", "noise", "worse")
    assert (
        json.loads((command.folder.confirmation.path / "confirm.json").read_text(encoding="utf-8"))
        == found
    )
    best = command.trials()[-1]
    assert found["winner"]["trial"] == best.number
    assert found["winner"]["params"].items() >= best.params.items()
    assert len(found["rows"]) == ROWS
    assert found["failed"] == []
    assert [opening["command"] for opening in found["test_openings"]] == [
        "lmoe-tune " + " ".join(CONFIRM)
    ] * 2

    for old, new in zip(before, jobs_of(command), strict=False):
        assert new.params == old.params
        assert new.epochs[: len(old.epochs)] == old.epochs
    agrees_with_scikit_learn(command, found)
    agrees_with_mlflow(command, tracked(command), found)


def agrees_with_scikit_learn(command: Any, found: dict[str, Any]) -> None:
    """Every number of the document, from the test scores."""
    by_row: dict[str, list[dict[str, float]]] = {}
    for job in found["jobs"]:
        with np.load(
            command.folder.confirmation.path / job["scores"], allow_pickle=False
        ) as arrays:
            id_scores = arrays["scores_id"]
            aurocs = {}
            for name, key in (("fine", "scores_fine"), ("coarse", "scores_coarse_photo_flower")):
                truth = np.r_[np.ones(len(id_scores)), np.zeros(len(arrays[key]))]
                aurocs[f"test_{name}_auroc"] = roc_auc_score(truth, np.r_[id_scores, arrays[key]])
            accuracy = accuracy_score(arrays["labels"], arrays["predicted"])
        computed = aurocs | {"test_accuracy": accuracy, "test_auroc": sum(aurocs.values()) / 2}
        assert {name: job["metrics"][name] for name in computed} == pytest.approx(computed)
        by_row.setdefault(job["row"], []).append(computed)
    for row in found["rows"]:
        runs = by_row[row["name"]]
        assert row["seeds"] == len(runs) == 2
        for name in runs[0]:
            values = [run[name] for run in runs]
            assert row["metrics"][name]["mean"] == pytest.approx(np.mean(values))
            assert row["metrics"][name]["sd"] == pytest.approx(np.std(values, ddof=1))
    for pair in found["paired"]:
        if pair["metric"] in by_row[pair["against"]][0]:
            ours, theirs = by_row[found["winner"]["name"]], by_row[pair["against"]]
            differences = [
                a[pair["metric"]] - b[pair["metric"]] for a, b in zip(ours, theirs, strict=True)
            ]
            assert pair["difference"] == pytest.approx(np.mean(differences))


def agrees_with_mlflow(command: Any, store: Any, found: dict[str, Any]) -> None:
    """A run for every job below one for the confirmation, below the sweep's; none is a trial of the sweep's."""
    store.agrees_with(command.trials()[:-1])  # all but the one that was made up
    kinds = {
        kind: [run for run in store.runs if run.data.tags["lmoe_tune.kind"] == kind]
        for kind in ("confirm", "confirm_job")
    }
    (parent,) = kinds["confirm"]
    assert parent.data.tags["mlflow.parentRunId"] == store.parents[0].info.run_id
    assert parent.data.tags["lmoe_tune.verdict"] == found["verdict"]
    jobs = jobs_of(command)
    runs = {int(run.data.tags["lmoe_tune.confirm_job"]): run for run in kinds["confirm_job"]}
    assert len(kinds["confirm_job"]) == len(jobs)
    for job in jobs:
        run = runs[job.number]
        assert "lmoe_tune.trial" not in run.data.tags
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert (
            run.data.tags["lmoe_tune.sweep_id"] == store.parents[0].data.tags["lmoe_tune.sweep_id"]
        )
        assert run.data.metrics["test_auroc"] == job.metrics["test_auroc"]
        assert run.data.params["seed"] == str(job.params["seed"])
