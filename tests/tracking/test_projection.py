from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from lmoe_tune.errors import TrackingError
from lmoe_tune.records import EpochRecord, TrialRecord
from lmoe_tune.snapshot import BaselineSnapshot, DatasetRecord, ModelSource, SweepSnapshot
from lmoe_tune.tracking import Place, Projection

pytestmark = pytest.mark.timeout(120)  # importing MLflow takes a second, once

MakeTrial = Callable[..., TrialRecord]
MakeSweep = Callable[..., SweepSnapshot]


def runs(uri: str, view: int = ViewType.ACTIVE_ONLY) -> dict[str, Run]:
    """All runs of the experiment `digits`, by name."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], run_view_type=view)
    names = [run.info.run_name for run in found]
    assert len(set(names)) == len(names), f"a run is there twice: {names}"
    return {run.info.run_name: run for run in found}


def counts(uri: str) -> dict[str, int]:
    """Rows per table."""
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
        tables = [
            name
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return {
            name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables
        }


def calls(projection: Projection, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the methods of the projection's client that are called from now on."""
    made: list[str] = []
    for name in (
        "log_batch",
        "create_run",
        "set_terminated",
        "update_run",
        "search_runs",
        "log_text",
    ):
        method = getattr(MlflowClient, name)

        def spy(*arguments: Any, _name: str = name, _method: Any = method, **named: Any) -> Any:
            made.append(_name)
            return _method(*arguments, **named)

        monkeypatch.setattr(MlflowClient, name, spy)
    return made


def test_a_sweep_is_a_parent_run_with_one_child_per_trial(
    uri: str, trial: MakeTrial, sweep: MakeSweep, baseline: BaselineSnapshot, tmp_path: Path
) -> None:
    trials = (
        trial(0),
        trial(1, "pruned"),
        trial(2, "failed", failure="epoch 2: loss is NaN"),
        trial(3, "running"),
    )
    snapshot = sweep(*trials, best=0, baseline=baseline)
    delivered = Projection(uri, tmp_path / "art").project(snapshot)

    found = runs(uri)
    assert sorted(found) == ["baseline", "digits", "trial 0", "trial 1", "trial 2", "trial 3"]
    parent = found["digits"]
    assert delivered.parent_run_id == parent.info.run_id
    assert delivered.experiment_id == parent.info.experiment_id
    assert delivered.run_ids == {
        number: found[f"trial {number}"].info.run_id for number in range(4)
    }
    statuses = [found[f"trial {number}"].info.status for number in range(4)]
    assert statuses == ["FINISHED", "FINISHED", "FAILED", "RUNNING"]

    child = found["trial 1"]
    expected = {
        "mlflow.parentRunId": parent.info.run_id,
        "lmoe_tune.sweep": "digits",
        "lmoe_tune.sweep_id": snapshot.sweep_id,
        "lmoe_tune.trial": "1",
        "lmoe_tune.state": "pruned",
    }
    assert expected.items() <= child.data.tags.items()
    assert child.data.params == {"mixing_alpha": "1.5", "consistency_weight": "1.0"}
    assert (child.info.start_time, child.info.end_time) == (
        trials[1].started_ms,
        trials[1].ended_ms,
    )
    history = MlflowClient(uri).get_metric_history(child.info.run_id, "val_auroc")
    assert [(point.step, point.value, point.timestamp) for point in history] == [
        (record.epoch, record.metrics["val_auroc"], record.time_ms) for record in trials[1].epochs
    ]
    assert found["trial 2"].data.tags["lmoe_tune.failure"] == "epoch 2: loss is NaN"

    assert parent.info.status == "RUNNING"
    assert parent.data.tags["lmoe_tune.best_trial"] == "0"
    best_params = json.loads(parent.data.tags["lmoe_tune.best_params"])
    assert best_params == {"mixing_alpha": 0.5, "consistency_weight": 1.0}
    assert parent.data.metrics == {"best_val_auroc": trials[0].epochs[-1].metrics["val_auroc"]}
    spec = tmp_path / "art" / parent.info.run_id / "artifacts" / "spec.yaml"
    assert spec.read_text(encoding="utf-8") == snapshot.spec_yaml

    trained = found["baseline"]
    assert trained.data.tags["lmoe_tune.baseline"] == "abc123"
    assert "lmoe_tune.trial" not in trained.data.tags
    assert trained.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert len(MlflowClient(uri).get_metric_history(trained.info.run_id, "val_auroc")) == 3


