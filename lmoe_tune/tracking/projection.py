"""The projection: makes MLflow show what a snapshot of the ledger says, with as few calls as it
can.

MLflow holds nothing that the ledger does not, so every step may be repeated: runs are found by
their tags, metrics carry the ledger's times (MLflow stores an identical one once), and the status
of a run is set last, so a run that has ended is known to be whole. What was delivered is remembered
in memory only; after any error it is forgotten and looked up again, as a request may have been
carried out although its answer was lost. What has not changed since the last time is not looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lmoe_tune.errors import TrackingAwayError, TrackingRefusedError
from lmoe_tune.records import TrialRecord
from lmoe_tune.snapshot import BaselineSnapshot, ModelSource, SweepSnapshot
from lmoe_tune.tracking import comparison, content, settings
from lmoe_tune.tracking.address import is_server, shown, sqlite_path
from lmoe_tune.tracking.judge import not_mlflow, translated
from lmoe_tune.tracking.logged_models import CheckpointGoneError, LoggedModels
from lmoe_tune.tracking.runs import Found, Run, Runs, every_page, new_metrics
from lmoe_tune.tracking.store import connect, follow_home

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric
    from mlflow.entities import Run as MlflowRun

EXPERIMENT_TAG = "mlflow.experimentKind"
_EXPERIMENT_TAGS = {
    EXPERIMENT_TAG: "custom_model_development"
}  # the UI opens on runs, not on traces
_AT_ONCE = 100  # runs that are looked up by their ids; of more, all runs of the sweep are
_REQUESTS_AT_A_TIME = 6
"""Of a server: it spends most of a request's time in its database. An SQLite file takes one writer.
"""


@dataclass(frozen=True)
class Place:
    """Where the runs of a sweep are.

    Attributes:
        experiment: the name that the spec gave the experiment.
        run_id: of a run in it, which tells it from another experiment of the same id: a store may
            have been replaced.
    """

    experiment: str
    experiment_id: str
    run_id: str


@dataclass(frozen=True)
class Delivered:
    """Where things are in MLflow; `run_ids` and `models` map a trial's number to an id.

    Attributes:
        called: the experiment's name, which users may change in MLflow.
        num_left: trials that have not been looked at, for lack of time.
        said: sentences for the user: what MLflow does not accept.
    """

    experiment_id: str
    called: str
    parent_run_id: str
    run_ids: dict[int, str]
    models: dict[int, str]
    num_left: int = 0
    said: tuple[str, ...] = ()


@dataclass
class _Contact:
    """What MLflow is known to hold of one sweep; lives until the next error."""

    runs: Runs
    models: LoggedModels
    experiment: Experiment
    experiment_tags: dict[str, str]
    parent: Run | None = None
    grandparent: Run | None = None
    """Of a confirmation: the sweep's run."""
    trials: dict[int, Run] = field(default_factory=dict)
    baselines: dict[str, Run] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    """Trials that have been delivered, but may still change."""
    without_datasets: list[Run] = field(default_factory=list)
    """Of trials that have ended: their data sets are sent when nothing else waits, as that costs a
    call for each.
    """
    num_seen: int = 0
    """Trials below this number have been delivered."""
    last_ms: int = 0
    """The latest time in the delivered trials."""


