from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel

from lmoe_tune.errors import TrackingError
from lmoe_tune.records import EpochRecord, TrialRecord
from lmoe_tune.snapshot import DatasetRecord, ModelSource, SweepSnapshot
from lmoe_tune.tracking import Projection

pytestmark = pytest.mark.timeout(120)

MakeTrial = Callable[..., TrialRecord]
MakeSweep = Callable[..., SweepSnapshot]


@pytest.fixture
def snapshot(trial: MakeTrial, sweep: MakeSweep) -> SweepSnapshot:
    return sweep(trial(0), trial(1), best=1, state="complete")


@pytest.fixture
def source(tmp_path: Path) -> Callable[[int], ModelSource]:
    def make(number: int) -> ModelSource:
        path = tmp_path / f"trial-{number}.pt"
        path.write_bytes(b"weights of trial %d" % number)
        return ModelSource(number, path)

    return make


def models(uri: str) -> list[LoggedModel]:
    client = MlflowClient(uri)
    return list(
        client.search_logged_models([one.experiment_id for one in client.search_experiments()])
    )


def files(tmp_path: Path) -> list[str]:
    folder = tmp_path / "mlartifacts" / "models"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_best_checkpoint_becomes_a_logged_model_of_its_run(
    uri: str, snapshot: SweepSnapshot, source: Callable[[int], ModelSource], tmp_path: Path
) -> None:
    delivered = Projection(uri).project(snapshot, [source(1)])
    (model,) = models(uri)
    assert delivered.models == {1: model.model_id}
    assert (model.name, str(model.status)) == ("detector", "READY")
    assert model.source_run_id == delivered.run_ids[1]
    assert model.params == {"mixing_alpha": "1.5", "consistency_weight": "1.0"}
    assert model.tags["lmoe_tune.trial"] == "1"
    assert model.tags["lmoe_tune.sweep_id"] == snapshot.sweep_id
    last = snapshot.trials[1].epochs[-1]
    assert {metric.key: (metric.value, metric.step) for metric in model.metrics} == {
        name: (value, last.epoch) for name, value in last.metrics.items()
    }
    run = MlflowClient(uri).get_run(delivered.run_ids[1])
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    folder = tmp_path / "mlartifacts" / "models" / model.model_id / "artifacts"
    assert (folder / "checkpoint.pt").read_bytes() == b"weights of trial 1"
    assert not (folder / "checkpoint.pt").is_symlink()
    assert not list(folder.rglob("*.pkl"))
    assert "torch==" in (folder / "requirements.txt").read_text(encoding="utf-8")
    assert str(tmp_path) not in (folder / "MLmodel").read_text(encoding="utf-8").replace(
        model.artifact_location, ""
    )


def test_a_model_is_logged_once(
    uri: str, snapshot: SweepSnapshot, source: Callable[[int], ModelSource]
) -> None:
    projection = Projection(uri)
    first = projection.project(snapshot, [source(1)])
    assert projection.project(snapshot, [source(1)]) == first
    assert Projection(uri).project(snapshot, [source(1)]) == first
    assert Projection(uri).project(snapshot) == first  # without any: those that there are stay
    assert len(models(uri)) == 1


def test_models_that_are_no_longer_among_the_best_go_with_their_files(
    uri: str, snapshot: SweepSnapshot, source: Callable[[int], ModelSource], tmp_path: Path
) -> None:
    projection = Projection(uri)
    projection.project(snapshot, [source(0)])
    delivered = projection.project(snapshot, [source(1)])
    assert list(delivered.models) == [1]
    assert [model.model_id for model in models(uri)] == files(tmp_path) == [delivered.models[1]]


@pytest.mark.parametrize("step", ["log_model_artifacts", "log_outputs", "finalize_logged_model"])
def test_a_model_that_a_kill_left_pending_is_replaced(
    step: str,
    uri: str,
    snapshot: SweepSnapshot,
    source: Callable[[int], ModelSource],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, killed)
        with pytest.raises(KeyboardInterrupt):
            Projection(uri).project(snapshot, [source(1)])
    assert [str(model.status) for model in models(uri)] == ["PENDING"]
    delivered = Projection(uri).project(snapshot)
    assert delivered.models == {}
    assert models(uri) == []
    assert files(tmp_path) == []
    Projection(uri).project(snapshot, [source(1)])
    assert [str(model.status) for model in models(uri)] == ["READY"]