def test_a_second_projection_changes_nothing(
    uri: str,
    trial: MakeTrial,
    sweep: MakeSweep,
    baseline: BaselineSnapshot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    snapshot = sweep(trial(0), trial(1, "pruned"), best=0, baseline=baseline, state="complete")
    projection = Projection(uri)
    first = projection.project(snapshot)
    before = counts(uri)
    made = calls(projection, monkeypatch)
    assert projection.project(snapshot) == first
    assert made == []
    assert Projection(uri).project(snapshot) == first
    assert made == ["search_runs"]
    assert counts(uri) == before


def test_metrics_that_are_sent_again_are_stored_once(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    snapshot = sweep(trial(0, "running"), trial(1, "running", num_epochs=0), best=None)
    first = Projection(uri).project(snapshot)
    before = counts(uri)
    assert (
        Projection(uri).project(snapshot) == first
    )  # a fresh one sends those of a running trial again
    assert counts(uri) == before


def test_only_new_epochs_are_sent_and_in_one_call(
    uri: str, trial: MakeTrial, sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    projection = Projection(uri)
    projection.project(sweep(trial(0), trial(1, "running", 1), best=0))
    made = calls(projection, monkeypatch)
    projection.project(sweep(trial(0), trial(1, "running", 3), best=0))
    assert made == ["log_batch"]


def test_more_metrics_than_one_call_may_carry_are_all_delivered(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    epochs = tuple(
        EpochRecord(n, {f"m{i}": i / n for i in range(30)}, 1000 + n) for n in range(1, 41)
    )
    params = {f"p{i}": i for i in range(120)}
    snapshot = sweep(
        trial(0, epochs=epochs, params=params), searched=tuple(params), state="complete"
    )
    run_id = Projection(uri).project(snapshot).run_ids[0]
    assert counts(uri)["metrics"] == 1200 + 3, "and the summary"
    run = MlflowClient(uri).get_run(run_id)
    assert len(run.data.params) == 120
    assert run.data.tags["lmoe_tune.state"] == "complete"


def test_long_texts_are_cut_to_what_mlflow_takes(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    snapshot = sweep(trial(0, "failed", failure="x" * 20_000, params={"mixing_alpha": "y" * 9_000}))
    projection = Projection(uri)
    run = MlflowClient(uri).get_run(projection.project(snapshot).run_ids[0])
    assert len(run.data.tags["lmoe_tune.failure"]) == 5_000
    assert len(run.data.params["mixing_alpha"]) == 6_000


def test_not_a_number_is_delivered_once(uri: str, trial: MakeTrial, sweep: MakeSweep) -> None:
    epochs = (EpochRecord(1, {"train_loss": float("nan"), "val_auroc": float("inf")}, 5),)
    snapshot = sweep(trial(0, "running", epochs=epochs))
    Projection(uri).project(snapshot)
    Projection(uri).project(snapshot)
    assert counts(uri)["metrics"] == 2


def test_a_resume_goes_on_in_the_same_runs(uri: str, trial: MakeTrial, sweep: MakeSweep) -> None:
    first = Projection(uri).project(sweep(trial(0), trial(1, "running", 1), best=0))
    snapshot = sweep(trial(0), trial(1, num_epochs=4), trial(2), best=1, state="complete")
    second = Projection(uri).project(snapshot)
    assert second.parent_run_id == first.parent_run_id
    assert {number: second.run_ids[number] for number in (0, 1)} == first.run_ids
    found = runs(uri)
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert len(MlflowClient(uri).get_metric_history(second.run_ids[1], "val_auroc")) == 4
    assert found["digits"].data.tags["lmoe_tune.best_trial"] == "1"
    assert (
        found["digits"].data.metrics["best_val_auroc"]
        == snapshot.trials[1].epochs[-1].metrics["val_auroc"]
    )
    assert found["digits"].info.end_time == snapshot.trials[2].ended_ms


def test_an_interrupted_sweep_has_no_running_run_and_a_resume_wakes_them(
    uri: str, trial: MakeTrial, sweep: MakeSweep, baseline: BaselineSnapshot
) -> None:
    training = replace(baseline, state="running", ended_ms=None)
    projection = Projection(uri)
    projection.project(sweep(trial(0, "running", 1), baseline=training))
    interrupted = sweep(trial(0, "running", 1), baseline=training, state="interrupted")
    projection.project(interrupted)
    found = runs(uri)
    assert {run.info.status for run in found.values()} == {"KILLED"}
    assert found["trial 0"].data.tags["lmoe_tune.state"] == "running"
    assert found["digits"].data.tags["lmoe_tune.state"] == "interrupted"

    Projection(uri).project(sweep(trial(0, "running", 2), baseline=training))
    assert {run.info.status for run in runs(uri).values()} == {"RUNNING"}
    Projection(uri).project(
        sweep(trial(0, num_epochs=3), baseline=baseline, best=0, state="complete")
    )
    assert {run.info.status for run in runs(uri).values()} == {"FINISHED"}


def test_runs_that_exist_twice_are_deleted_but_for_one(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    snapshot = sweep(trial(0), trial(1, "running"), best=0)
    first = Projection(uri).project(snapshot)
    client = MlflowClient(uri)
    doubles = []
    for run_id in (first.parent_run_id, first.run_ids[1]):  # what a repeated POST leaves
        run = client.get_run(run_id)
        tags = {
            name: value for name, value in run.data.tags.items() if name != "lmoe_tune.spec_sha256"
        }
        copy = client.create_run(first.experiment_id, run.info.start_time, tags, run.info.run_name)
        doubles.append(copy.info.run_id)
    assert Projection(uri).project(snapshot) == first
    assert len(runs(uri)) == 3
    assert all(client.get_run(run_id).info.lifecycle_stage == "deleted" for run_id in doubles)


def test_a_request_that_mlflow_repeated_is_noticed_before_the_sweep_ends(
    uri: str, trial: MakeTrial, sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_run = MlflowClient.create_run

    def create_twice(*arguments: Any, **named: Any) -> Run:
        create_run(*arguments, **named)
        return create_run(*arguments, **named)

    projection = Projection(uri)
    monkeypatch.setattr(MlflowClient, "create_run", create_twice)
    projection.project(sweep(trial(0, "running")))
    delivered = projection.project(sweep(trial(0), best=0, state="complete"))
    found = runs(uri)
    assert {name: run.info.status for name, run in found.items()} == {
        "digits": "FINISHED",
        "trial 0": "FINISHED",
    }
    assert found["trial 0"].info.run_id == delivered.run_ids[0]


def test_runs_of_other_kinds_with_the_sweeps_id_are_left_alone(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    snapshot = sweep(trial(0), best=0)
    first = Projection(uri).project(snapshot)
    tags = {"lmoe_tune.sweep_id": snapshot.sweep_id, "lmoe_tune.kind": "confirm"}
    MlflowClient(uri).create_run(first.experiment_id, tags=tags, run_name="confirm")
    Projection(uri).project(sweep(trial(0), best=0, state="complete"))
    assert runs(uri)["confirm"].info.status == "RUNNING"


def test_a_confirmations_runs_are_below_the_sweeps_and_no_trials_of_it(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    whole = sweep(trial(0), trial(1), best=0, state="complete")
    above = Projection(uri).project(whole)
    about = {"candidate": "trial 7", "purpose": "confirm", "split": 0, "seed": 1000}
    job = trial(0, params=about)
    confirmation = sweep(
        job,
        state="complete",
        kind="confirm",
        searched=("candidate", "split", "seed"),
        tags={"lmoe_tune.verdict": "noise"},
    )
    projection = Projection(uri)
    delivered = projection.project(confirmation)
    assert Projection(uri).project(confirmation) == projection.project(confirmation) == delivered, (
        "found again"
    )
    assert Projection(uri).project(whole) == above, "and not taken for the sweep's"
    found = runs(uri)
    assert sorted(found) == [
        "confirm trial 7, split 0, seed 1000",
        "digits",
        "digits confirm",
        "trial 0",
        "trial 1",
    ]
    parent, child = found["digits confirm"], found["confirm trial 7, split 0, seed 1000"]
    assert parent.data.tags["mlflow.parentRunId"] == above.parent_run_id
    assert parent.data.tags["lmoe_tune.verdict"] == "noise"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id == delivered.parent_run_id
    assert child.data.tags["lmoe_tune.confirm_job"] == "0"
    assert "lmoe_tune.trial" not in child.data.tags
    assert child.data.params == {"candidate": "trial 7", "split": "0", "seed": "1000"}
    assert child.info.status == "FINISHED"


def test_a_confirmations_run_that_is_there_twice_is_deleted_once(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    confirmation = sweep(trial(0), state="complete", kind="confirm")
    delivered = Projection(uri).project(confirmation)
    (job,) = [run for name, run in runs(uri).items() if name == "trial 0"]
    tags = {
        name: value
        for name, value in job.data.tags.items()
        if name.startswith(("lmoe_tune.", "mlflow.parent"))
    }
    client = MlflowClient(uri)
    double = client.create_run(
        delivered.experiment_id, start_time=job.info.start_time, tags=tags, run_name="double"
    )
    assert Projection(uri).project(confirmation) == delivered
    assert "double" not in runs(uri)
    assert client.get_run(double.info.run_id).info.lifecycle_stage == "deleted"


def test_a_run_that_the_ledger_does_not_know_is_not_left_running(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    Projection(uri).project(sweep(trial(0), trial(1, "running"), best=0))
    Projection(uri).project(sweep(trial(0), best=0, state="complete"))
    assert runs(uri)["trial 1"].info.status == "KILLED"


def test_a_view_is_rebuilt_on_an_empty_server(
    uri: str, empty_store: Path, trial: MakeTrial, sweep: MakeSweep, baseline: BaselineSnapshot
) -> None:
    steps = [
        sweep(trial(0, "running", 1), baseline=baseline),
        sweep(trial(0), trial(1, "running", 1), best=0, baseline=baseline),
        sweep(trial(0), trial(1, "pruned"), best=0, baseline=baseline, state="complete"),
    ]
    projection = Projection(uri)
    for step in steps:
        projection.project(step)
    grown = runs(uri)

    path = Path(uri.removeprefix("sqlite:///"))
    other = path.with_name("other.db")
    other.write_bytes(empty_store.read_bytes())
    Projection(f"sqlite:///{other}").project(steps[-1])
    rebuilt = runs(f"sqlite:///{other}")
    assert grown.keys() == rebuilt.keys()
    for name, run in grown.items():
        assert run.data.metrics == rebuilt[name].data.metrics
        assert run.data.params == rebuilt[name].data.params
        info, other_info = run.info, rebuilt[name].info
        assert (info.status, info.start_time, info.end_time) == (
            other_info.status,
            other_info.start_time,
            other_info.end_time,
        )


@pytest.mark.parametrize(
    "fails", ["create_run", "log_batch", "set_terminated", "log_text", "search_runs"]
)
def test_a_delivery_that_breaks_off_anywhere_is_finished_by_the_next(
    fails: str, uri: str, trial: MakeTrial, sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = sweep(trial(0), trial(1, "pruned"), best=0, state="complete")
    method = getattr(MlflowClient, fails)
    due = iter([False, True] if fails in ("create_run", "log_batch") else [True])

    def carried_out_but_unanswered(*arguments: Any, **named: Any) -> Any:
        result = method(*arguments, **named)
        if next(due, False):
            raise ConnectionResetError("the answer was lost")
        return result

    projection = Projection(uri)
    monkeypatch.setattr(MlflowClient, fails, carried_out_but_unanswered)
    with pytest.raises(TrackingError, match="the answer was lost"):
        projection.project(snapshot)
    projection.project(snapshot)
    found = runs(uri)
    assert {name: run.info.status for name, run in found.items()} == {
        "digits": "FINISHED",
        "trial 0": "FINISHED",
        "trial 1": "FINISHED",
    }
    # Beside the epochs: feasible, epochs_trained, train_s, one objective_final, and the best.
    assert counts(uri)["metrics"] == 2 * 2 * 2 + 2 * 3 + 1 + 1


def test_a_changed_spec_is_uploaded_again(
    uri: str, tmp_path: Path, sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    projection = Projection(uri)
    projection.project(sweep())
    made = calls(projection, monkeypatch)
    run_id = projection.project(
        sweep(spec_yaml="name: digits\nbudget: {trials: 9}\n")
    ).parent_run_id
    assert made == ["log_text", "log_batch"]
    assert "trials: 9" in (tmp_path / "mlartifacts" / run_id / "artifacts" / "spec.yaml").read_text(
        encoding="utf-8"
    )


def test_two_sweeps_share_an_experiment(uri: str, trial: MakeTrial, sweep: MakeSweep) -> None:
    one = Projection(uri).project(sweep(trial(0), best=0))
    other = sweep(trial(0), best=0, sweep="again", sweep_id="5d0f0f0c-0000-4000-8000-000000000002")
    two = Projection(uri).project(other)
    assert one.experiment_id == two.experiment_id
    assert one.parent_run_id != two.parent_run_id
    assert one.run_ids != two.run_ids


def test_a_deleted_experiment_is_explained(uri: str, sweep: MakeSweep) -> None:
    experiment_id = Projection(uri).project(sweep()).experiment_id
    MlflowClient(uri).delete_experiment(experiment_id)
    with pytest.raises(
        TrackingError, match=f"was deleted; restore it with .*--experiment-id {experiment_id}`"
    ):
        Projection(uri).project(sweep())


@pytest.mark.parametrize(("wanted", "called"), [("digits", "nicer"), ("another", "another")])
def test_a_renamed_experiment_is_followed_unless_the_spec_names_another(
    uri: str, trial: MakeTrial, sweep: MakeSweep, wanted: str, called: str
) -> None:
    first = Projection(uri).project(sweep(trial(0)))
    client = MlflowClient(uri)
    client.rename_experiment(first.experiment_id, "nicer")
    before = {one.name for one in client.search_experiments()}
    known = Place("digits", first.experiment_id, first.parent_run_id)

    again = Projection(uri, known=known).project(sweep(trial(0), experiment=wanted))

    assert again.called == called
    assert (again.run_ids == first.run_ids) == (called == "nicer")
    assert {one.name for one in client.search_experiments()} == before | {called}


def test_an_experiment_that_a_renewed_store_gave_the_same_id_is_not_taken(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    theirs = MlflowClient(uri).create_experiment("theirs")
    for known in (Place("digits", theirs, "0" * 32), Place("digits", "77", "0" * 32)):
        delivered = Projection(uri, known=known).project(sweep(trial(0)))
        assert delivered.called == "digits" and delivered.experiment_id != theirs


def test_nothing_lands_in_the_working_directory(
    uri: str, trial: MakeTrial, sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    Projection(uri).project(sweep(trial(0), best=0, state="complete"))
    assert list(elsewhere.iterdir()) == []


def test_an_epoch_that_the_ledger_lost_and_recorded_anew_is_there_once(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    Projection(uri).project(sweep(trial(0, "running", 3)))
    again = trial(0, "running", 3)
    later = tuple(replace(epoch, time_ms=epoch.time_ms + 60_000) for epoch in again.epochs)
    delivered = Projection(uri).project(sweep(replace(again, epochs=later)))
    history = MlflowClient(tracking_uri=uri).get_metric_history(delivered.run_ids[0], "val_auroc")
    assert [metric.step for metric in history] == [1, 2, 3]


def test_a_metric_that_mlflow_refuses_costs_itself_alone(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    epochs = tuple(
        EpochRecord(n, {"val_auroc": 0.5, "ce@1 (%)": 0.1, "train_loss": 1.0}, 10 + n)
        for n in (1, 2)
    )
    projection = Projection(uri)
    first = projection.project(sweep(trial(0, epochs=epochs), trial(1), best=0))
    assert len(first.said) == 1 and "'ce@1 (%)'" in first.said[0]
    later = projection.project(sweep(trial(0, epochs=epochs), trial(1), trial(2, epochs=epochs)))
    assert later.said == (), "said once"
    found = runs(uri)
    for name in ("trial 0", "trial 2"):
        assert {"val_auroc", "train_loss"} <= set(found[name].data.metrics)
        assert found[name].data.tags["lmoe_tune.state"] == "complete"
        assert found[name].info.status == "FINISHED"
    client = MlflowClient(uri)
    assert len(client.get_metric_history(found["trial 0"].info.run_id, "val_auroc")) == 2


def test_a_trial_whose_run_somebody_deleted_gets_another(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    projection = Projection(uri)
    first = projection.project(sweep(trial(0, "running", 1)))
    MlflowClient(uri).delete_run(first.run_ids[0])
    second = projection.project(sweep(trial(0), best=0))
    assert second.run_ids[0] != first.run_ids[0] and second.said == ()
    assert runs(uri)["trial 0"].info.status == "FINISHED"


def test_a_store_of_files_that_refuses_costs_spec_and_models_alone(
    uri: str, trial: MakeTrial, sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/mlartifacts")

    monkeypatch.setattr(MlflowClient, "log_text", refuse)
    monkeypatch.setattr(MlflowClient, "log_model_artifacts", refuse)
    checkpoint = tmp_path / "trial-0.pt"
    checkpoint.write_bytes(b"weights")
    snapshot = sweep(trial(0), best=0, state="complete")
    delivered = Projection(uri).project(snapshot, [ModelSource(0, checkpoint)])
    assert [sentence.partition(" in MLflow")[0] for sentence in delivered.said] == [
        "models are not kept",
        "the spec is not kept",
    ]
    assert {run.info.status for run in runs(uri).values()} == {"FINISHED"}
    (experiment,) = {run.info.experiment_id for run in runs(uri).values()}
    assert list(MlflowClient(uri).search_logged_models([experiment])) == []


def test_summaries_mean_the_same_in_every_row(uri: str, trial: MakeTrial, sweep: MakeSweep) -> None:
    def epochs(value: float) -> tuple[EpochRecord, ...]:
        return tuple(
            EpochRecord(
                n,
                {
                    "val_auroc": value,
                    "epoch_s": 2.0,
                    "reserved_s": 3.0,
                    "gpu_mem_peak_mb": 100.0 * n,
                },
                n,
            )
            for n in (1, 2, 3)
        )

    snapshot = sweep(
        trial(0, epochs=epochs(0.9)),
        trial(1, epochs=epochs(0.99), violation=0.01),
        trial(2, "pruned", epochs=epochs(0.8)),
        trial(3, "running", epochs=epochs(0.7)),
        gpus=0.5,
        best=0,
    )
    Projection(uri).project(snapshot)
    found = runs(uri)
    common = {"epochs_trained": 3.0, "train_s": 6.0, "gpu_s": 4.5, "gpu_mem_peak_mb": 300.0}
    assert (common | {"objective_final": 0.9, "feasible": 1.0}).items() <= found[
        "trial 0"
    ].data.metrics.items()
    infeasible = found["trial 1"].data.metrics
    assert infeasible["feasible"] == 0.0 and "objective_final" not in infeasible
    pruned = found["trial 2"].data.metrics
    assert common.items() <= pruned.items() and "objective_final" not in pruned
    assert "epochs_trained" not in found["trial 3"].data.metrics
    Projection(uri).project(snapshot)
    history = MlflowClient(uri).get_metric_history(found["trial 0"].info.run_id, "objective_final")
    assert len(history) == 1


def test_constants_are_tags_and_data_sets_are_inputs(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    digest = "0123456789abcdef" * 4
    sets = (
        DatasetRecord("digits/train", "training", digest, "digits", 700),
        DatasetRecord("photos/outliers", "outliers", digest, "/data/photos", 90),
    )
    snapshot = sweep(
        trial(0),
        trial(1, "running", 1, host="node-7", gpu="H100"),
        constants={"lr": "0.001", "fixed.mix_weight": "1.0", "host": "head", "gpu": "A100"},
        datasets=sets,
        best=0,
        state="complete",
    )
    Projection(uri).project(snapshot)
    Projection(uri).project(snapshot)
    found = runs(uri)
    assert set(found["trial 0"].data.params) == {"mixing_alpha", "consistency_weight"}
    for name in ("digits", "trial 0"):
        assert found[name].data.tags["lmoe_tune.lr"] == "0.001"
        assert found[name].data.tags["lmoe_tune.fixed.mix_weight"] == "1.0"
        inputs = found[name].inputs.dataset_inputs
        assert sorted(
            (one.dataset.name, one.dataset.digest, one.tags[0].value) for one in inputs
        ) == [
            ("digits/train", digest[:36], "training"),
            ("photos/outliers", digest[:36], "outliers"),
        ]
    places = {
        name: (run.data.tags.get("lmoe_tune.host"), run.data.tags.get("lmoe_tune.gpu"))
        for name, run in found.items()
    }
    assert places["digits"] == ("head", "A100")
    assert places["trial 0"] == (None, None), "not known: it is not said to be the head's"
    assert places["trial 1"] == ("node-7", "H100")
    client = MlflowClient(uri)
    by_tag = client.search_runs(
        [found["digits"].info.experiment_id],
        "tags.`lmoe_tune.lr` = '0.001' and tags.`lmoe_tune.trial` = '0'",
    )
    assert [run.info.run_name for run in by_tag] == ["trial 0"]


def test_a_person_can_read_what_a_run_is(uri: str, trial: MakeTrial, sweep: MakeSweep) -> None:
    Projection(uri).project(
        sweep(trial(0), trial(1, "failed", failure="epoch 2: loss is NaN"), best=0)
    )
    found = runs(uri)
    note = found["digits"].data.tags["mlflow.note.content"]
    assert "trial 0" in note and "`val_auroc`" in note and "mixing_alpha" in note
    note = found["trial 1"].data.tags["mlflow.note.content"]
    assert "failed after 2 epochs" in note and "loss is NaN" in note


def test_a_verdict_is_at_the_sweep_too(uri: str, trial: MakeTrial, sweep: MakeSweep) -> None:
    whole = sweep(trial(0), best=0, state="complete")
    Projection(uri).project(whole)
    verdict = {"lmoe_tune.verdict": "real"}
    about = {"candidate": "trial 0", "purpose": "confirm", "split": 0, "seed": 1000}
    job = trial(0, params=about)
    Projection(uri).project(sweep(job, state="complete", kind="confirm", tags=verdict))
    assert runs(uri)["digits"].data.tags["lmoe_tune.verdict"] == "real"
    Projection(uri).project(whole)
    assert runs(uri)["digits"].data.tags["lmoe_tune.verdict"] == "real"


def test_a_pass_ends_when_its_time_is_over_and_the_next_goes_on(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    snapshot = sweep(*(trial(number) for number in range(12)), best=0, state="complete")
    projection = Projection(uri)
    left = []
    while not left or left[-1]:
        left.append(projection.project(snapshot, limit_s=0.0).num_left)
        status = runs(uri)["digits"].info.status
        assert status == ("RUNNING" if left[-1] else "FINISHED")
    assert len(left) > 1 and left == sorted(left, reverse=True)
    assert len(runs(uri)) == 13


def test_at_the_end_only_what_was_sent_is_looked_up_again(
    uri: str, trial: MakeTrial, sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [trial(number) for number in range(8)]
    Projection(uri).project(sweep(*old, best=0, state="interrupted"))
    projection = Projection(uri)
    projection.project(sweep(*old, best=0))

    looked_up: list[str] = []
    search_runs, create_run, log_batch = (
        MlflowClient.search_runs,
        MlflowClient.create_run,
        MlflowClient.log_batch,
    )
    swallowed = iter([True])

    def search(*arguments: Any, **named: Any) -> Any:
        page = search_runs(*arguments, **named)
        looked_up.extend(run.info.run_name for run in page)
        return page

    def create_twice(*arguments: Any, **named: Any) -> Run:
        create_run(*arguments, **named)
        return create_run(*arguments, **named)

    def log(*arguments: Any, **named: Any) -> Any:
        return None if next(swallowed, False) else log_batch(*arguments, **named)

    monkeypatch.setattr(MlflowClient, "search_runs", search)
    monkeypatch.setattr(MlflowClient, "create_run", create_twice)
    monkeypatch.setattr(MlflowClient, "log_batch", log)
    snapshot = sweep(*old, trial(8), best=8, state="complete")
    delivered = projection.project(snapshot)

    assert sorted(looked_up) == ["digits", "trial 8", "trial 8"]
    assert sorted(delivered.run_ids) == list(range(9))
    found = runs(uri)
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert found["trial 8"].data.metrics["val_auroc"] == snapshot.trials[8].metrics["val_auroc"]


def test_a_run_that_was_deleted_or_changed_meanwhile_is_there_again_after_the_next_delivery(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    old = [trial(number) for number in range(4)]
    first = Projection(uri).project(sweep(*old, best=0))
    projection = Projection(uri)
    projection.project(sweep(*old, best=0))
    client = MlflowClient(uri)
    client.delete_run(first.run_ids[1])
    client.set_tag(first.run_ids[2], "lmoe_tune.state", "failed")
    client.set_terminated(first.run_ids[3], "KILLED")
    complete = sweep(*old, trial(4), best=4, state="complete")
    projection.project(complete)

    Projection(uri).project(complete)
    found = runs(uri)
    assert sorted(found) == ["digits", *(f"trial {number}" for number in range(5))]
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert {run.data.tags["lmoe_tune.state"] for run in found.values()} == {"complete"}


def test_a_sweeps_run_that_was_deleted_meanwhile_is_made_again_above_all_its_trials(
    uri: str, trial: MakeTrial, sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [trial(number) for number in range(3)]
    projection = Projection(uri)
    first = projection.project(sweep(*old, best=0))
    set_terminated = MlflowClient.set_terminated

    def end_and_delete(client: MlflowClient, run_id: str, *arguments: Any, **named: Any) -> None:
        set_terminated(client, run_id, *arguments, **named)
        if run_id == first.parent_run_id:
            client.delete_run(run_id)

    monkeypatch.setattr(MlflowClient, "set_terminated", end_and_delete)
    delivered = projection.project(sweep(*old, trial(3), best=0, state="complete"))
    found = runs(uri)
    assert found["digits"].info.run_id == delivered.parent_run_id != first.parent_run_id
    above = {
        run.data.tags.get("mlflow.parentRunId") for name, run in found.items() if "trial" in name
    }
    assert above == {delivered.parent_run_id}


def test_runs_beyond_the_ledgers_trials_are_ended_in_a_session_that_knew_them(
    uri: str, trial: MakeTrial, sweep: MakeSweep
) -> None:
    projection = Projection(uri)
    projection.project(sweep(trial(0), trial(1, "running"), trial(2, "running"), best=0))
    Projection(uri).project(sweep(trial(0), trial(1), best=0, state="complete"))
    assert runs(uri)["trial 2"].info.status == "KILLED"
