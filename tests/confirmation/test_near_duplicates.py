"""Copies that lie across train, val and test, on image files: from the inspection to the table and the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.metrics import roc_auc_score

from lmoe_tune.confirmation import job as job_module
from lmoe_tune.confirmation.job import run_job
from lmoe_tune.confirmation.job_ledger import JobLedger
from lmoe_tune.confirmation.plan import SCORES, make_plan
from lmoe_tune.confirmation.result import Confirmation, conclude, write_result
from lmoe_tune.data.inspection import inspect
from lmoe_tune.data.sealed_plan import plan_test
from lmoe_tune.errors import DivergedError
from lmoe_tune.report.write import write_report
from lmoe_tune.spec import Dataset, DataSpec, Spec
from lmoe_tune.sweep import view
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.training.trial import TrialEpoch, run_trial
from tests.data import trees

NUM_PLANTED = 4


@pytest.fixture
def planted(tmp_path: Path) -> DataSpec:
    """Four classes of pictures; of the sealed ones three copy an image trained on and one copies one validated with:
    encoded again, resized, mirrored."""
    trees.class_folders(tmp_path / "id/train", ("a1b", "c2d", "e3f", "g4h"), per_class=12)
    trees.class_folders(tmp_path / "id/test", ("a1b", "c2d", "e3f", "g4h"), per_class=6, seed=1)
    trees.class_folders(tmp_path / "outliers", ("pot", "pan"), per_class=20, seed=2)
    data = DataSpec(
        id=Dataset(dataset="folder", root=str(tmp_path / "id")),
        outliers=Dataset(dataset="folder", root=str(tmp_path / "outliers")),
        resize=18,
        crop=16,
    )
    plan = plan_test(data)
    train, val, test, fine = (
        part.files() for part in (plan.train, plan.val, plan.test, plan.test_fine)
    )
    Image.open(train[0]).save(test[1], quality=60)
    Image.open(train[1]).resize((96, 80)).save(test[2], quality=95)
    ImageOps.mirror(Image.open(val[0])).save(test[3], quality=90)
    ImageOps.mirror(Image.open(train[2])).save(fine[2], quality=90)
    return data


@pytest.fixture
def searched(
    make_ledger: Callable[..., Ledger], add_trial: Callable[..., int], planted: DataSpec
) -> Ledger:
    def with_files(spec: Spec) -> Spec:
        return spec.model_copy(update={"data": planted})

    ledger = make_ledger("budget.trials=2", "train.batch_size=8", change=with_files)
    for value in (0.90, 0.95):
        add_trial(ledger, value)
    return ledger


@pytest.fixture
def confirmed(searched: Ledger, tmp_path: Path) -> Callable[[], tuple[JobLedger, Confirmation]]:
    """All jobs of the winner and its defaults, for real."""

    def confirm() -> tuple[JobLedger, Confirmation]:
        study, plan = (
            JobLedger(searched, tmp_path),
            make_plan(searched, tmp_path, top=1, num_seeds=2),
        )
        plan = type(plan)(plan.top, plan.own_defaults, (), plan.splits, plan.seeds)
        study.begin(plan, "lmoe-tune confirm small")
        while study.ledger.exhausted() is None:
            suggestion = study.ledger.ask()
            config: dict[str, Any] = {
                "candidates": study.ledger.attrs["candidates"],
                "home": str(study.folder.home),
                "sweep": str(study.folder.path),
                "import_path": str(tmp_path),
                "trial": suggestion.number,
                "params": suggestion.params,
            }
            for epoch in run_job(config):
                study.ledger.record_epoch(suggestion.number, epoch.epoch, epoch.metrics, {})
        result = conclude(study, plan)
        write_result(study, result)
        return study, result

    return confirm


def test_they_are_reported_and_the_test_is_measured_with_and_without_them(
    searched: Ledger, confirmed: Callable[[], tuple[JobLedger, Confirmation]]
) -> None:
    found = inspect(searched.spec.data, searched.folder.home)
    assert not found.stops
    assert found.near_duplicates is not None
    assert found.near_duplicates["pairs"] == found.near_duplicates["test_images"] == NUM_PLANTED

    study, result = confirmed()
    winner = result.rows[0].metrics
    assert winner["test_near_duplicates"].mean == NUM_PLANTED
    names = {"test_auroc_distinct", "test_fine_auroc_distinct", "test_accuracy_distinct"}
    assert names <= winner.keys()
    assert any("4 test images are near-duplicates" in caution for caution in result.cautions)
    compared = {paired.metric: paired for paired in result.paired}
    assert compared["test_auroc_distinct"].image_sd > 0

    job = result.jobs[0]
    with np.load(study.folder.path / job["scores"], allow_pickle=False) as arrays:
        known = np.delete(arrays["scores_id"], [1, 2, 3])
        novel = np.delete(arrays["scores_fine"], 2)
        hits = np.delete(arrays["predicted"] == arrays["labels"], [1, 2, 3])
    assert job["metrics"]["test_fine_auroc_distinct"] == pytest.approx(
        roc_auc_score(np.r_[np.ones(len(known)), np.zeros(len(novel))], np.r_[known, novel])
    )
    assert job["metrics"]["test_accuracy_distinct"] == pytest.approx(hits.mean())
    assert job["metrics"]["test_fine_auroc_distinct"] != job["metrics"]["test_fine_auroc"]

    page = write_report(view.read_sweep(searched.folder)).read_text(encoding="utf-8")
    assert "auroc_distinct" in page and "near-duplicates" in page


def test_a_training_that_diverged_has_the_same_metrics(
    searched: Ledger,
    confirmed: Callable[[], tuple[JobLedger, Confirmation]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def second_diverges(*arguments: Any, **more: Any) -> Iterator[TrialEpoch]:
        calls.append(arguments)
        if len(calls) == 2:
            raise DivergedError("the loss is not finite")
        yield from run_trial(*arguments, **more)

    monkeypatch.setattr(job_module, "run_trial", second_diverges)
    _, result = confirmed()
    assert [row.diverged for row in result.rows] == [1, 0]
    diverged = next(job for job in result.jobs if job["diverged"])
    assert diverged["metrics"]["test_auroc_distinct"] == 0.5
    assert diverged["metrics"]["test_near_duplicates"] == NUM_PLANTED
    values = [job["metrics"]["test_auroc_distinct"] for job in result.jobs[:2]]
    assert result.rows[0].metrics["test_auroc_distinct"].mean == pytest.approx(np.mean(values))
    assert (searched.folder.confirmation.trial(0) / SCORES).exists()
