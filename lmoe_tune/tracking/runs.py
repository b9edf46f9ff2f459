"""The runs of one experiment: what MLflow is known to hold of each, and how what is new is sent in
few calls.

A call that MLflow refuses for its content is split up, so that a name or value it rejects costs
only itself; the rest arrives, and the user is told once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from lmoe_tune.errors import TrackingRefusedError
from lmoe_tune.garbage import uncollected
from lmoe_tune.records import EpochRecord
from lmoe_tune.snapshot import DatasetRecord
from lmoe_tune.tracking.judge import translated

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.entities import Run as MlflowRun
    from mlflow.store.entities import PagedList

    Entity = Metric | Param | RunTag

Found = TypeVar("Found")

# MLflow's limits, per call and per value.
_MAX_METRICS, _MAX_PARAMS, _MAX_PARAM_CHARS, _MAX_TAG_CHARS = 1000, 100, 6000, 5000
_MAX_DIGEST_CHARS, _MAX_NAME_CHARS = 36, 500
_ALL_EPOCHS = 1 << 31
_WHOLE = ("complete", "pruned", "failed")
_KINDS = {"Metric": "metric", "Param": "param", "RunTag": "tag"}
"""Of MLflow's classes; `log_batch` takes a list of each, called after it."""


@dataclass
class Run:
    """What MLflow is known to hold of one run."""

    run_id: str
    status: str
    tags: dict[str, str] = field(default_factory=dict)
    params: set[str] = field(default_factory=set)
    metrics: dict[str, float] = field(default_factory=dict)
    num_epochs: int = 0
    sent_ms: dict[int, int] = field(default_factory=dict)
    """Epochs that MLflow has, and their times: sent again with another time, one would be there
    twice.
    """
    has_datasets: bool = False

    @classmethod
    def of(cls, run: MlflowRun) -> Run:
        """A run as it was found."""
        whole = run.info.status != "RUNNING" and run.data.tags.get("lmoe_tune.state") in _WHOLE
        datasets = run.inputs.dataset_inputs if run.inputs else []
        return cls(
            run.info.run_id,
            run.info.status,
            dict(run.data.tags),
            set(run.data.params),
            dict(run.data.metrics),
            num_epochs=_ALL_EPOCHS if whole else 0,
            has_datasets=bool(datasets),
        )

    def look_for(self, metrics: Iterable[str]) -> None:
        """Have all epochs sent again if it was found whole, but lacks one of these metrics: some
        proxies answer without passing a request on.
        """
        if self.num_epochs == _ALL_EPOCHS and not set(metrics) <= set(self.metrics):
            self.num_epochs = 0

    def forget_details(self) -> None:
        """Keep its id alone: it will not change any more, and there may be thousands."""
        self.tags, self.params, self.metrics, self.sent_ms = {}, set(), {}, {}


