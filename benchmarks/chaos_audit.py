"""Audits a finished sweep: ledger, disk and MLflow against each other and against an uninterrupted sweep.

Everything is read from the files, the ledger through the project's own reader and MLflow through its
database, without the server. Used by `chaos.py` and by the tests.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmoe_tune import checkpoint
from lmoe_tune.records import TrialRecord
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.view import read_sweep

TIMING = ("epoch_s", "images_per_s", "reserved_s")
SUMMARY = {"objective_final", "feasible", "epochs_trained", "train_s", "gpu_s", "gpu_mem_peak_mb"}
"""What a finished trial's run has beside the metrics of its epochs."""
STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
COLUMNS = ("lost", "doubled", "differing", "on disk", "in MLflow")


@dataclass(frozen=True)
class Problem:
    """Something that is not as it must be; `column` is one of COLUMNS."""

    column: str
    what: str

    def __str__(self) -> str:
        return f"{self.column}: {self.what}"


def audit(
    folder: SweepFolder,
    database: Path,
    *,
    planned: int,
    reference: SweepFolder | None,
    seen: list[list[TrialRecord]],
) -> list[Problem]:
    """All that is wrong with a sweep that says it is complete.

    Args:
        database: the SQLite file behind MLflow.
        reference: an uninterrupted sweep of the same spec, which must be equal bit for bit; None where the order
            of events decides, as with several slots.
        seen: the ledger's trials as they stood between two runs: what was recorded may never change.
    """
    ledger = read_sweep(folder)
    problems = list(compare_counts(ledger, planned))
    for earlier in seen:
        problems += compare_with_earlier(ledger.trials(), earlier)
    if reference is not None:
        problems += compare_with_reference(ledger, read_sweep(reference))
    problems += compare_disk(ledger, reference)
    problems += compare_mlflow(ledger, database)
    return list(dict.fromkeys(problems))


# The ledger


def compare_counts(ledger: Ledger, planned: int) -> Iterator[Problem]:
    trials = ledger.trials()
    if not ledger.is_complete():
        yield Problem("lost", "the sweep is not complete")
    numbers = Counter(trial.number for trial in trials)
    for number in sorted(set(range(planned)) - set(numbers)):
        yield Problem("lost", f"trial {number} is not in the ledger")
    for number in sorted(number for number in numbers if number >= planned or numbers[number] > 1):
        yield Problem("doubled", f"trial {number} is in the ledger, but {planned} were planned")
    for parameters, count in Counter(
        json.dumps(trial.params, sort_keys=True) for trial in trials
    ).items():
        if count > 1:
            yield Problem("doubled", f"{count} trials have the parameters {parameters}")
    for trial in trials:
        if trial.state not in ("complete", "pruned"):
            yield Problem("lost", f"trial {trial.number} is {trial.state}: {trial.failure}")
        if [epoch.epoch for epoch in trial.epochs] != list(range(1, len(trial.epochs) + 1)):
            yield Problem(
                "differing",
                f"trial {trial.number} has the epochs {[e.epoch for e in trial.epochs]}",
            )


def compare_with_earlier(
    trials: list[TrialRecord], earlier: list[TrialRecord]
) -> Iterator[Problem]:
    """What was once recorded is still there, unchanged."""
    now = {trial.number: trial for trial in trials}
    for before in earlier:
        after = now.get(before.number)
        if after is None:
            yield Problem("lost", f"trial {before.number} was in the ledger once")
        elif after.params != before.params or after.epochs[: len(before.epochs)] != before.epochs:
            yield Problem(
                "differing", f"trial {before.number} is no longer what had been recorded of it"
            )
        elif before.state != "running" and after != before:
            yield Problem("differing", f"trial {before.number} changed after its end")