class Projection:
    """Delivers snapshots of one sweep to one tracking store; called from one thread."""

    def __init__(
        self, tracking_uri: str, artifact_root: Path | None = None, known: Place | None = None
    ) -> None:
        """Nothing is contacted yet.

        Args:
            tracking_uri: of a tracking server or a database; may hold credentials.
            artifact_root: folder for the files of runs and models where there is no server that
                keeps them; the default is `mlartifacts` beside an SQLite store. A server decides
                itself.
            known: where the sweep's runs are, as an earlier delivery said: its experiment is
                followed when it is renamed in MLflow.
        """
        self._uri = tracking_uri
        self._known = known
        path = sqlite_path(tracking_uri)
        if artifact_root is None and path is not None:
            artifact_root = path.parent / "mlartifacts"
        if is_server(tracking_uri) or artifact_root is None:
            self._artifact_root = None
        else:
            self._artifact_root = artifact_root.resolve()
        self._num_threads = _REQUESTS_AT_A_TIME
        if path is not None:
            self._num_threads = 1
        self._client: MlflowClient | None = None
        self._contact: _Contact | None = None
        self._refused: set[str] = set()
        self._suspects: set[int] = set()
        self._said: dict[str, None] = {}
        self._num_said = 0

    def project(
        self,
        snapshot: SweepSnapshot,
        models: Sequence[ModelSource] = (),
        *,
        limit_s: float | None = None,
    ) -> Delivered:
        """Make MLflow show `snapshot`. Repeating it changes nothing.

        Args:
            snapshot: the ledger as it is now.
            models: the best checkpoints; the sweep's logged models become exactly these. Without
                any, the models that there are stay.
            limit_s: begin with no further trial after so many seconds; `num_left` says how many are
                left.

        Raises:
            TrackingAwayError, TrackingRefusedError: what was delivered stays, and the next call
                continues.
            CheckpointGoneError: one of `models` is gone.
        """
        until = time.monotonic() + limit_s if limit_s is not None else None
        try:
            with settings.held(), translated(self._uri):
                delivered = self._patiently(snapshot, models, until)
                contact = self._reach(snapshot)
                if snapshot.state != "running" and contact.runs.sent and not delivered.num_left:
                    # MLflow repeats a POST whose answer was lost, so things may exist twice without
                    # an error here; and some proxies answer without passing a request on.
                    if not _look_again(contact, snapshot):
                        self._contact = None
                    delivered = self._deliver(self._reach(snapshot), snapshot, models, None)
        except BaseException:
            self._contact = None
            raise

        said = tuple(self._said)[self._num_said :]
        self._num_said += len(said)
        return replace(delivered, said=said)

    def _patiently(
        self, snapshot: SweepSnapshot, models: Sequence[ModelSource], until: float | None
    ) -> Delivered:
        """A run that was deleted in MLflow refuses too, so everything is looked up again before a
        refusal is believed.
        """
        try:
            return self._deliver(self._reach(snapshot), snapshot, models, until)
        except TrackingRefusedError as refusal:
            if not refusal.of_content:
                raise
            self._contact = None
            return self._deliver(self._reach(snapshot), snapshot, models, until)

    def _say(self, sentence: str) -> None:
        self._said[sentence] = None

    def _reach(self, snapshot: SweepSnapshot) -> _Contact:
        if self._contact is None:
            if self._client is None:
                if self._artifact_root is not None:
                    follow_home(self._uri, self._artifact_root, EXPERIMENT_TAG)
                self._client = connect(self._uri)
            experiment = self._find_experiment(self._client, snapshot.experiment)
            number = experiment.experiment_id
            runs = Runs(self._client, self._uri, number, self._refused, self._say)
            models = LoggedModels(runs, snapshot.sweep_id, self._artifact_root)
            self._contact = _Contact(runs, models, experiment, dict(experiment.tags))
            _find_runs(self._contact, snapshot)
        return self._contact

    def _find_experiment(self, client: MlflowClient, name: str) -> Experiment:
        """The experiment of a name in the spec; made if it is not there."""
        experiment = self._known_experiment(client, name) or self._named(client, name)
        if not experiment.experiment_id:
            raise not_mlflow(self._uri)
        if experiment.lifecycle_stage != "active":
            raise TrackingRefusedError(
                f"MLflow refuses: the experiment '{experiment.name}' at {shown(self._uri)} was deleted; restore it"
                f" with `mlflow experiments restore --experiment-id {experiment.experiment_id}`, or name another one"
                " in the spec (tracking.experiment)"
            )
        return experiment

    def _known_experiment(self, client: MlflowClient, name: str) -> Experiment | None:
        """The one that has the sweep's runs already, whatever it is called now."""
        known = self._known
        if known is None or known.experiment != name:
            return None

        experiment = _or_none(client.get_experiment, known.experiment_id)
        if experiment is None or experiment.name == name:
            return experiment

        run = _or_none(client.get_run, known.run_id)
        if run is None or run.info.experiment_id != known.experiment_id:
            return None
        return experiment

    def _named(self, client: MlflowClient, name: str) -> Experiment:
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(name)
        if found is not None:
            return found

        location = self._artifact_root.as_uri() if self._artifact_root else None
        try:
            made = client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another sweep was faster
            if found is None:
                raise
            return found
        return client.get_experiment(made)

    def _deliver(
        self,
        contact: _Contact,
        snapshot: SweepSnapshot,
        models: Sequence[ModelSource],
        until: float | None,
    ) -> Delivered:
        if contact.parent is None:
            above = contact.grandparent.run_id if contact.grandparent else None
            tags = content.of_every_run(snapshot.kind, snapshot, above)
            name = snapshot.sweep
            if snapshot.kind != "sweep":
                name = f"{snapshot.sweep} {snapshot.kind}"
            contact.parent = contact.runs.create(name, snapshot.started_ms, tags)
        parent = contact.parent
        if snapshot.baseline is not None:
            _deliver_baseline(contact, snapshot, snapshot.baseline, parent.run_id)

        num_left = self._deliver_trials(contact, snapshot, parent.run_id, until)
        run_ids = {number: run.run_id for number, run in contact.trials.items()}
        model_ids = contact.models.ids()
        if snapshot.kind == "sweep" and not num_left:
            model_ids = self._deliver_models(contact, snapshot, models, run_ids)
        if snapshot.state != "running" and not num_left:
            _end_strays(contact, snapshot)
        self._deliver_parent(contact, snapshot, parent, is_whole=not num_left)

        experiment = contact.experiment
        self._known = Place(snapshot.experiment, experiment.experiment_id, parent.run_id)
        return Delivered(
            experiment.experiment_id, experiment.name, parent.run_id, run_ids, model_ids, num_left
        )

    def _deliver_trials(
        self, contact: _Contact, snapshot: SweepSnapshot, parent_run_id: str, until: float | None
    ) -> int:
        """Those that run and those that are new, some at a time; returns how many are left."""
        waiting = [*sorted(contact.open), *range(contact.num_seen, len(snapshot.trials))]
        step = 4 * self._num_threads
        deliver = partial(self._deliver_trial, contact, snapshot, parent_run_id)
        log_datasets = partial(contact.runs.log_datasets, datasets=snapshot.datasets)

        with ThreadPoolExecutor(self._num_threads, "mlflow") as pool:
            for start in range(0, len(waiting), step):
                if start and until is not None and time.monotonic() > until:
                    return len(waiting) - start
                numbers = waiting[start : start + step]
                trials = [snapshot.trials[number] for number in numbers]
                list(pool.map(deliver, trials))  # the first error is raised when all have ended
                contact.num_seen = max(contact.num_seen, numbers[-1] + 1)

            while contact.without_datasets:
                if until is not None and time.monotonic() > until:
                    break
                some = contact.without_datasets[:step]
                list(pool.map(log_datasets, some))
                del contact.without_datasets[: len(some)]
        return len(contact.without_datasets) if snapshot.state != "running" else 0

    def _deliver_trial(
        self, contact: _Contact, snapshot: SweepSnapshot, parent_run_id: str, trial: TrialRecord
    ) -> None:
        try:
            _deliver_trial(contact, snapshot, trial, parent_run_id)
        except TrackingRefusedError as refusal:
            if not refusal.of_content:
                raise
            if trial.number not in self._suspects:
                self._suspects.add(trial.number)
                raise
            self._say(f"trial {trial.number} is not shown, the others are. {refusal}")

    def _deliver_models(
        self,
        contact: _Contact,
        snapshot: SweepSnapshot,
        models: Sequence[ModelSource],
        run_ids: dict[int, str],
    ) -> dict[int, str]:
        """A store of files that refuses costs the models alone."""
        try:
            with translated(self._uri):
                return contact.models.deliver(snapshot, list(models), run_ids)
        except (TrackingAwayError, CheckpointGoneError):
            raise
        except TrackingRefusedError as refusal:
            self._say(f"models are not kept in MLflow. {refusal}")
            contact.models.find(contact.models.of_other_runs(()))  # and delete what is unfinished
            return contact.models.ids()

    def _deliver_parent(
        self, contact: _Contact, snapshot: SweepSnapshot, parent: Run, *, is_whole: bool
    ) -> None:
        """The sweep's own run, last: that it has ended says that all of it has been delivered."""
        self._deliver_spec(contact, snapshot, parent)
        best = contact.trials.get(-1 if snapshot.best is None else snapshot.best)
        metrics = _best_metrics(contact, snapshot, parent) if best is not None else []
        tags = content.of_sweep(snapshot, best.run_id if best is not None else None)
        contact.runs.log(parent, tags, {}, metrics)
        if is_whole:
            contact.runs.log_datasets(parent, snapshot.datasets)
            status = content.SWEEP_STATUS[snapshot.state]
            contact.runs.set_status(parent, status, max(snapshot.started_ms, contact.last_ms))
            if contact.grandparent is not None:  # a verdict is to be read at the sweep it is about
                contact.runs.log(contact.grandparent, snapshot.tags, {})
        comparison.deliver(contact.runs, contact.experiment_tags, snapshot, parent.run_id)

    def _deliver_spec(self, contact: _Contact, snapshot: SweepSnapshot, parent: Run) -> None:
        digest = content.spec_digest(snapshot)
        if parent.tags.get("lmoe_tune.spec_sha256") == digest or f"spec {digest}" in self._refused:
            return

        contact.runs.sent.setdefault(parent.run_id)
        try:
            with translated(self._uri):
                contact.runs.client.log_text(parent.run_id, snapshot.spec_yaml, "spec.yaml")
        except TrackingRefusedError as refusal:
            self._refused.add(f"spec {digest}")
            self._say(f"the spec is not kept in MLflow. {refusal}")


