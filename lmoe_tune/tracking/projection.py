"""The projection: makes MLflow show what a snapshot of the ledger says, with as few calls as it can.

MLflow holds nothing that the ledger does not, so every step may be repeated: runs are found by their tags,
metrics carry the ledger's times (MLflow stores an identical one once), and the status of a run is set last,
so a run that has ended is known to be whole. What was delivered is remembered in memory only; after any error
it is forgotten and looked up again, as a request may have been carried out although its answer was lost.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from lmoe_tune.errors import TrackingError
from lmoe_tune.records import EpochRecord, TrialRecord
from lmoe_tune.snapshot import BaselineSnapshot, ModelSource, SweepSnapshot
from lmoe_tune.tracking.address import is_server, shown, sqlite_path
from lmoe_tune.tracking.judge import translated
from lmoe_tune.tracking.logged_models import LoggedModels
from lmoe_tune.tracking.store import connect, follow_home

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as MlflowRun

_STATUS = {"running": "RUNNING", "complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
_PARENT_STATUS = {"running": "RUNNING", "interrupted": "KILLED", "complete": "FINISHED"}
# MLflow's limits, per call and per value.
_MAX_METRICS, _MAX_PARAMS, _MAX_PARAM_CHARS, _MAX_TAG_CHARS = 1000, 100, 6000, 5000
_ALL_EPOCHS = 1 << 31
EXPERIMENT_TAG = "mlflow.experimentKind"
_TRIAL_KIND = {"sweep": "trial", "confirm": "confirm_job"}
"""The kind of the runs of its trials; the tag with their numbers is called after it."""
_EXPERIMENT_TAGS = {
    EXPERIMENT_TAG: "custom_model_development"
}  # the UI opens on runs, not on traces


@dataclass(frozen=True)
class Delivered:
    """Where things are in MLflow; `run_ids` and `models` map a trial's number to an id."""

    experiment_id: str
    parent_run_id: str
    run_ids: dict[int, str]
    models: dict[int, str]


@dataclass
class _Run:
    """What MLflow is known to hold of one run."""

    run_id: str
    status: str
    tags: dict[str, str]
    params: set[str] = field(default_factory=set)
    metrics: dict[str, float] = field(default_factory=dict)
    num_epochs: int = 0
    sent_ms: dict[int, int] = field(default_factory=dict)
    """Epochs that MLflow has, and their times: sent again with another time, one would be there twice."""
    changed: bool = False


@dataclass
class _Contact:
    """What MLflow is known to hold of one sweep; lives until the next error."""

    client: MlflowClient
    experiment_id: str
    models: LoggedModels
    parent: _Run | None
    grandparent: str | None
    """Of a confirmation: the id of the sweep's run."""
    trials: dict[int, _Run]
    baselines: dict[str, _Run]
    open: set[int] = field(default_factory=set)
    """Trials that have been delivered, but may still change."""
    num_seen: int = 0
    """Trials below this number have been delivered."""
    last_ms: int = 0
    """The last time that the delivered trials know of."""

    def open_numbers(self, num_trials: int) -> list[int]:
        """The trials of which MLflow may lack something, where so many have been started."""
        return [*sorted(self.open), *range(self.num_seen, num_trials)]

    @property
    def changed(self) -> bool:
        """Whether anything was sent since MLflow was asked what it holds."""
        runs = [*self.trials.values(), *self.baselines.values(), *filter(None, [self.parent])]
        return self.models.changed or any(run.changed for run in runs)