def compare_with_reference(ledger: Ledger, reference: Ledger) -> Iterator[Problem]:
    """Bit for bit: everything but times."""
    found, wanted = determined(ledger.trials()), determined(reference.trials())
    for number in sorted(set(found) & set(wanted)):
        for what, value in wanted[number].items():
            if found[number][what] != value:
                yield Problem(
                    "differing",
                    f"trial {number}: {what} is {found[number][what]}, but must be {value}",
                )
    best, must_be = ledger.best(), reference.best()
    if (best and best.number) != (must_be and must_be.number):
        yield Problem(
            "differing",
            f"the best is {best and best.number}, but must be {must_be and must_be.number}",
        )


def determined(trials: list[TrialRecord]) -> dict[int, dict[str, Any]]:
    """What a sweep with one slot determines of each trial: all but the timing."""
    return {
        trial.number: {
            "state": trial.state,
            "params": trial.params,
            "value": trial.value,
            "violation": trial.violation,
            "epochs": [untimed(epoch.metrics) for epoch in trial.epochs],
        }
        for trial in trials
    }


def untimed(metrics: Any) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in TIMING}


# The disk


def compare_disk(ledger: Ledger, reference: SweepFolder | None) -> Iterator[Problem]:
    folder = ledger.folder
    best = {trial.number for trial in ledger.ranked(ledger.spec.tracking.best_checkpoints)}
    on_disk = {int(path.name) for path in (folder.path / "trials").iterdir()}
    for number in sorted(on_disk ^ {trial.number for trial in ledger.trials()}):
        yield Problem(
            "on disk", f"trials/{number} and the ledger disagree on whether there is such a trial"
        )
    for trial in ledger.trials():
        yield from compare_record(folder.trial(trial.number), trial)
        files = checkpoint.list_newest_first(folder.checkpoints(trial.number))
        if trial.number in best:
            yield from compare_checkpoint(trial, files, reference)
        elif files:
            yield Problem(
                "on disk",
                f"trial {trial.number} is none of the best, but kept {len(files)} checkpoints",
            )
    for stray in folder.home.rglob("*.tmp"):
        if (
            "checkpoints" not in stray.parts and stray.parent.parent.name != "baselines"
        ):  # the next save drops those
            yield Problem("on disk", f"{stray.relative_to(folder.home)} was left behind")
    if (folder.path / ".ray").exists():
        yield Problem("on disk", "Ray's scratch folder was left behind")