def _or_none(get: Callable[[str], Found], key: str) -> Found | None:
    """What MLflow has under this id; None if it has nothing."""
    from mlflow.exceptions import MlflowException

    try:
        return get(key)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _look_again(contact: _Contact, snapshot: SweepSnapshot) -> bool:
    """Look up the runs to which something was sent, and what was made beside them; False where all
    runs of the sweep have to be.
    """
    sent = contact.runs.sent
    own = (contact.parent, contact.grandparent, *contact.baselines.values())
    ids = {run.run_id for run in own if run is not None}
    ids |= {run_id for run_id, made_ms in sent.items() if made_ms is None}
    if len(ids) > _AT_ONCE:
        return False

    contact.parent, contact.grandparent, contact.baselines = None, None, {}
    again = [number for number, run in contact.trials.items() if run.run_id in sent]
    contact.open.update(number for number in again if number < len(snapshot.trials))
    for number in again:
        del contact.trials[number]

    quoted = ", ".join(f"'{run_id}'" for run_id in sorted(ids))
    filters = [f" AND attributes.run_id IN ({quoted})"]
    begun_ms = [made_ms for made_ms in sent.values() if made_ms is not None]
    if begun_ms:
        filters.append(f" AND attributes.start_time >= {min(begun_ms)}")
    _find_runs(contact, snapshot, filters)
    sent.clear()
    return contact.parent is not None


