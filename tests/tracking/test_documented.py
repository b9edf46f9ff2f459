"""`docs/mlflow.md` names every tag and metric that is written, and none that is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lmoe_tune.records import EpochRecord, TrialRecord
from lmoe_tune.snapshot import SweepSnapshot
from lmoe_tune.tracking import content

PAGE = Path(__file__).parents[2] / "docs" / "mlflow.md"


@pytest.fixture
def documented() -> set[str]:
    rows = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def written_tags(snapshot: SweepSnapshot, trial: TrialRecord) -> set[str]:
    found = content.of_new_trial(snapshot, trial, "parent") | content.of_trial(
        snapshot, trial, "parent"
    )
    return set(found | content.of_sweep(snapshot, "run"))


def test_every_tag_is_in_the_table(
    documented: set[str],
    trial: Callable[..., TrialRecord],
    sweep: Callable[..., SweepSnapshot],
) -> None:
    failed = trial(0, "failed", failure="x", retry_of=1, ended_by="time")
    verdict = {"lmoe_tune.verdict": "real", "lmoe_tune.verdict_sentence": "it is"}
    snapshot = sweep(failed, best=0, tags=verdict)
    job = sweep(failed, kind="confirm")
    found = written_tags(snapshot, failed) | set(content.of_new_trial(job, failed, "parent"))
    ours = {name for name in found if name.startswith("lmoe_tune.")}
    expected = ours | {content.NOTE, "lmoe_tune.baseline"}
    in_table = {name for name in documented if name.startswith(("lmoe_tune.", "mlflow."))}
    assert expected <= in_table
    # The constants of a sweep are the picture's: tests/sweep/test_picture.py compares those.
    assert len(in_table - expected) == 24


def test_every_summary_is_in_the_table(
    documented: set[str], trial: Callable[..., TrialRecord], sweep: Callable[..., SweepSnapshot]
) -> None:
    epochs = (EpochRecord(1, {"val_auroc": 0.9, "gpu_mem_peak_mb": 1.0}, 5),)
    one = trial(0, epochs=epochs)
    found = set(content.summary_metrics(sweep(one, gpus=1.0), one))
    in_table = {name for name in documented if re.fullmatch(r"[a-z_]+", name)}
    assert found == in_table - {"lr", "epoch_s", "reserved_s"}
