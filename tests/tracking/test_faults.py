"""A tracking server that fails in every way that servers do: nothing is lost, nothing is doubled."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from lmoe_tune.errors import TrackingError, TrackingRefusedError
from lmoe_tune.records import TrialRecord
from lmoe_tune.snapshot import BaselineSnapshot, ModelSource, SweepSnapshot
from lmoe_tune.tracking import Delivered, Projection
from lmoe_tune.tracking import projection as projection_module
from tests.tracking.faulty_server import (
    EMPTY,
    HANGS,
    KINDS,
    LOST,
    NONE,
    STRANGE,
    Fault,
    FaultyProxy,
    TrackingServer,
)
from tests.tracking.found import probe

pytestmark = pytest.mark.timeout(180)

MakeTrial = Callable[..., TrialRecord]
MakeSweep = Callable[..., SweepSnapshot]
MAX_ATTEMPTS = 30


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")


@pytest.fixture
def server(tmp_path: Path, empty_store: Path) -> Iterator[TrackingServer]:
    made = TrackingServer(tmp_path / "server", empty_store)
    yield made
    made.close()


@pytest.fixture
def proxy(server: TrackingServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(server.port).closing() as made:
        yield made


@pytest.fixture
def source(tmp_path: Path) -> ModelSource:
    path = tmp_path / "trial-0.pt"
    path.write_bytes(b"weights")
    return ModelSource(0, path)


@pytest.fixture
def steps(trial: MakeTrial, sweep: MakeSweep, baseline: BaselineSnapshot) -> list[SweepSnapshot]:
    """How a sweep of three trials looks as it goes on."""
    return [
        sweep(trial(0, "running", 1), baseline=baseline),
        sweep(trial(0), trial(1, "running", 1), best=0, baseline=baseline),
        sweep(
            trial(0),
            trial(1, "pruned"),
            trial(2, "failed"),
            best=0,
            baseline=baseline,
            state="complete",
        ),
    ]


def deliver(
    projection: Projection, steps: list[SweepSnapshot], source: ModelSource
) -> tuple[Delivered, int]:
    """Deliver each step as the projector does: until the server has taken it. Returns the number of failures."""
    failures = 0
    for step in steps:
        while True:
            try:
                delivered = projection.project(step, [source] if step is steps[-1] else ())
                break
            except TrackingError:
                failures += 1
                assert failures < MAX_ATTEMPTS
    return delivered, failures


def held(uri: str, sweep_id: str) -> dict[str, Any]:
    """All that a store holds of a sweep but for the ids that it gave; fails where something is there twice."""
    client = MlflowClient(uri)
    found: dict[str, Any] = {}
    numbers: dict[str, str] = {}
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    runs = list(
        client.search_runs([experiment.experiment_id], f"tags.`lmoe_tune.sweep_id` = '{sweep_id}'")
    )
    models = {
        model.model_id: model for model in client.search_logged_models([experiment.experiment_id])
    }
    for run in runs:
        numbers[run.info.run_id] = run.info.run_name
    for run in runs:
        assert run.info.run_name not in found, f"{run.info.run_name} is there twice"
        tags = {
            name: numbers.get(value, value)
            for name, value in run.data.tags.items()
            if name.startswith("lmoe_tune.") or name == "mlflow.parentRunId"
        }
        history: dict[str, Any] = {
            name: [
                (point.step, point.value, point.timestamp)
                for point in client.get_metric_history(run.info.run_id, name)
            ]
            for name in run.data.metrics
        }
        if (
            run.data.tags["lmoe_tune.kind"] == "sweep"
        ):  # how the best one changed is a matter of when it was told
            history = dict(run.data.metrics)
        outputs = (
            {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
        )
        info = (run.info.status, run.info.start_time, run.info.end_time)
        found[run.info.run_name] = (
            info,
            tags,
            run.data.params,
            history,
            len(outputs & models.keys()),
        )
    found["models"] = sorted(
        (
            str(model.status),
            model.tags["lmoe_tune.sha256"],
            numbers.get(model.source_run_id),
            sorted(model.params.items()),
        )
        for model in models.values()
    )
    return found


@pytest.fixture
def expected(uri: str, steps: list[SweepSnapshot], source: ModelSource) -> dict[str, Any]:
    """What a store that never failed holds."""
    Projection(uri).project(steps[-1], [source])
    return held(uri, steps[-1].sweep_id)


def test_the_proxy_itself_changes_nothing(
    server: TrackingServer,
    proxy: FaultyProxy,
    steps: list[SweepSnapshot],
    source: ModelSource,
    expected: dict[str, Any],
) -> None:
    _, failures = deliver(Projection(proxy.uri), steps, source)
    assert failures == 0
    assert held(server.uri, steps[-1].sweep_id) == expected
    assert [path.name for path in server.artifacts.rglob("checkpoint.pt")] == ["checkpoint.pt"]
    assert [path.name for path in server.artifacts.rglob("spec.yaml")] == ["spec.yaml"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_fails_again_and_again_gets_all_of_it_in_the_end(
    kind: str,
    server: TrackingServer,
    proxy: FaultyProxy,
    steps: list[SweepSnapshot],
    source: ModelSource,
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    chance = random.Random(0)
    fails = {number for number in range(60) if chance.random() < 0.25}
    proxy.script = lambda request: KINDS[kind] if request.number in fails else NONE
    deliver(Projection(proxy.uri), steps[-1:], source)
    assert len(proxy.requests) > 20
    proxy.script = lambda request: NONE
    Projection(proxy.uri).project(steps[-1], [source])  # `sync`
    assert held(server.uri, steps[-1].sweep_id) == expected


@pytest.mark.parametrize(
    "path", ["runs/log-batch", "runs/update", "runs/create", "runs/outputs", "logged-models"]
)
def test_a_request_that_was_answered_but_not_carried_out_is_found_at_the_end(
    path: str,
    server: TrackingServer,
    proxy: FaultyProxy,
    steps: list[SweepSnapshot],
    source: ModelSource,
    expected: dict[str, Any],
) -> None:
    due = iter([True])
    proxy.script = lambda request: EMPTY if path in request.path and next(due, False) else NONE
    deliver(Projection(proxy.uri), steps, source)
    assert held(server.uri, steps[-1].sweep_id) == expected


def test_every_request_carried_out_twice_doubles_nothing(
    server: TrackingServer,
    proxy: FaultyProxy,
    steps: list[SweepSnapshot],
    source: ModelSource,
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(projection_module, "_REQUESTS_AT_A_TIME", 1)
    proxy.script = lambda request: (
        LOST if request.number % 2 == 0 else NONE
    )  # MLflow asks once more
    deliver(Projection(proxy.uri), steps, source)
    created = [request.path for request in proxy.requests if request.path.endswith("runs/create")]
    assert len(created) == 2 * 5
    proxy.script = lambda request: NONE
    Projection(proxy.uri).project(steps[-1], [source])
    assert held(server.uri, steps[-1].sweep_id) == expected


def test_a_server_that_is_gone_and_comes_back_without_its_memory_gets_all_of_it_again(
    server: TrackingServer,
    proxy: FaultyProxy,
    steps: list[SweepSnapshot],
    source: ModelSource,
    expected: dict[str, Any],
    empty_store: Path,
    tmp_path: Path,
) -> None:
    projection = Projection(proxy.uri)
    deliver(projection, steps[:2], source)
    proxy.down()
    with pytest.raises(TrackingError, match="refused"):
        projection.project(steps[2], [source])
    server.close()
    other = TrackingServer(tmp_path / "other", empty_store)
    with FaultyProxy(other.port).closing() as again, closing(other):
        deliver(Projection(again.uri), steps[2:], source)
        assert held(other.uri, steps[-1].sweep_id) == expected


def test_a_server_that_has_half_of_a_sweep_gets_the_other_half(
    server: TrackingServer,
    proxy: FaultyProxy,
    steps: list[SweepSnapshot],
    source: ModelSource,
    expected: dict[str, Any],
) -> None:
    deliver(Projection(proxy.uri), steps[:2], source)
    before = len(proxy.requests)
    deliver(Projection(proxy.uri), steps[2:], source)
    created = [
        request.path for request in proxy.requests[before:] if request.path.endswith("runs/create")
    ]
    assert len(created) == 1, "the third trial's"
    assert held(server.uri, steps[-1].sweep_id) == expected


def test_one_that_never_answers_is_left_after_the_timeout_and_named_without_secrets(
    proxy: FaultyProxy, steps: list[SweepSnapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    proxy.script = lambda request: HANGS
    with pytest.raises(TrackingError, match="cannot be reached.*timed out") as caught:
        Projection(proxy.uri.replace("//", "//ann:hunter2@")).project(steps[0])
    assert "hunter2" not in str(caught.value)


def test_what_a_page_of_error_says_is_cut_short_and_holds_no_secret(
    proxy: FaultyProxy, steps: list[SweepSnapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "planted-token")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-key")
    page = b"<html> planted-token, planted-key, http://ann:hunter2@proxy:3128 " + b"x" * 100_000
    proxy.script = lambda request: Fault.own(404, page)
    with pytest.raises(TrackingError) as caught:
        Projection(proxy.uri).project(steps[0])
    assert "planted" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_ended_trials_are_looked_at_once(
    proxy: FaultyProxy, trial: MakeTrial, sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    deliver_trial = projection_module._deliver_trial

    def spy(contact: Any, snapshot: Any, trial: TrialRecord, parent_run_id: str) -> None:
        seen.append(trial.number)
        deliver_trial(contact, snapshot, trial, parent_run_id)

    monkeypatch.setattr(projection_module, "_deliver_trial", spy)
    projection = Projection(proxy.uri)
    for _ in range(3):
        projection.project(sweep(trial(0), trial(1, "running"), best=0))
    assert seen == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (403, b'{"Message": "Not authorized to access it"}', "403 Forbidden, Not authorized to"),
        (401, b'{"detail": "Not authenticated"}', "MLFLOW_TRACKING_USERNAME"),
        (404, b'{"error_code": "X", "message": "no"}', "404 Not Found, no"),
        (403, b'{"error_code": "INTERNAL_ERROR", "detail": [1]}', "administrator"),
    ],
)
def test_the_status_of_an_answer_counts_whatever_its_body_says(
    proxy: FaultyProxy, steps: list[SweepSnapshot], status: int, body: bytes, words: str
) -> None:
    fault = Fault.own(status, body)
    proxy.script = lambda request: fault if request.method == "POST" else NONE
    with pytest.raises(TrackingRefusedError, match=words):
        Projection(proxy.uri).project(steps[0])


@pytest.mark.parametrize("body", [b"{}", b'{"status": "ok"}', STRANGE.body])
def test_a_service_that_answers_everything_alike_is_refused_by_all_as_none_of_mlflows(
    proxy: FaultyProxy, steps: list[SweepSnapshot], body: bytes
) -> None:
    proxy.script = lambda request: Fault.own(200, body)
    for experiment in (None, "digits"):
        assert "another service" in probe(proxy.uri, experiment).why
    with pytest.raises(TrackingRefusedError, match="another service"):
        Projection(proxy.uri).project(steps[0])


def test_a_server_without_any_experiment_is_mlflow(
    server: TrackingServer, proxy: FaultyProxy
) -> None:
    MlflowClient(server.uri).delete_experiment("0")
    for experiment in (None, "digits"):
        assert probe(proxy.uri, experiment).state == "ready"