def _find_runs(contact: _Contact, snapshot: SweepSnapshot, filters: Sequence[str] = ("",)) -> None:
    """Everything of this sweep that MLflow holds, as far as a filter lets it through; runs that exist
    twice are deleted but for the oldest.
    """
    known = {run.run_id for run in contact.trials.values()}
    met = {run.info.run_id: run for one in filters for run in _searched(contact, snapshot, one)}
    found = [run for run_id, run in met.items() if run_id not in known]

    # Doubles have the same start, the ledger's; of those the one that has been filled is the older.
    found.sort(key=lambda run: (run.info.start_time, -len(run.data.metrics), run.info.run_id))
    if found and snapshot.kind == "sweep":  # a sweep without runs has no models either
        linked = contact.models.of_other_runs(contact.runs.sent)
        for run in found:
            if run.outputs:
                linked |= {output.model_id for output in run.outputs.model_outputs}
        contact.models.find(linked)
    for run in found:
        _take(contact, snapshot, run)


def _searched(contact: _Contact, snapshot: SweepSnapshot, narrower: str) -> Iterator[MlflowRun]:
    """The runs of a sweep, as MLflow has them now."""
    assert "'" not in snapshot.sweep_id, "a sweep id is a UUID"
    wanted = f"tags.`lmoe_tune.sweep_id` = '{snapshot.sweep_id}'{narrower}"
    of_experiment, client = [contact.runs.experiment_id], contact.runs.client
    return every_page(
        lambda token: client.search_runs(of_experiment, wanted, max_results=1000, page_token=token)
    )


def _take(contact: _Contact, snapshot: SweepSnapshot, run: MlflowRun) -> None:
    """Learn of one run that MLflow holds of this sweep; one that is there twice is deleted."""
    tags = run.data.tags
    kind, trial_kind = tags.get("lmoe_tune.kind"), content.TRIAL_KIND[snapshot.kind]
    ours = (
        (trial_kind, "baseline", "sweep") if snapshot.kind == "sweep" else (trial_kind, "confirm")
    )
    if kind not in ours:  # a confirmation's are none of the sweep's, and the other way round
        if kind == "sweep" and contact.grandparent is None:
            contact.grandparent = Run.of(run)
        return

    number, key = tags.get(f"lmoe_tune.{trial_kind}"), tags.get("lmoe_tune.baseline")
    if kind == trial_kind and number is not None and int(number) not in contact.trials:
        known = contact.trials[int(number)] = Run.of(run)
        if known.num_epochs == 0 and snapshot.objective in run.data.metrics:
            history = contact.runs.client.get_metric_history(run.info.run_id, snapshot.objective)
            known.sent_ms = {metric.step: metric.timestamp for metric in history}
    elif kind == "baseline" and key is not None and key not in contact.baselines:
        contact.baselines[key] = Run.of(run)
    elif kind == snapshot.kind and contact.parent is None:
        contact.parent = Run.of(run)
    else:
        contact.runs.client.delete_run(run.info.run_id)


