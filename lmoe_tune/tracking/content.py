"""What MLflow is told about a sweep, a trial and a baseline: params, tags, metrics and notes, as
plain values.

Only the searched parameters are params, so that parallel coordinates show nothing else; what is the
same for all trials of a sweep is a tag, by which one can filter across sweeps. `docs/mlflow.md`
lists these names, and a test compares the two. To show one more thing: a value here, and a line in
the table there.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256

from lmoe_tune.records import EpochRecord, TrialRecord
from lmoe_tune.snapshot import BaselineSnapshot, SweepSnapshot
from lmoe_tune.spec.metrics import RESERVED

STATUS = {"running": "RUNNING", "complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
"""A run's status by its trial's state; KILLED means that no process works on it."""
SWEEP_STATUS = {"running": "RUNNING", "interrupted": "KILLED", "complete": "FINISHED"}
TRIAL_KIND = {"sweep": "trial", "confirm": "confirm_job"}
"""The kind of the runs of its trials; the tag with their numbers is called after it."""
NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
FINAL, FEASIBLE, EPOCHS, TRAIN_S, GPU_S, GPU_PEAK = (
    "objective_final", "feasible", "epochs_trained", "train_s", "gpu_s", "gpu_mem_peak_mb",
)  # fmt: skip
_FEASIBLE = {True: "Feasible: yes.", False: "Feasible: no: the constraints are missed."}
_SUBJECT = {"sweep": "Sweep", "confirm": "Confirmation of the sweep"}
_WANTED = {"maximize": "the higher the better", "minimize": "the lower the better"}
_MAX_SHOWN = 200  # characters of a failure within a note

Tags = dict[str, str]


def of_every_run(kind: str, snapshot: SweepSnapshot, parent_run_id: str | None) -> Tags:
    """The tags by which a run is found, whatever it is called."""
    tags = {
        "lmoe_tune.kind": kind,
        "lmoe_tune.sweep": snapshot.sweep,
        "lmoe_tune.sweep_id": snapshot.sweep_id,
        "lmoe_tune.state": "running",
        "mlflow.source.name": "lmoe-tune",
    }
    if parent_run_id is not None:
        tags[PARENT] = parent_run_id
    with suppress(KeyError, OSError):  # a container whose user has no name
        tags["mlflow.user"] = getpass.getuser()
    return tags


PLACES = ("host", "gpu")
"""Tags of a trial that are those of the node that trained it, and of a sweep those of its own
process.
"""


def of_new_trial(snapshot: SweepSnapshot, trial: TrialRecord, parent_run_id: str) -> Tags:
    """The tags that its run begins with: the constants of the sweep are on each of its trials, but
    for where the sweep's own process ran.
    """
    kind = TRIAL_KIND[snapshot.kind]
    ours = {name: text for name, text in snapshot.constants.items() if name not in PLACES}
    return {
        **of_every_run(kind, snapshot, parent_run_id),
        f"lmoe_tune.{kind}": str(trial.number),
        **_constants(ours),
        "lmoe_tune.method": str(trial.params.get("method", snapshot.trainable)),
    }


def of_trial(snapshot: SweepSnapshot, trial: TrialRecord, parent_run_id: str) -> Tags:
    """The tags that change while it runs."""
    tags = {PARENT: parent_run_id, "lmoe_tune.state": trial.state}
    for name in (*PLACES, "failure", "retry_of", "ended_by"):
        value = getattr(trial, name)
        if value is not None:
            tags[f"lmoe_tune.{name}"] = str(value)
    if trial.state != "running":
        tags[NOTE] = _note_of_trial(snapshot, trial)
    return tags


def trial_params(snapshot: SweepSnapshot, trial: TrialRecord) -> dict[str, object]:
    """The searched parameters that it has."""
    return {name: trial.params[name] for name in snapshot.searched if name in trial.params}


def trial_name(snapshot: SweepSnapshot, trial: TrialRecord) -> str:
    """The name of its run; nothing is looked up by it."""
    job = trial.params
    if snapshot.kind == "confirm" and "candidate" in job:
        return f"{job['purpose']} {job['candidate']}, split {job['split']}, seed {job['seed']}"
    return f"trial {trial.number}"


def trial_status(snapshot: SweepSnapshot, trial: TrialRecord) -> str:
    """KILLED if no process works on it, so that none is left RUNNING; its tag says that it is not
    finished.
    """
    if trial.state == "running" and snapshot.state != "running":
        return "KILLED"
    return STATUS[trial.state]


def summary_metrics(snapshot: SweepSnapshot, trial: TrialRecord) -> dict[str, float]:
    """Numbers that mean the same in every row; empty before the trial has ended."""
    if trial.state == "running" or not trial.epochs:
        return {}

    train_s = sum(epoch.metrics.get("epoch_s", 0.0) for epoch in trial.epochs)
    found = {
        FEASIBLE: float(trial.violation == 0),
        EPOCHS: float(len(trial.epochs)),
        TRAIN_S: train_s,
    }
    if snapshot.gpus:
        reserved_s = sum(epoch.metrics.get(RESERVED, 0.0) for epoch in trial.epochs)
        found[GPU_S] = reserved_s * snapshot.gpus
    peaks = [epoch.metrics[GPU_PEAK] for epoch in trial.epochs if GPU_PEAK in epoch.metrics]
    if peaks:
        found[GPU_PEAK] = max(peaks)
    value = trial.epochs[-1].metrics.get(snapshot.objective)
    if trial.state == "complete" and trial.violation == 0 and value is not None:
        found[FINAL] = float(value)
    return found


def of_sweep(snapshot: SweepSnapshot, best_run_id: str | None) -> Tags:
    """The tags of its own run. The best parameters are among them, as a param is written once, but
    the best trial changes while a sweep runs, and again when it is extended.
    """
    tags = {
        "lmoe_tune.state": snapshot.state,
        "lmoe_tune.objective": snapshot.objective,
        "lmoe_tune.direction": snapshot.direction,
        "lmoe_tune.spec_sha256": spec_digest(snapshot),
        **_constants(snapshot.constants),
        **snapshot.tags,
        NOTE: _note_of_sweep(snapshot),
    }
    if snapshot.best is not None and best_run_id is not None:
        params = trial_params(snapshot, snapshot.trials[snapshot.best])
        tags["lmoe_tune.best_trial"] = str(snapshot.best)
        tags["lmoe_tune.best_params"] = json.dumps(params, sort_keys=True)
        tags["lmoe_tune.best_run_id"] = best_run_id
        tags["lmoe_tune.feasible"] = str(snapshot.feasible).lower()
    return tags


def of_baseline(baseline: BaselineSnapshot, parent_run_id: str) -> Tags:
    """The tags that change while it is trained."""
    return {PARENT: parent_run_id, "lmoe_tune.state": baseline.state}


def spec_digest(snapshot: SweepSnapshot) -> str:
    """Says whether MLflow has the spec as it is now."""
    return sha256(snapshot.spec_yaml.encode()).hexdigest()


def last_sign_ms(epochs: tuple[EpochRecord, ...], started_ms: int) -> int:
    """When the last epoch was recorded."""
    if epochs:
        return epochs[-1].time_ms

    return started_ms


def _constants(constants: Mapping[str, str]) -> Tags:
    return {f"lmoe_tune.{name}": value for name, value in constants.items()}


def _note_of_trial(snapshot: SweepSnapshot, trial: TrialRecord) -> str:
    epochs = "epoch" if len(trial.epochs) == 1 else "epochs"
    name = trial_name(snapshot, trial)
    ended = f"{trial.state} after {len(trial.epochs)} {epochs}"
    lines = [f"**{name}** of the sweep *{snapshot.sweep}*: {ended}."]
    if trial.failure is not None:
        lines.append(f"It failed: {trial.failure[:_MAX_SHOWN]}")
    if trial.retry_of is not None:
        lines.append(f"It tries trial {trial.retry_of} again.")
    if trial.epochs:
        names = (snapshot.objective, *snapshot.also, *snapshot.constrained)
        lines.append(_line({name: trial.metrics.get(name) for name in names}))
        lines.append(_FEASIBLE[trial.violation == 0])
    lines.append(_line(trial_params(snapshot, trial)))
    return "\n\n".join(line for line in lines if line)


def _note_of_sweep(snapshot: SweepSnapshot) -> str:
    lines = [
        f"**{_SUBJECT[snapshot.kind]} {snapshot.sweep}**: {snapshot.trainable}, {snapshot.state}.",
        f"It goes by `{snapshot.objective}` ({_WANTED[snapshot.direction]}).",
    ]
    if snapshot.kind == "sweep":
        searched = ", ".join(f"`{name}`" for name in snapshot.searched)
        lines.append(f"Searched: {searched}. What is the same for all trials is in their tags.")
    if snapshot.best is not None:
        best = snapshot.trials[snapshot.best]
        found = {snapshot.objective: best.metrics.get(snapshot.objective)}
        note = ""
        if not snapshot.feasible:
            note = " (no trial meets the constraints; it misses them least)"
        lines.append(f"Best so far: trial {best.number}{note}, {_line(found)}")
        lines.append(_line(trial_params(snapshot, best)))
    if sentence := snapshot.tags.get("lmoe_tune.verdict_sentence"):
        lines.append(sentence)
    return "\n\n".join(lines)


def _line(values: Mapping[str, object]) -> str:
    known = {name: value for name, value in values.items() if value is not None}
    return ", ".join(f"`{name}` = {_shown(value)}" for name, value in known.items())


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return str(value)