def test_a_checkpoint_that_is_gone_is_named(
    uri: str, snapshot: SweepSnapshot, tmp_path: Path
) -> None:
    with pytest.raises(TrackingError, match=r"gone\.pt was to be logged as a model, but is gone"):
        Projection(uri).project(snapshot, [ModelSource(1, tmp_path / "gone.pt")])


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_logged_model_predicts_in_a_fresh_process(
    uri: str, snapshot: SweepSnapshot, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "trained.pt"
    script = f"""
import torch
from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.description import ModelDescription
from lmoe_tune.model import build_model
torch.manual_seed(0)
model = build_model("small_cnn", 3, 1).eval()
grey = Preprocessing.as_stored((1, 8, 8), mean=(4.8,), std=(6.4,))
describes = ModelDescription("small_cnn", ("0", "1", "7"), "msp", "fp32", grey)
torch.save(dict(model=model.state_dict(), describes=describes.document()), {str(checkpoint)!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=environment(uri))
    model_id = Projection(uri).project(snapshot, [ModelSource(1, checkpoint)]).models[1]
    checkpoint.unlink()
    script = f"""
import json, mlflow, numpy as np, pandas as pd, torch
from lmoe_tune.model import build_model
images = np.random.default_rng(0).integers(0, 17, (300, 8, 8)).astype("uint8")
detector = mlflow.pyfunc.load_model("models:/{model_id}")
one = detector.predict(images)
four = detector.predict(images[:, None].astype("float32"))
frame = detector.predict(pd.DataFrame(images.reshape(300, 64)))
energy = detector.predict(images, params={{"score": "energy"}})
torch.manual_seed(0)
model = build_model("small_cnn", 3, 1).eval()
with torch.no_grad():
    logits = model(((torch.tensor(images).float() - 4.8) / 6.4)[:, None])
errors = []
for bad in (images[:, :4], np.zeros((2, 3, 8, 8)), pd.DataFrame(np.zeros((2, 63)))):
    try:
        detector.predict(bad)
    except ValueError as error:
        errors.append(str(error))
print(json.dumps(dict(
    columns=list(one.columns), rows=len(one), classes=sorted(set(one["class"])),
    same=bool(np.allclose(one["score"], four["score"]) and np.allclose(one["score"], frame["score"])),
    msp=bool(np.allclose(one["score"], logits.softmax(1).amax(1), atol=1e-5)),
    energy=bool(np.allclose(energy["score"], logits.logsumexp(1), atol=1e-5)),
    right=bool((one["class"] == np.array(["0", "1", "7"])[logits.argmax(1)]).all()),
    empty=len(detector.predict(images[:0])), errors=errors)))
"""
    output = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        env=environment(uri),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        encoding="utf-8",
    )
    said = json.loads(output.stdout.splitlines()[-1])
    errors = said.pop("errors")
    assert set(said.pop("classes")) <= {"0", "1", "7"}
    assert said == {
        "columns": ["class", "score"],
        "rows": 300,
        "same": True,
        "msp": True,
        "energy": True,
        "right": True,
        "empty": 0,
    }
    assert errors[0] == "the input has the shape (300, 4, 8), but must be (N, 1, 8, 8) or (N, 8, 8)"
    assert errors[2] == "the input has the shape (2, 63), but must be (N, 64)"


def environment(uri: str) -> dict[str, str]:
    return os.environ | {"MLFLOW_TRACKING_URI": uri, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_its_metrics_name_the_data_set_they_were_measured_on(
    uri: str, trial: MakeTrial, sweep: MakeSweep, source: Callable[[int], ModelSource]
) -> None:
    sets = (
        DatasetRecord("digits/train", "training", "abc", "digits", 700),
        DatasetRecord("digits/val", "validation", "abc", "digits", 70),
    )
    epochs = (EpochRecord(1, {"val_auroc": 0.9, "ce@1 (%)": 0.1}, 5),)
    snapshot = sweep(trial(0, epochs=epochs), best=0, state="complete", datasets=sets)
    delivered = Projection(uri).project(snapshot, [source(0)])
    assert len(delivered.said) == 1, "the metric, and not the model with it"
    (model,) = models(uri)
    assert {(one.key, one.dataset_name, one.dataset_digest) for one in model.metrics} == {
        ("val_auroc", "digits/val", "abc")
    }