def _deliver_trial(
    contact: _Contact, snapshot: SweepSnapshot, trial: TrialRecord, parent_run_id: str
) -> None:
    runs, run = contact.runs, contact.trials.get(trial.number)
    if run is None:
        # With all of its tags: each that is set later costs a database more than all of them now.
        tags = content.of_new_trial(snapshot, trial, parent_run_id)
        tags |= content.of_trial(snapshot, trial, parent_run_id)
        name = content.trial_name(snapshot, trial)
        run = contact.trials[trial.number] = runs.create(name, trial.started_ms, tags)

    run.look_for({snapshot.objective} & trial.metrics.keys() - runs.refused)
    ended_ms = trial.ended_ms or content.last_sign_ms(trial.epochs, trial.started_ms)
    metrics = [*new_metrics(run, trial.epochs), *_summary(run, snapshot, trial)]
    params = content.trial_params(snapshot, trial)
    tags = content.of_trial(snapshot, trial, parent_run_id)
    runs.log(run, tags, params, metrics, len(trial.epochs))
    runs.set_status(run, content.trial_status(snapshot, trial), ended_ms)

    contact.last_ms = max(contact.last_ms, ended_ms)
    if trial.state == "running":
        contact.open.add(trial.number)
    else:
        contact.open.discard(trial.number)
        run.forget_details()
        if snapshot.datasets and not run.has_datasets:
            contact.without_datasets.append(run)


def _summary(run: Run, snapshot: SweepSnapshot, trial: TrialRecord) -> list[Metric]:
    """The numbers at its end, at the time of its last epoch: sent again, they are there once."""
    from mlflow.entities import Metric

    found = content.summary_metrics(snapshot, trial)
    if not found:
        return []

    last = trial.epochs[-1]
    time_ms = run.sent_ms.get(last.epoch, last.time_ms)
    return [
        Metric(name, value, time_ms, last.epoch)
        for name, value in found.items()
        if run.metrics.get(name) != value
    ]


def _deliver_baseline(
    contact: _Contact, snapshot: SweepSnapshot, baseline: BaselineSnapshot, parent_run_id: str
) -> None:
    runs, run = contact.runs, contact.baselines.get(baseline.key)
    if run is None:
        tags = content.of_every_run("baseline", snapshot, parent_run_id)
        tags["lmoe_tune.baseline"] = baseline.key
        run = contact.baselines[baseline.key] = runs.create("baseline", baseline.started_ms, tags)

    epochs = baseline.epochs
    metrics = new_metrics(run, epochs)
    tags = content.of_baseline(baseline, parent_run_id)
    runs.log(run, tags, baseline.params, metrics, len(epochs))
    idle = baseline.state == "running" and snapshot.state != "running"
    ended_ms = baseline.ended_ms or content.last_sign_ms(epochs, baseline.started_ms)
    runs.set_status(run, "KILLED" if idle else content.STATUS[baseline.state], ended_ms)


def _best_metrics(contact: _Contact, snapshot: SweepSnapshot, parent: Run) -> list[Metric]:
    """The best value, where it is news.

    MLflow shows the value of the highest step: the trials that had ended by then, which only grows.
    """
    from mlflow.entities import Metric

    assert snapshot.best is not None
    best = snapshot.trials[snapshot.best]
    value = best.metrics.get(snapshot.objective)
    name = f"best_{snapshot.objective}"
    if value is None or parent.metrics.get(name) == float(value):
        return []

    parent.metrics[name] = float(value)
    num_ended = contact.num_seen - len(contact.open)
    time_ms = content.last_sign_ms(best.epochs, best.started_ms)
    return [Metric(name, float(value), time_ms, num_ended)]


def _end_strays(contact: _Contact, snapshot: SweepSnapshot) -> None:
    """No run is left RUNNING, not even one that this snapshot does not know."""
    key = snapshot.baseline.key if snapshot.baseline else None
    strays = [run for number, run in contact.trials.items() if number >= len(snapshot.trials)]
    strays += [run for other, run in contact.baselines.items() if other != key]

    ended_ms = max(snapshot.started_ms, contact.last_ms)
    for run in strays:
        if run.status == "RUNNING":
            contact.runs.set_status(run, "KILLED", ended_ms)