def compare_record(path: Path, trial: TrialRecord) -> Iterator[Problem]:
    about = json.loads((path / "trial.json").read_text(encoding="utf-8"))
    for what in ("state", "value", "params", "violation", "failure", "started_ms", "ended_ms"):
        if about[what] != getattr(trial, what):
            yield Problem("on disk", f"trial {trial.number}: trial.json says {what} {about[what]}")
    lines = [
        json.loads(line)
        for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    wanted = trial.to_json()["epochs"]
    if lines != wanted:
        yield Problem(
            "on disk",
            f"trial {trial.number}: metrics.jsonl has {len(lines)} lines that are not the ledger's",
        )


def compare_checkpoint(
    trial: TrialRecord, files: list[Path], reference: SweepFolder | None
) -> Iterator[Problem]:
    """The last one is whole, of the last epoch, and holds the weights that the uninterrupted trial ended with."""
    import torch

    if not 1 <= len(files) <= checkpoint.KEEP:
        yield Problem(
            "on disk", f"trial {trial.number} is one of the best, but has {len(files)} checkpoints"
        )
        return
    try:
        state = checkpoint.load(files[0])
    except ValueError as error:
        yield Problem("on disk", str(error))
        return
    if state["epoch"] != len(trial.epochs) or untimed(state["metrics"]) != untimed(trial.metrics):
        yield Problem("on disk", f"trial {trial.number}: its checkpoint is not of its last epoch")
    if reference is not None:
        wanted = checkpoint.load_newest(reference.checkpoints(trial.number))
        if wanted is None or not all(
            torch.equal(wanted["model"][key], state["model"][key]) for key in state["model"]
        ):
            yield Problem(
                "differing",
                f"trial {trial.number}: its weights are not those of the uninterrupted trial",
            )


# MLflow


def compare_mlflow(ledger: Ledger, database: Path) -> Iterator[Problem]:
    """One run per trial with its state, parameters and every epoch once; none RUNNING; the best models, once."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name(ledger.spec.tracking.experiment or ledger.spec.name)
    if experiment is None:
        yield Problem("in MLflow", "there is no experiment")
        return
    mine = f"tags.`lmoe_tune.sweep_id` = '{ledger.sweep_id}'"
    runs = list(client.search_runs([experiment.experiment_id], mine, max_results=10_000))
    kinds = Counter(run.data.tags.get("lmoe_tune.kind") for run in runs)
    if kinds["sweep"] != 1 or kinds["baseline"] != 1:
        yield Problem(
            "in MLflow", f"{kinds['sweep']} parent runs and {kinds['baseline']} baseline runs"
        )
    for run in runs:
        if run.info.status == "RUNNING":
            yield Problem("in MLflow", f"the run '{run.info.run_name}' is RUNNING")
    of_trial: dict[int, list[Any]] = {}
    for run in runs:
        if "lmoe_tune.trial" in run.data.tags:
            of_trial.setdefault(int(run.data.tags["lmoe_tune.trial"]), []).append(run)
    parents = {run.info.run_id for run in runs if run.data.tags.get("lmoe_tune.kind") == "sweep"}
    for trial in ledger.trials():
        found = of_trial.pop(trial.number, [])
        if len(found) != 1:
            yield Problem("in MLflow", f"trial {trial.number} has {len(found)} runs")
            continue
        yield from compare_run(client, found[0], trial, parents)
    for number in of_trial:
        yield Problem(
            "in MLflow", f"there is a run of trial {number}, which the ledger does not have"
        )
    yield from compare_models(client, experiment.experiment_id, mine, ledger)


def compare_run(client: Any, run: Any, trial: TrialRecord, parents: set[str]) -> Iterator[Problem]:
    found = {
        "status": run.info.status,
        "state": run.data.tags.get("lmoe_tune.state"),
        "parameters": run.data.params,
        "parent": run.data.tags.get("mlflow.parentRunId") in parents,
    }
    params = {name: str(value) for name, value in trial.params.items()}
    wanted = {
        "status": STATUS.get(trial.state),
        "state": trial.state,
        "parameters": params,
        "parent": True,
    }
    for what, value in wanted.items():
        if found[what] != value:
            yield Problem(
                "in MLflow", f"trial {trial.number}: {what} is {found[what]}, but must be {value}"
            )
    measured = set(run.data.metrics)
    if measured - SUMMARY != set(trial.metrics) - SUMMARY:
        yield Problem("in MLflow", f"trial {trial.number} has the metrics {sorted(measured)}")
    epochs = run.data.metrics.get("epochs_trained")
    if epochs != len(trial.epochs):
        yield Problem("in MLflow", f"trial {trial.number} has epochs_trained {epochs}")
    for name in trial.metrics:
        history = sorted(
            (m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)
        )
        if history != [(epoch.epoch, epoch.metrics[name]) for epoch in trial.epochs]:
            yield Problem("in MLflow", f"trial {trial.number}: {name} is {history}")


def compare_models(client: Any, experiment_id: str, mine: str, ledger: Ledger) -> Iterator[Problem]:
    models = client.search_logged_models([experiment_id], filter_string=mine, max_results=100)
    best = sorted(t.number for t in ledger.ranked(ledger.spec.tracking.best_checkpoints))
    logged = sorted(int(model.tags["lmoe_tune.trial"]) for model in models)
    if logged != best:
        yield Problem(
            "in MLflow", f"models are logged of the trials {logged}, but must be of {best}"
        )
    for model in models:
        if str(model.status) != "READY":
            yield Problem(
                "in MLflow", f"the model of trial {model.tags['lmoe_tune.trial']} is {model.status}"
            )
