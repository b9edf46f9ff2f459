"""One job for real: a training on the digits, and its test."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, roc_auc_score, roc_curve

from lmoe_tune.confirmation import job as job_module
from lmoe_tune.confirmation.job import run_job
from lmoe_tune.confirmation.job_ledger import JobLedger
from lmoe_tune.confirmation.plan import (
    DESCRIPTION,
    MODEL,
    RESAMPLED,
    SCORES,
    make_plan,
    make_reseeding,
)
from lmoe_tune.confirmation.worker import JobWorker
from lmoe_tune.data import load_search_data
from lmoe_tune.data.image_source import ImageSource
from lmoe_tune.data.sealed_images import open_test_data
from lmoe_tune.description import ModelDescription
from lmoe_tune.errors import DivergedError, UsageError
from lmoe_tune.evaluation import resampled_metrics_of_scores
from lmoe_tune.model import build_model
from lmoe_tune.placements import read_placements
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.training.trial import TrialEpoch
from trainables.worker import Report

SETS = ("id", "fine", "coarse_photo_flower", "outliers")


@pytest.fixture
def config(sweep: Ledger, tmp_path: Path) -> dict[str, Any]:
    """Of the winner's first job, as a worker gets it."""
    study = JobLedger(sweep, tmp_path)
    study.begin(make_plan(sweep, tmp_path, top=1, num_seeds=2), "lmoe-tune confirm small")
    return config_of(study, tmp_path)


def config_of(study: JobLedger, import_path: Path) -> dict[str, Any]:
    """Of the next job."""
    suggestion = study.ledger.ask()
    return {
        "candidates": study.ledger.attrs["candidates"],
        "home": str(study.folder.home),
        "sweep": str(study.folder.path),
        "import_path": str(import_path),
        "trial": suggestion.number,
        "params": suggestion.params,
    }


def folder_of(config: dict[str, Any]) -> Path:
    return Path(config["sweep"]) / "trials" / str(config["trial"])


def last(config: dict[str, Any]) -> TrialEpoch:
    *_, result = run_job(config)
    return result


def of_test(result: TrialEpoch) -> dict[str, float]:
    return {name: value for name, value in result.metrics.items() if name.startswith("test_")}


def test_the_last_epoch_has_the_test_metrics_that_scikit_learn_computes_from_what_is_kept(
    config: dict[str, Any],
) -> None:
    result = last(config)
    with np.load(folder_of(config) / SCORES, allow_pickle=False) as kept:
        arrays = dict(kept)
    for name in SETS:
        assert arrays[f"scores_{name}"].dtype == np.float64
    assert arrays["labels"].dtype == arrays["predicted"].dtype == np.int64
    assert set(arrays["labels"].tolist()) == set(range(7)), (
        "all in-distribution classes, those held out too"
    )
    id_scores = arrays["scores_id"]
    for name in ("fine", "coarse"):
        ood = arrays["scores_fine" if name == "fine" else "scores_coarse_photo_flower"]
        truth, scores = np.r_[np.ones(len(id_scores)), np.zeros(len(ood))], np.r_[id_scores, ood]
        assert result.metrics[f"test_{name}_auroc"] == pytest.approx(
            roc_auc_score(truth, scores), abs=1e-12
        )
        fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
        assert result.metrics[f"test_{name}_tnr95"] == pytest.approx(
            1 - fpr[np.argmax(tpr >= 0.95)], abs=1e-12
        )
    assert result.metrics["test_accuracy"] == accuracy_score(arrays["labels"], arrays["predicted"])
    both = (result.metrics["test_fine_auroc"] + result.metrics["test_coarse_auroc"]) / 2
    assert result.metrics["test_auroc"] == pytest.approx(both)
    assert "val_accuracy" in result.metrics

    scores = {name: torch.from_numpy(arrays[f"scores_{name}"]) for name in SETS}
    correct = torch.from_numpy(arrays["predicted"] == arrays["labels"])
    again = resampled_metrics_of_scores(
        scores, torch.from_numpy(arrays["confidence"]), correct, seed=0
    )
    for name, values in again.items():
        np.testing.assert_array_equal(arrays[f"{RESAMPLED}{name}"], values)


def test_killed_between_the_test_and_its_record_it_gives_the_same_once_more(
    config: dict[str, Any],
) -> None:
    first, scores = last(config), folder_of(config) / SCORES
    content = scores.read_bytes()
    scores.unlink()
    (again,) = run_job(config)  # from the checkpoint of the last epoch
    assert of_test(again) == of_test(first)
    assert again.epoch == first.epoch == 1
    with np.load(scores) as arrays:
        kept = {name: arrays[name] for name in arrays}
    scores.write_bytes(content)
    with np.load(scores) as arrays:
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], kept[name])


