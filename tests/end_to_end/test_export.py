"""The best trial of a real sweep, taken away: file, array, registry and evaluation say the same."""

from __future__ import annotations

import json

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image

from lmoe_tune.data import load_search_data
from lmoe_tune.detector import load_detector
from lmoe_tune.evaluation import threshold_at_tpr, tnr_at_tpr
from lmoe_tune.evaluation.detection import auroc
from lmoe_tune.sweep import projector
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.view import read_sweep, tracking_of
from lmoe_tune.tracking.uploads import register_detector
from tests.end_to_end.conftest import Command
from tests.hearing import Hearing

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


def test_what_is_exported_answers_as_the_evaluation_did(copy_of_reference: Command) -> None:
    command = copy_of_reference
    done = command.look("export", "digits", "--out", "det", "--json")
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    ledger = read_sweep(command.folder)
    best = ledger.best()
    assert best is not None and about["provenance"]["trial"] == best.number
    data = load_search_data(ledger.spec.data, command.home)
    sets = (data.val, data.val_fine, data.val_coarse)
    detector = load_detector(command.cwd / "det")
    images = np.concatenate([one.pixels for one in sets])
    found = detector.predict(images)

    # the evaluation: the same metrics as the trial's record
    scores = torch.tensor([one.score for one in found], dtype=torch.float64)
    known, fine, coarse = scores.split([len(one) for one in sets])
    labels = [one.label for one in found[: len(known)]]
    accuracy = np.mean(
        [
            label == data.classes[number]
            for label, number in zip(labels, data.val_labels, strict=True)
        ]
    )
    assert accuracy == pytest.approx(about["metrics"]["val_accuracy"], abs=1e-12)
    assert about["recorded"]["metrics"] == best.metrics
    allowed = {"fp32": 1e-4, "bf16": 0.02}[about["recorded"]["precision"]]  # as the CPU decides
    for name, outside in (("fine", fine), ("coarse", coarse)):
        measured = about["metrics"][f"val_{name}_auroc"]
        assert auroc(known, outside) == pytest.approx(measured, abs=1e-9)
        assert measured == pytest.approx(best.metrics[f"val_{name}_auroc"], abs=allowed)
        rejected = (
            torch.tensor(
                [one.is_ood for one in detector.predict(getattr(data, f"val_{name}").pixels)]
            )
            .double()
            .mean()
        )
        assert rejected.item() == tnr_at_tpr(known, outside)
    assert detector.threshold == threshold_at_tpr(known, 0.95)
    assert [one.is_ood for one in found] == (scores < detector.threshold).tolist()

    # files, one or many, by the command
    for number in range(10):
        Image.fromarray(images[number, 0]).save(command.cwd / f"{number}.png")
    rgb = Image.fromarray(images[0, 0])
    rgb.convert("RGBA").save(command.cwd / "rgba.png")
    (command.cwd / "broken.png").write_bytes(b"none")
    done = command.look(
        "predict",
        "det",
        *(f"{number}.png" for number in range(10)),
        "rgba.png",
        "broken.png",
        "--json",
    )
    assert done.returncode == 2 and "broken.png" in done.stderr and "Traceback" not in done.stderr
    rows = json.loads(done.stdout)
    expected = [(one.label, one.score, one.is_ood) for one in [*found[:10], found[0]]]
    assert [(row["class"], row["score"], row["is_ood"]) for row in rows] == expected
    assert detector(command.cwd / "3.png") == found[3]

    # what MLflow has registered
    uri = f"sqlite:///{command.home / 'mlflow.db'}"
    assert projector.sync(
        Ledger.writing(command.folder, ledger.spec), uri, Hearing()
    )  # its home has moved
    experiment_id, run_id = tracking_of(read_sweep(command.folder)).run_of(best.number)
    try:
        registered = register_detector(
            uri,
            command.cwd / "det",
            model_name="digits",
            experiment_id=experiment_id,
            run_id=run_id,
            trial=best.number,
            artifact_root=command.home / "mlartifacts",
        )
        mlflow.set_tracking_uri(uri)
        told = mlflow.pyfunc.load_model(registered["uri"]).predict(images)
    finally:
        mlflow.set_tracking_uri(None)
    assert list(told[["class", "score", "is_ood"]].itertuples(index=False, name=None)) == [
        (one.label, one.score, one.is_ood) for one in found
    ]