class Projection:
    """Delivers snapshots of one sweep to one tracking store. Not thread-safe; one per thread or process."""

    def __init__(self, tracking_uri: str, artifact_root: Path | None = None) -> None:
        """Nothing is contacted yet.

        Args:
            tracking_uri: of a tracking server or a database; may hold credentials.
            artifact_root: folder for the files of runs and models where there is no server that keeps them;
                the default is `mlartifacts` beside an SQLite store. A server decides itself.
        """
        self._uri = tracking_uri
        path = sqlite_path(tracking_uri)
        if artifact_root is None and path is not None:
            artifact_root = path.parent / "mlartifacts"
        if is_server(tracking_uri) or artifact_root is None:
            self._artifact_root = None
        else:
            self._artifact_root = artifact_root.resolve()
        self._client: MlflowClient | None = None
        self._contact: _Contact | None = None
        self._contact_key: tuple[str, str, str] | None = None

    def project(self, snapshot: SweepSnapshot, models: Sequence[ModelSource] = ()) -> Delivered:
        """Make MLflow show `snapshot`. Repeating it changes nothing.

        Args:
            snapshot: the ledger as it is now.
            models: the best checkpoints; the sweep's logged models become exactly these. Without any, the
                models that there are stay.

        Raises:
            TrackingError: MLflow is away or refuses. What was delivered stays, and the next call goes on.
        """
        with translated(self._uri), self._forgetting_on_error():
            contact = self._reach(snapshot)
            delivered = self._deliver(contact, snapshot, models)
            if snapshot.state != "running" and contact.changed:
                # MLflow repeats a POST whose answer was lost, so things may exist twice without an error here;
                # and some proxies answer without passing a request on.
                self._contact = None
                contact = self._reach(snapshot)
                delivered = self._deliver(contact, snapshot, models)
            return delivered

    @contextmanager
    def _forgetting_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._contact = None
            raise

    def _reach(self, snapshot: SweepSnapshot) -> _Contact:
        key = (snapshot.experiment, snapshot.sweep_id, snapshot.kind)
        if self._contact is None or self._contact_key != key:
            if self._client is None:
                if self._artifact_root is not None:
                    follow_home(self._uri, self._artifact_root, EXPERIMENT_TAG)
                self._client = connect(self._uri)
            experiment_id = self._find_experiment(self._client, snapshot.experiment)
            self._contact = _find_runs(self._client, experiment_id, snapshot, self._artifact_root)
            self._contact_key = key
        return self._contact

    def _find_experiment(self, client: MlflowClient, name: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            location = self._artifact_root.as_uri() if self._artifact_root else None
            try:
                return str(
                    client.create_experiment(
                        name, artifact_location=location, tags=_EXPERIMENT_TAGS
                    )
                )
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = client.get_experiment_by_name(name)  # another sweep was faster
        if experiment is None or experiment.lifecycle_stage != "active":
            number = experiment.experiment_id if experiment else "ID"
            raise TrackingError(
                f"the experiment '{name}' in MLflow at {shown(self._uri)} was deleted; restore it with"
                f" `mlflow experiments restore --experiment-id {number}`, or name another one in the spec"
                " (tracking.experiment)"
            )
        return str(experiment.experiment_id)

    def _deliver(
        self, contact: _Contact, snapshot: SweepSnapshot, models: Sequence[ModelSource]
    ) -> Delivered:
        if contact.parent is None:
            tags = _common_tags(snapshot.kind, snapshot, contact.grandparent)
            tags |= {"lmoe_tune.trainable": snapshot.trainable}
            name = (
                snapshot.sweep if snapshot.kind == "sweep" else f"{snapshot.sweep} {snapshot.kind}"
            )
            contact.parent = _create(contact, name, snapshot.started_ms, tags)
        parent_run_id = contact.parent.run_id
        if snapshot.baseline is not None:
            _deliver_baseline(contact, snapshot, snapshot.baseline, parent_run_id)
        for number in contact.open_numbers(len(snapshot.trials)):
            _deliver_trial(contact, snapshot, snapshot.trials[number], parent_run_id)
        run_ids = {number: run.run_id for number, run in contact.trials.items()}
        model_ids = (
            contact.models.deliver(snapshot, list(models), run_ids)
            if snapshot.kind == "sweep"
            else {}
        )
        if snapshot.state != "running":
            _end_strays(contact, snapshot)
        _deliver_parent(contact, snapshot, contact.parent)
        return Delivered(contact.experiment_id, parent_run_id, run_ids, model_ids)


def _find_runs(
    client: MlflowClient, experiment_id: str, snapshot: SweepSnapshot, artifact_root: Path | None
) -> _Contact:
    """Everything of this sweep that MLflow holds; runs that exist twice are deleted but for the oldest."""
    assert "'" not in snapshot.sweep_id, "a sweep id is a UUID"
    found: list[MlflowRun] = []
    token: str | None = None
    while True:
        of_sweep = f"tags.`lmoe_tune.sweep_id` = '{snapshot.sweep_id}'"
        page = client.search_runs([experiment_id], of_sweep, max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    # Doubles have the same start, the ledger's; of those the one that has been filled is the older.
    found.sort(key=lambda run: (run.info.start_time, -len(run.data.metrics), run.info.run_id))
    models = LoggedModels(client, experiment_id, snapshot.sweep_id, artifact_root)
    if found and snapshot.kind == "sweep":  # a sweep without runs has no models either
        models.find()
    contact = _Contact(client, experiment_id, models, None, None, {}, {})
    trial_kind = _TRIAL_KIND[snapshot.kind]
    ours = (
        ("trial", "baseline", "sweep") if snapshot.kind == "sweep" else (trial_kind, snapshot.kind)
    )
    for run in found:
        kind = run.data.tags.get("lmoe_tune.kind")
        number, key = (
            run.data.tags.get(f"lmoe_tune.{trial_kind}"),
            run.data.tags.get("lmoe_tune.baseline"),
        )
        if kind not in ours:  # a confirmation's are none of the sweep's, and the other way round
            if kind == "sweep" and contact.grandparent is None:
                contact.grandparent = run.info.run_id
        elif kind == trial_kind and number is not None and int(number) not in contact.trials:
            contact.trials[int(number)] = _as_known(run)
            if (
                contact.trials[int(number)].num_epochs == 0
                and snapshot.objective in run.data.metrics
            ):
                history = client.get_metric_history(run.info.run_id, snapshot.objective)
                contact.trials[int(number)].sent_ms = {
                    metric.step: metric.timestamp for metric in history
                }
        elif kind == "baseline" and key is not None and key not in contact.baselines:
            contact.baselines[key] = _as_known(run)
        elif kind == snapshot.kind and contact.parent is None:
            contact.parent = _as_known(run)
        else:
            client.delete_run(run.info.run_id)
    return contact


def _as_known(run: MlflowRun) -> _Run:
    state = run.data.tags.get("lmoe_tune.state")
    whole = run.info.status != "RUNNING" and state in ("complete", "pruned", "failed")
    return _Run(
        run.info.run_id,
        run.info.status,
        dict(run.data.tags),
        set(run.data.params),
        dict(run.data.metrics),
        num_epochs=_ALL_EPOCHS if whole else 0,
    )


def _common_tags(
    kind: str, snapshot: SweepSnapshot, parent_run_id: str | None = None
) -> dict[str, str]:
    tags = {
        "lmoe_tune.kind": kind,
        "lmoe_tune.sweep": snapshot.sweep,
        "lmoe_tune.sweep_id": snapshot.sweep_id,
        "lmoe_tune.state": "running",
        "mlflow.source.name": "lmoe-tune",
    }
    if parent_run_id is not None:
        tags["mlflow.parentRunId"] = parent_run_id
    with suppress(KeyError, OSError):  # a container whose user has no name
        tags["mlflow.user"] = getpass.getuser()
    return tags


def _create(contact: _Contact, name: str, started_ms: int, tags: dict[str, str]) -> _Run:
    run = contact.client.create_run(
        contact.experiment_id, start_time=started_ms, tags=tags, run_name=name
    )
    return _Run(run.info.run_id, "RUNNING", dict(tags), changed=True)


def _deliver_trial(
    contact: _Contact, snapshot: SweepSnapshot, trial: TrialRecord, parent_run_id: str
) -> None:
    run = contact.trials.get(trial.number)
    if run is None:
        kind = _TRIAL_KIND[snapshot.kind]
        tags = _common_tags(kind, snapshot, parent_run_id) | {
            f"lmoe_tune.{kind}": str(trial.number)
        }
        name = _run_name(snapshot, trial)
        run = contact.trials[trial.number] = _create(contact, name, trial.started_ms, tags)
    tags = {"mlflow.parentRunId": parent_run_id, "lmoe_tune.state": trial.state}
    if trial.failure is not None:
        tags["lmoe_tune.failure"] = trial.failure
    if trial.retry_of is not None:
        tags["lmoe_tune.retry_of"] = str(trial.retry_of)
    searched = {name: trial.params[name] for name in snapshot.searched if name in trial.params}
    # Nobody works on it: KILLED, so that none is left RUNNING; its tag says that it is still to be finished.
    idle = trial.state == "running" and snapshot.state != "running"
    status = "KILLED" if idle else _STATUS[trial.state]
    _log(contact.client, run, tags, searched, _new_metrics(run, trial.epochs), len(trial.epochs))
    ended_ms = trial.ended_ms or _last_sign_ms(trial.epochs, trial.started_ms)
    _set_status(contact.client, run, status, ended_ms)
    contact.last_ms = max(contact.last_ms, ended_ms)
    contact.num_seen = max(contact.num_seen, trial.number + 1)
    if trial.state == "running":
        contact.open.add(trial.number)
    else:
        contact.open.discard(trial.number)


def _run_name(snapshot: SweepSnapshot, trial: TrialRecord) -> str:
    if snapshot.kind == "confirm" and "candidate" in trial.params:
        job = trial.params
        return f"confirm {job['candidate']}, split {job['split']}, seed {job['seed']}"
    return f"trial {trial.number}"


def _deliver_baseline(
    contact: _Contact, snapshot: SweepSnapshot, baseline: BaselineSnapshot, parent_run_id: str
) -> None:
    run = contact.baselines.get(baseline.key)
    if run is None:
        tags = _common_tags("baseline", snapshot, parent_run_id) | {
            "lmoe_tune.baseline": baseline.key
        }
        run = contact.baselines[baseline.key] = _create(
            contact, "baseline", baseline.started_ms, tags
        )
    idle = baseline.state == "running" and snapshot.state != "running"
    tags = {"mlflow.parentRunId": parent_run_id, "lmoe_tune.state": baseline.state}
    _log(
        contact.client,
        run,
        tags,
        baseline.params,
        _new_metrics(run, baseline.epochs),
        len(baseline.epochs),
    )
    ended_ms = baseline.ended_ms or _last_sign_ms(baseline.epochs, baseline.started_ms)
    _set_status(contact.client, run, "KILLED" if idle else _STATUS[baseline.state], ended_ms)


def _deliver_parent(contact: _Contact, snapshot: SweepSnapshot, parent: _Run) -> None:
    """The sweep's own run, last: that it has ended says that all of it has been delivered.

    The best parameters are tags, not params: a param is written once, but the best trial changes while a
    sweep runs, and again when it is extended.
    """
    from mlflow.entities import Metric

    digest = sha256(snapshot.spec_yaml.encode()).hexdigest()
    if parent.tags.get("lmoe_tune.spec_sha256") != digest:
        contact.client.log_text(parent.run_id, snapshot.spec_yaml, "spec.yaml")
    tags = {
        "lmoe_tune.state": snapshot.state,
        "lmoe_tune.objective": snapshot.objective,
        "lmoe_tune.direction": snapshot.direction,
        "lmoe_tune.spec_sha256": digest,
        **snapshot.tags,
    }
    metrics: list[Metric] = []
    if snapshot.best is not None:
        best = snapshot.trials[snapshot.best]
        searched = {name: best.params[name] for name in snapshot.searched if name in best.params}
        tags["lmoe_tune.best_trial"] = str(best.number)
        tags["lmoe_tune.best_params"] = json.dumps(searched, sort_keys=True)
        tags["lmoe_tune.best_run_id"] = contact.trials[best.number].run_id
        tags["lmoe_tune.feasible"] = str(snapshot.feasible).lower()
        value = best.epochs[-1].metrics.get(snapshot.objective) if best.epochs else None
        name = f"best_{snapshot.objective}"
        if value is not None and parent.metrics.get(name) != float(value):
            # MLflow shows the value of the highest step: the trials that had ended by then, which only grows.
            num_ended = contact.num_seen - len(contact.open)
            metrics.append(
                Metric(name, float(value), _last_sign_ms(best.epochs, best.started_ms), num_ended)
            )
            parent.metrics[name] = float(value)
    _log(contact.client, parent, tags, {}, metrics, 0)
    _set_status(
        contact.client,
        parent,
        _PARENT_STATUS[snapshot.state],
        max(snapshot.started_ms, contact.last_ms),
    )


def _end_strays(contact: _Contact, snapshot: SweepSnapshot) -> None:
    """No run is left RUNNING, not even one that this snapshot does not know."""
    known = len(snapshot.trials)
    key = snapshot.baseline.key if snapshot.baseline else None
    strays = [run for number, run in contact.trials.items() if number >= known]
    strays += [run for other, run in contact.baselines.items() if other != key]
    for run in strays:
        if run.status == "RUNNING":
            _set_status(contact.client, run, "KILLED", max(snapshot.started_ms, contact.last_ms))


def _new_metrics(run: _Run, epochs: Sequence[EpochRecord]) -> list[Metric]:
    from mlflow.entities import Metric

    return [
        Metric(name, float(value), run.sent_ms.get(record.epoch, record.time_ms), record.epoch)
        for record in epochs[run.num_epochs :]
        for name, value in record.metrics.items()
    ]


def _log(
    client: MlflowClient,
    run: _Run,
    tags: Mapping[str, str],
    params: Mapping[str, object],
    metrics: list[Metric],
    num_epochs: int,
) -> None:
    """Send what is new in one call; more than one only beyond MLflow's limits. Tags go last."""
    from mlflow.entities import Param, RunTag

    cut_tags = {name: value[:_MAX_TAG_CHARS] for name, value in tags.items()}
    new_tags = {name: value for name, value in cut_tags.items() if run.tags.get(name) != value}
    new_params = [
        Param(name, str(value)[:_MAX_PARAM_CHARS])
        for name, value in params.items()
        if name not in run.params
    ]
    while len(new_params) > _MAX_PARAMS:
        client.log_batch(run.run_id, params=new_params[:_MAX_PARAMS], synchronous=True)
        del new_params[:_MAX_PARAMS]
    room = _MAX_METRICS - len(new_params) - len(new_tags)
    while len(metrics) > room:
        client.log_batch(run.run_id, metrics=metrics[:room], synchronous=True)
        metrics = metrics[room:]
    if metrics or new_params or new_tags:
        tag_list = [RunTag(name, value) for name, value in new_tags.items()]
        client.log_batch(
            run.run_id, metrics=metrics, params=new_params, tags=tag_list, synchronous=True
        )
        run.changed = True
    run.tags.update(new_tags)
    run.params.update(params)
    run.num_epochs = max(run.num_epochs, num_epochs)


def _set_status(client: MlflowClient, run: _Run, status: str, ended_ms: int) -> None:
    if run.status == status:
        return
    if status == "RUNNING":
        client.update_run(run.run_id, status=status)
    else:
        client.set_terminated(run.run_id, status=status, end_time=ended_ms)
    run.status = status
    run.changed = True


def _last_sign_ms(epochs: Sequence[EpochRecord], started_ms: int) -> int:
    return epochs[-1].time_ms if epochs else started_ms