@pytest.mark.precision
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_in_either_precision_a_job_gives_the_same_after_a_kill(
    make_ledger: Callable[..., Ledger],
    add_trial: Callable[..., int],
    tmp_path: Path,
    precision: str,
) -> None:
    """Whatever the CPU has: bf16 is emulated where it must be, so there are few images."""
    searched = make_ledger(
        f"train.precision={precision}", "data.id.limit=500", "data.outliers.limit=300", "budget.trials=1"
    )  # fmt: skip
    add_trial(searched, 0.9)
    study = JobLedger(searched, tmp_path)
    study.begin(make_plan(searched, tmp_path, top=1, num_seeds=2), "lmoe-tune confirm small")
    config = config_of(study, tmp_path)

    first = last(config)
    (folder_of(config) / SCORES).unlink()
    (again,) = run_job(config)  # from the checkpoint of the last epoch

    assert of_test(again) == of_test(first)
    assert {"test_auroc", "test_accuracy"} <= of_test(first).keys()
    described = json.loads((folder_of(config) / DESCRIPTION).read_text(encoding="utf-8"))
    assert ModelDescription.of_record(described, whose="it", fix="").precision == precision


def test_the_winners_weights_are_kept_and_give_what_was_tested(
    config: dict[str, Any], sweep: Ledger
) -> None:
    import json

    last(config)
    folder = folder_of(config)
    described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    describes = ModelDescription.of_record(described, whose="it", fix="")
    model = describes.build(torch.load(folder / MODEL, weights_only=True))
    model.eval()
    opened = open_test_data(sweep.spec.data, Path(config["home"]))
    images = ImageSource(opened.training, torch.device("cpu"))
    with torch.inference_mode():
        chunks = images.chunks_of(opened.test.images, 512)
        logits = torch.cat([model(chunk) for chunk in chunks])
    predicted = opened.test.parts(logits.argmax(dim=1))["id"]
    with np.load(folder / SCORES) as arrays:
        np.testing.assert_array_equal(arrays["predicted"], predicted.numpy())
    assert described["classes"] == list(opened.training.classes)


@pytest.mark.parametrize(
    ("candidate", "seed"), [(0, 1001), (1, 1000)], ids=["another seed", "a comparator"]
)
def test_no_other_weights_are_kept(config: dict[str, Any], candidate: int, seed: int) -> None:
    config["params"] = {"candidate": candidate, "split": 0, "seed": seed}
    last(config)
    assert (folder_of(config) / SCORES).is_file()
    assert not (folder_of(config) / MODEL).exists()