@dataclass
class Runs:
    """Sends to one experiment; several threads may, each to runs of its own.

    Attributes:
        sent: ids of the runs to which something was sent; those that were made have their start
            with it.
        refused: names of metrics, params and tags that MLflow does not accept; they are not sent
            again.
        say: gets a sentence about each of them.
    """

    client: MlflowClient
    uri: str
    experiment_id: str
    refused: set[str]
    say: Callable[[str], None]
    sent: dict[str, int | None] = field(default_factory=dict)

    def create(self, name: str, started_ms: int, tags: Mapping[str, str]) -> Run:
        """Open a run."""
        cut = _cut(tags)
        with translated(self.uri):
            made = self.client.create_run(
                self.experiment_id, start_time=started_ms, tags=cut, run_name=name
            )
        self.sent[made.info.run_id] = started_ms
        return Run(made.info.run_id, "RUNNING", cut)

    def log(
        self,
        run: Run,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        metrics: Iterable[Metric] = (),
        num_epochs: int = 0,
    ) -> None:
        """Send what is new in one call; more than one only beyond MLflow's limits. Tags go last."""
        from mlflow.entities import Param, RunTag

        changed = {name: value for name, value in _cut(tags).items() if run.tags.get(name) != value}
        new_tags = [RunTag(name, value) for name, value in changed.items()]
        new_params = [
            Param(name, str(value)[:_MAX_PARAM_CHARS])
            for name, value in params.items()
            if name not in run.params
        ]
        new_metrics = list(metrics)

        while len(new_params) > _MAX_PARAMS:
            self._send(run, new_params[:_MAX_PARAMS])
            del new_params[:_MAX_PARAMS]
        room = _MAX_METRICS - len(new_params) - len(new_tags)
        while len(new_metrics) > room:
            self._send(run, new_metrics[:room])
            del new_metrics[:room]
        self._send(run, [*new_metrics, *new_params, *new_tags])
        run.tags.update(changed)
        run.params.update(params)
        run.num_epochs = max(run.num_epochs, num_epochs)

    def set_status(self, run: Run, status: str, ended_ms: int) -> None:
        """End a run, or set it running again."""
        if run.status == status:
            return

        with translated(self.uri):
            if status == "RUNNING":
                self.client.update_run(run.run_id, status=status)
            else:
                self.client.set_terminated(run.run_id, status=status, end_time=ended_ms)
        run.status = status
        self.sent.setdefault(run.run_id)

    def log_datasets(self, run: Run, datasets: Sequence[DatasetRecord]) -> None:
        """Record the data sets of a run. One that is there already stays as it is."""
        if run.has_datasets or not datasets:
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for one in datasets:
            name, digest = dataset_key(one)
            profile = f'{{"num_images": {one.num_images}}}'
            dataset = Dataset(name, digest, "local", one.source, profile=profile)
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", one.role)]))

        with translated(self.uri):
            self.client.log_inputs(run.run_id, datasets=inputs)
        run.has_datasets = True

    def _send(self, run: Run, entities: Sequence[Entity]) -> None:
        wanted = [one for one in entities if one.key not in self.refused]
        if not wanted:
            return

        self.sent.setdefault(run.run_id)
        try:
            self._log_batch(run, wanted)
        except TrackingRefusedError as refusal:
            if not refusal.of_content:
                raise
            self._send_apart(run, wanted, refusal)

    def _send_apart(
        self, run: Run, entities: Sequence[Entity], refusal: TrackingRefusedError
    ) -> None:
        """One name at a time: MLflow refuses the whole call for one of them."""
        by_name: dict[tuple[str, str], list[Entity]] = {}
        for one in entities:
            by_name.setdefault((_KINDS[type(one).__name__], one.key), []).append(one)

        taken_off: dict[str, str] = {}
        for (kind, name), some in by_name.items():
            try:
                self._log_batch(run, some)
            except TrackingRefusedError as error:
                if not error.of_content:
                    raise
                taken_off[name] = f"the {kind} '{name}' is not shown, the rest is. {error}"

        if len(taken_off) == len(by_name):
            raise refusal  # it is the run
        self.refused.update(taken_off)
        for sentence in taken_off.values():
            self.say(sentence)

    def _log_batch(self, run: Run, entities: Sequence[Entity]) -> None:
        batch: dict[str, list[Any]] = {f"{kind}s": [] for kind in _KINDS.values()}
        for one in entities:
            batch[f"{_KINDS[type(one).__name__]}s"].append(one)
        with translated(self.uri):
            self.client.log_batch(run.run_id, **batch, synchronous=True)


def every_page(search: Callable[[str | None], PagedList[Found]]) -> Iterator[Found]:
    """All that a search in MLflow finds; it gets the token of a page, None for the first."""
    token: str | None = None
    while True:
        with uncollected():
            page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def new_metrics(run: Run, epochs: Sequence[EpochRecord]) -> list[Metric]:
    """Of the epochs that MLflow does not have yet."""
    from mlflow.entities import Metric

    return [
        Metric(name, float(value), run.sent_ms.get(record.epoch, record.time_ms), record.epoch)
        for record in epochs[run.num_epochs :]
        for name, value in record.metrics.items()
    ]


def dataset_key(dataset: DatasetRecord) -> tuple[str, str]:
    """Name and digest, as MLflow takes them."""
    return dataset.name[:_MAX_NAME_CHARS], dataset.digest[:_MAX_DIGEST_CHARS]


def _cut(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:_MAX_TAG_CHARS] for name, value in tags.items()}