def test_a_classifier_of_the_users_own_is_confirmed_on_the_classes_that_it_knows(
    make_ledger: Callable[..., Ledger], add_trial: Callable[..., int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    own = tmp_path / "own.pt"
    torch.save(build_model("small_cnn", 5, 1, 8).state_dict(), own)
    ledger = make_ledger("budget.trials=1", "model.baseline.epochs=0", f"model.weights={own}")
    add_trial(ledger, 0.9)
    study, plan = JobLedger(ledger, tmp_path), make_plan(ledger, tmp_path, top=1, num_seeds=2)
    assert "knows: those that the search held out are in no set" in plan.notes[-1]
    with pytest.raises(UsageError, match=r"splits: model\.baseline\.epochs is 0"):
        make_plan(ledger, tmp_path, top=1, num_seeds=2, splits=(0, 1))
    study.begin(plan, "lmoe-tune confirm small")
    assert not next(study.files(plan))[1]
    found = []
    for _ in range(2):
        config = config_of(study, tmp_path)
        found.append(last(config))
        searched = load_search_data(ledger.spec.data, ledger.folder.home)
        with np.load(folder_of(config) / SCORES) as arrays:
            assert set(arrays["labels"].tolist()) == set(range(5))
            whole = open_test_data(ledger.spec.data).test
            assert len(arrays["scores_id"]) < whole.sizes["id"]
            assert len(arrays["scores_fine"]) == whole.sizes["fine"]
    assert json.loads((study.folder.trial(0) / DESCRIPTION).read_text(encoding="utf-8"))[
        "classes"
    ] == list(searched.classes)
    assert found[0].baseline == found[1].baseline
    assert of_test(found[0]) != of_test(found[1])


@pytest.fixture
def reseeded(sweep: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Of a reseeding's first job; whatever opens the test set fails."""
    study = JobLedger(sweep, tmp_path)
    study.begin(make_reseeding(sweep, tmp_path, top=1, num_seeds=2), "lmoe-tune confirm small")

    def opened(*arguments: Any, **more: Any) -> Any:
        raise AssertionError("the test set was opened")

    monkeypatch.setattr(job_module, "open_test_data", opened)
    return config_of(study, tmp_path)


def test_a_reseeding_trains_what_the_search_trains_and_opens_nothing(
    reseeded: dict[str, Any],
) -> None:
    result = last(reseeded)
    assert {
        "val_auroc",
        "val_fine_auroc",
        "val_coarse_auroc",
        "val_accuracy",
    } <= result.metrics.keys()
    assert of_test(result) == {}
    kept = read_placements(folder_of(reseeded))
    assert kept is not None
    assert kept.auroc("val_auroc") == pytest.approx(result.metrics["val_auroc"])
    assert not (folder_of(reseeded) / SCORES).exists()


def test_a_training_of_a_reseeding_that_diverges_counts_as_chance(
    reseeded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(*arguments: Any, **more: Any) -> Iterator[TrialEpoch]:
        raise DivergedError("the loss is not finite")
        yield

    monkeypatch.setattr(job_module, "run_trial", diverges)
    result = last(reseeded)
    assert result.metrics["val_auroc"] == result.metrics["val_coarse_auroc"] == 0.5
    assert result.metrics["val_diverged"] == 1
    assert result.metrics["val_accuracy"] == 1 / 5


def test_every_seed_has_a_baseline_training_of_its_own_and_every_split_its_images(
    config: dict[str, Any],
) -> None:
    found = {}
    for split, seed in ((0, 1000), (0, 1001), (1, 1000)):
        config |= {"params": {"candidate": 5, "split": split, "seed": seed}, "trial": len(found)}
        result = last(config)
        found[split, seed] = result.baseline_key, of_test(result)
    assert len({key for key, _ in found.values()}) == 3
    assert len({metrics["test_fine_auroc"] for _, metrics in found.values()}) == 3
    assert len(list((Path(config["home"]) / "baselines").iterdir())) == 3


def test_a_worker_runs_the_job_that_its_config_names(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = object.__new__(JobWorker)
    worker.config, worker._epochs, worker._held_since = config, None, time.monotonic()
    report: Report = worker.step()["report"]
    assert report.failure is None, report.traceback
    assert report.epoch == 1
    assert {"test_auroc", "val_accuracy"} <= report.metrics.keys()


@pytest.fixture
def not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmoe_tune.confirmation import job

    whole = job.outputs

    def broken(logits: Any, name: Any) -> Any:
        return whole((chunk * float("nan") for chunk in logits), name)

    monkeypatch.setattr(job, "outputs", broken)


def test_a_model_without_finite_logits_is_worth_chance(
    config: dict[str, Any], not_finite: None, caplog: pytest.LogCaptureFixture
) -> None:
    result = last(config)
    assert result.epoch == 1
    found = of_test(result)
    assert found["test_diverged"] == 1.0
    assert found["test_auroc"] == found["test_fine_auroc"] == found["test_coarse_auroc"] == 0.5
    assert (found["test_accuracy"], found["test_fine_tnr95"]) == (1 / 7, 0.05)
    assert "the logits of the test images are not finite; this training counts as chance" in (
        caplog.text
    )
    with np.load(folder_of(config) / SCORES, allow_pickle=False) as kept:
        assert (kept[f"{RESAMPLED}test_auroc"] == 0.5).all()
        assert len(kept["novel_auroc"]) == 3


def test_a_training_that_diverges_is_a_result_with_all_its_epochs(
    make_ledger: Callable[..., Ledger], add_trial: Callable[..., int], tmp_path: Path
) -> None:
    """With a learning rate of 1e30, in the baseline or in the trial itself."""
    ledger = make_ledger("fixed={lr: 1.0e+30}", "budget.trials=1", "train.epochs=3")
    number = ledger.ask().number
    for epoch in (1, 2, 3):
        metrics = {"val_auroc": 0.9, "val_accuracy": 0.9}
        ledger.record_epoch(number, epoch, metrics, metrics)
    study = JobLedger(ledger, tmp_path)
    study.begin(make_plan(ledger, tmp_path, top=1, num_seeds=2), "lmoe-tune confirm small")
    epochs = list(run_job(config_of(study, tmp_path)))
    assert [result.epoch for result in epochs] == [1, 2, 3]
    assert "test_diverged" not in epochs[0].metrics
    assert of_test(epochs[-1])["test_diverged"] == 1.0
    again = list(run_job(config_of(study, tmp_path)))
    assert of_test(again[-1])["test_diverged"] == 1.0


def test_what_is_kept_has_each_novel_class_and_the_outliers_sealed_pool(
    config: dict[str, Any],
) -> None:
    result = last(config)
    with np.load(folder_of(config) / SCORES, allow_pickle=False) as kept:
        arrays = dict(kept)
    shares = arrays["novel_count"] / arrays["novel_count"].sum()
    assert len(arrays["novel_class"]) == 3
    assert result.metrics["test_fine_auroc"] == pytest.approx(
        float((shares * arrays["novel_auroc"]).sum())
    )
    truth = np.r_[np.ones(len(arrays["scores_id"])), np.zeros(len(arrays["scores_outliers"]))]
    scores = np.r_[arrays["scores_id"], arrays["scores_outliers"]]
    assert result.metrics["test_outliers_auroc"] == pytest.approx(roc_auc_score(truth, scores))
    both = (result.metrics["test_fine_auroc"] + result.metrics["test_coarse_auroc"]) / 2
    assert result.metrics["test_auroc"] == pytest.approx(both), "it is in no mean"
